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

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** True: granted. False: `granted` is called when there is room, unless {@link cancel} is called with it before. */
  reserve(bytes: number, granted: () => void): boolean {
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#usedBytes += bytes;
      return true;
    }
    this.#waiting.push({ bytes, granted });
    return false;
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
