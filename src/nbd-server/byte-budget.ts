/**
 * A bound on the payload bytes that all connections hold together. Promise: first come, first served; what was granted never exceeds
 * the bound, except that a single request larger than the bound is granted alone.
 */
import { assert } from '../base/assert.js';

interface Waiter {
  readonly bytes: number;
  readonly granted: () => void;
}

export class ByteBudget {
  readonly #bytesMax: number;
  #usedBytes = 0;
  #waiting: Waiter[] = [];

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @public */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Somebody waits for bytes that others hold. */
  get isContended(): boolean {
    return this.#waiting.length > 0;
  }

  /** Whether they were granted; if not, {@link wait} for them. */
  reserve(bytes: number): boolean {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) return false;
    this.#usedBytes += bytes;
    return true;
  }

  /** `granted` is called when the bytes are reserved, unless {@link cancel} is called with it before. */
  wait(bytes: number, granted: () => void): void {
    this.#waiting.push({ bytes, granted });
  }

  cancel(granted: () => void): void {
    this.#waiting = this.#waiting.filter((waiter) => waiter.granted !== granted);
    this.#grant();
  }

  release(bytes: number): void {
    this.#usedBytes -= bytes;
    assert(this.#usedBytes >= 0, 'what is released was reserved');
    if (this.#waiting.length > 0) this.#grant();
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes === 0 || this.#usedBytes + bytes <= this.#bytesMax;
  }

  #grant(): void {
    for (;;) {
      const first = this.#waiting[0];
      if (first === undefined || !this.#fits(first.bytes)) return;
      this.#waiting.shift();
      this.#usedBytes += first.bytes;
      first.granted();
    }
  }
}
