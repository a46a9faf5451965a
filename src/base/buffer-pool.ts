/**
 * A pool of reused buffers. Fresh large buffers cost page faults, so whoever needs one takes it here and gives it back.
 * Promise: at most `idleBytesMax` bytes lie unused in the pool; more are left to the garbage collector.
 */
import { assert } from './assert.js';
import { bulkBuffer, bulkOffset } from './bulk-buffer.js';

const smallestClassBits = 12; // 4 KiB
const largestClassBits = 25; // 32 MiB, the largest request

export class BufferPool {
  readonly #idleBytesMax: number;
  readonly #free: Buffer[][] = Array.from({ length: largestClassBits + 1 }, () => []);
  #idleBytes = 0;

  constructor(idleBytesMax: number) {
    this.#idleBytesMax = idleBytesMax;
  }

  /** A buffer of exactly `length` bytes with arbitrary content. */
  take(length: number): Buffer {
    const bits = classBits(length);
    if (bits > largestClassBits) return bulkBuffer(length);
    const whole = this.#free[bits]?.pop();
    if (whole === undefined) {
      const fresh = bulkBuffer(1 << bits);
      return fresh.length === length ? fresh : fresh.subarray(0, length);
    }
    this.#idleBytes -= whole.length;
    return whole.length === length ? whole : whole.subarray(0, length);
  }

  /** Takes back a buffer that came from {@link take}. The caller must not touch it afterwards. */
  give(buffer: Buffer): void {
    assert(buffer.byteOffset === bulkOffset, 'only buffers that the pool handed out come back to it');
    const capacity = buffer.buffer.byteLength - bulkOffset;
    const bits = classBits(capacity);
    if (1 << bits !== capacity || bits > largestClassBits) return;
    if (this.#idleBytes + capacity > this.#idleBytesMax) return;
    this.#idleBytes += capacity;
    this.#free[bits]?.push(buffer.length === capacity ? buffer : Buffer.from(buffer.buffer, bulkOffset));
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }
}

function classBits(length: number): number {
  return Math.max(smallestClassBits, 32 - Math.clz32(Math.max(length, 1) - 1));
}
