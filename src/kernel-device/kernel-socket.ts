/**
 * Our end of one socket that the kernel sends a device's requests over.
 * Promises: it serves from the moment it is made (the kernel may send before it says that it took the other end); nothing is read
 * from it after {@link KernelSocket.stop}, and what had been read is not lost.
 */
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { bulkBuffer } from '../base/bulk-buffer.js';
import type { BufferPool } from '../base/buffer-pool.js';
import type { Volume } from '../base/volume.js';
import { plainAgreement } from '../nbd/negotiation.js';
import type { ByteBudget } from '../base/byte-budget.js';
import { Transmission } from '../nbd-server/transmission.js';

export interface KernelSocketContext {
  readonly volume: Volume;
  /** Shared with the volume. */
  readonly buffers: BufferPool;
  /** Of all sockets of the device. */
  readonly budget: ByteBudget;
}

/** What one receive call can take. */
const receiveBytes = 256 * 1024;

export class KernelSocket {
  readonly fd: number;
  readonly #socket: Socket;
  readonly #transmission: Transmission;
  #handedOver = false;

  /**
   * `fd`: one end of a socket pair, owned from now on. `received`: what a predecessor had read from it and not served.
   * `onClosed`: called once, when the kernel has no use for it any more, or {@link destroy} was called.
   */
  constructor(fd: number, context: KernelSocketContext, received: Buffer, onClosed: () => void) {
    this.fd = fd;
    let paused = false;
    const flow = {
      pause: () => {
        paused = true;
        this.#socket.pause();
      },
      resume: () => {
        paused = false;
        this.#socket.resume();
      },
    };
    const callback = (bytes: number, buffer: Uint8Array) => {
      this.#transmission.push(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
      return !paused;
    };
    const options: SocketConstructorOpts & Pick<ConnectOpts, 'onread'> = {
      ...{ fd, readable: true, writable: true, allowHalfOpen: true },
      onread: { buffer: bulkBuffer(receiveBytes), callback },
    };
    this.#socket = new Socket(options);
    this.#transmission = new Transmission(this.#socket, {
      ...context,
      agreement: plainAgreement,
      flow,
      onOver: () => this.#over(),
    });
    this.#socket.on('end', () => this.#transmission.end());
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('close', () => {
      this.#transmission.abort();
      onClosed();
    });
    if (received.length > 0) this.#transmission.push(received);
  }

  /**
   * Reads nothing more, answers what was read, and resolves with the bytes that were not served. The socket itself stays as it is:
   * whoever has a copy of the descriptor goes on with them.
   */
  async stop(): Promise<Buffer> {
    this.#handedOver = true;
    // Null: the kernel has closed it, as whoever has a copy will see.
    return (await this.#transmission.stop()) ?? Buffer.alloc(0);
  }

  /** Closes it at once: what is in flight stays unanswered. */
  destroy(): void {
    this.#socket.destroy();
  }

  #over(): void {
    // To close a socket that is handed over would shut it down for the successor as well.
    if (!this.#handedOver) this.#socket.destroySoon();
  }
}
