/**
 * Responses on their way to one socket. Everything that is due in one turn of the event loop goes out in one system call;
 * heads and short data are put together in one buffer.
 *
 * Promise: a buffer goes back to the pool only when the kernel has taken its bytes, or the socket is gone.
 */
import type { Socket } from 'node:net';
import type { BufferPool } from '../base/buffer-pool.js';

/** Room for the small answers of one turn. */
const segmentBytes = 256 * 1024;

/** Longer data stays in its own buffer. */
const copiedBytesMax = 16 * 1024;

export class ResponseOutput {
  readonly #socket: Socket;
  readonly #pool: BufferPool;
  readonly #onWritten: (countedBytes: number) => void;
  #segment: Buffer | undefined;
  #filled = 0;
  /** What comes before the segment. */
  #ready: Buffer[] = [];
  #readyBytes = 0;
  /** To go back to the pool when everything of this turn is written. */
  #borrowed: Buffer[] = [];
  #countedBytes = 0;

  /** `onWritten` is told how many counted bytes have left. */
  constructor(socket: Socket, pool: BufferPool, onWritten: (countedBytes: number) => void) {
    this.#socket = socket;
    this.#pool = pool;
    this.#onWritten = onWritten;
  }

  /** Appends a head: ASCII. */
  head(text: string): void {
    const segment = this.#room(text.length);
    this.#filled += segment.write(text, this.#filled, 'latin1');
  }

  /** Appends a body of text, in UTF-8. */
  body(text: string): void {
    const bytes = Buffer.byteLength(text);
    if (bytes <= copiedBytesMax) {
      const segment = this.#room(bytes);
      this.#filled += segment.write(text, this.#filled, 'utf8');
      return;
    }
    const buffer = this.#pool.take(bytes);
    buffer.write(text, 'utf8');
    this.#own(buffer);
  }

  /**
   * Appends data in a buffer of the pool, which goes back there in the end. `countedBytes` are held against a budget for
   * it until then.
   */
  data(buffer: Buffer, countedBytes: number): void {
    this.#countedBytes += countedBytes;
    if (buffer.length > copiedBytesMax) {
      this.#own(buffer);
      return;
    }
    const segment = this.#room(buffer.length);
    this.#filled += buffer.copy(segment, this.#filled);
    this.#pool.give(buffer);
  }

  /** Bytes that the socket has not been given. */
  get pendingBytes(): number {
    return this.#readyBytes + this.#filled;
  }

  /** Hands everything to the socket. */
  flush(): void {
    if (this.pendingBytes === 0) return;
    this.#closeSegment();
    const { ready, borrowed, countedBytes } = this.#taken();
    const written = () => {
      for (const buffer of borrowed) this.#pool.give(buffer);
      this.#onWritten(countedBytes);
    };
    this.#socket.cork();
    for (const [index, buffer] of ready.entries()) {
      if (index < ready.length - 1) this.#socket.write(buffer);
      else this.#socket.write(buffer, written);
    }
    this.#socket.uncork();
  }

  /** The socket is gone before this turn's output was handed to it. */
  discard(): void {
    this.#closeSegment();
    const { borrowed, countedBytes } = this.#taken();
    for (const buffer of borrowed) this.#pool.give(buffer);
    this.#onWritten(countedBytes);
  }

  #own(buffer: Buffer): void {
    this.#closeSegment();
    this.#ready.push(buffer);
    this.#readyBytes += buffer.length;
    this.#borrowed.push(buffer);
  }

  #taken(): { ready: Buffer[]; borrowed: Buffer[]; countedBytes: number } {
    const taken = { ready: this.#ready, borrowed: this.#borrowed, countedBytes: this.#countedBytes };
    this.#ready = [];
    this.#readyBytes = 0;
    this.#borrowed = [];
    this.#countedBytes = 0;
    return taken;
  }

  #room(bytes: number): Buffer {
    if (this.#segment !== undefined && segmentBytes - this.#filled >= bytes) return this.#segment;
    this.#closeSegment();
    this.#segment = this.#pool.take(segmentBytes);
    return this.#segment;
  }

  #closeSegment(): void {
    const segment = this.#segment;
    if (segment === undefined) return;
    if (this.#filled > 0) this.#ready.push(segment.subarray(0, this.#filled));
    this.#readyBytes += this.#filled;
    this.#borrowed.push(segment);
    this.#segment = undefined;
    this.#filled = 0;
  }
}
