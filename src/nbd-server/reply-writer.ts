/**
 * Writes replies to a socket: everything that is due in one turn of the event loop goes out together.
 * Promise: replies leave in the order of the calls; buffers go back to the pool, and payload bytes are reported as written, when the
 * kernel has taken them, or the socket is gone.
 */
import type { Socket } from 'node:net';
import { assert } from '../base/assert.js';
import type { BufferPool } from '../base/buffer-pool.js';

const batchBytes = 256 * 1024;
/** Larger data is not copied into the batch, but written from where it lies. */
const copiedBytesMax = 32 * 1024;
/** Unsent bytes at which no more requests are read. */
const unsentBytesMax = 4 * 1024 * 1024;

export class ReplyWriter {
  readonly #socket: Socket;
  readonly #buffers: BufferPool;
  readonly #onWritten: (payloadBytes: number) => void;
  #batch: Buffer | undefined;
  #filledBytes = 0;
  /** Payload in the batch. */
  #payloadBytes = 0;
  #writtenBytes = 0;
  #scheduled = false;

  /** `onWritten` hears of all data of {@link data} once, possibly of several together. */
  constructor(socket: Socket, buffers: BufferPool, onWritten: (payloadBytes: number) => void) {
    this.#socket = socket;
    this.#buffers = buffers;
    this.#onWritten = onWritten;
  }

  /** The client does not read its replies: nothing more should be read from it. */
  get isCongested(): boolean {
    return this.#socket.writableLength > unsentBytesMax;
  }

  /** The client has to read before more can be written. */
  get isBlocked(): boolean {
    return this.#socket.writableLength > 0;
  }

  /** What the kernel has taken so far. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** Room for `bytes` bytes, at most 64 KiB: they start at the returned index of {@link batch}, and the caller fills them at once. */
  room(bytes: number): number {
    if (this.#filledBytes + bytes > batchBytes) this.flush();
    this.#batch ??= this.#buffers.take(batchBytes);
    const at = this.#filledBytes;
    this.#filledBytes += bytes;
    this.#schedule();
    return at;
  }

  get batch(): Buffer {
    assert(this.#batch !== undefined, 'room is asked for before it is used');
    return this.#batch;
  }

  /** Adds `data`, which came from the pool and goes back to it. */
  data(data: Buffer): void {
    if (data.length <= copiedBytesMax) {
      const at = this.room(data.length);
      data.copy(this.batch, at);
      this.#payloadBytes += data.length;
      this.#buffers.give(data);
      return;
    }
    this.#socket.cork();
    this.flush();
    this.#write(data, data, data.length);
    this.#socket.uncork();
  }

  flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    const [bytes, payloadBytes] = [this.#filledBytes, this.#payloadBytes];
    this.#batch = undefined;
    this.#filledBytes = 0;
    this.#payloadBytes = 0;
    this.#write(batch.subarray(0, bytes), batch, payloadBytes);
  }

  #write(bytes: Buffer, buffer: Buffer, payloadBytes: number): void {
    this.#socket.write(bytes, () => {
      this.#writtenBytes += bytes.length;
      this.#buffers.give(buffer);
      this.#onWritten(payloadBytes);
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
