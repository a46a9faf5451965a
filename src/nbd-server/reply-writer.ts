/**
 * Writes replies to a socket: everything that is due in one turn of the event loop goes out together.
 * Promise: replies leave in the order of the calls; a buffer that was handed over is given back when the kernel has taken it, or the
 * socket is gone.
 */
import type { Socket } from 'node:net';
import type { BufferPool } from '../base/buffer-pool.js';

const batchBytes = 256 * 1024;
/** Larger data is not copied into the batch, but written from where it lies. */
export const copiedBytesMax = 32 * 1024;
/** Unsent bytes at which no more requests are read. */
const unsentBytesMax = 4 * 1024 * 1024;

export class ReplyWriter {
  readonly #socket: Socket;
  readonly #buffers: BufferPool;
  #batch: Buffer | undefined;
  #filledBytes = 0;
  #scheduled = false;
  #unsent = 0;

  constructor(socket: Socket, buffers: BufferPool) {
    this.#socket = socket;
    this.#buffers = buffers;
  }

  /** The client does not read its replies: nothing more should be read from it. */
  get isCongested(): boolean {
    return this.#socket.writableLength > unsentBytesMax;
  }

  /** Nothing is left that the kernel has not taken. */
  get isDrained(): boolean {
    return this.#filledBytes === 0 && this.#unsent === 0;
  }

  /** Room for `bytes` bytes of a reply, at `at` of `batch`; the caller fills them at once. `bytes` is at most 64 KiB. */
  room(bytes: number): { batch: Buffer; at: number } {
    if (this.#batch !== undefined && this.#filledBytes + bytes > batchBytes) this.flush();
    this.#batch ??= this.#buffers.take(batchBytes);
    const at = this.#filledBytes;
    this.#filledBytes += bytes;
    this.#schedule();
    return { batch: this.#batch, at };
  }

  /** Writes `data` after everything before it. `written` is called once, when nobody needs it any more. */
  large(data: Buffer, written: () => void): void {
    this.#socket.cork();
    this.flush();
    this.#write(data, written);
    this.#socket.uncork();
  }

  flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    const bytes = this.#filledBytes;
    this.#batch = undefined;
    this.#filledBytes = 0;
    this.#write(batch.subarray(0, bytes), () => this.#buffers.give(batch));
  }

  #write(data: Buffer, written: () => void): void {
    this.#unsent += 1;
    this.#socket.write(data, () => {
      this.#unsent -= 1;
      written();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.flush();
    });
  }
}
