/**
 * A bound on bytes that are held in memory for clients. Who asks for more than is free waits, in the order of asking.
 */
import { assert } from '../base/assert.js';

interface Waiter {
  readonly bytes: number;
  readonly granted: () => void;
}

export class ByteBudget {
  readonly bytesMax: number;
  readonly #waiting = new Set<Waiter>();
  #taken = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get takenBytes(): number {
    return this.#taken;
  }

  /** Whether somebody waits for bytes that others hold. */
  get isWanted(): boolean {
    return this.#waiting.size > 0;
  }

  /** Takes the bytes at once, if they are free and nobody else waits. */
  tryTake(bytes: number): boolean {
    assert(bytes <= this.bytesMax, 'nobody may ask for more than there is');
    if (this.#waiting.size > 0 || this.#taken + bytes > this.bytesMax) return false;
    this.#taken += bytes;
    return true;
  }

  /** Takes the bytes when it is this one's turn, and calls `granted` then. Returns how to give up before. */
  wait(bytes: number, granted: () => void): () => void {
    const waiter: Waiter = { bytes, granted };
    this.#waiting.add(waiter);
    return () => {
      this.#waiting.delete(waiter);
      this.#grant();
    };
  }

  give(bytes: number): void {
    assert(bytes <= this.#taken, 'what is given back was taken');
    this.#taken -= bytes;
    this.#grant();
  }

  #grant(): void {
    for (const waiter of this.#waiting) {
      if (this.#taken + waiter.bytes > this.bytesMax) return;
      this.#waiting.delete(waiter);
      this.#taken += waiter.bytes;
      waiter.granted();
    }
  }
}
