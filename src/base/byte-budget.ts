/**
 * A bound on bytes that are held in memory for clients. Promises: never more than the bound is taken; a part of it is kept for small
 * takers, whom large ones therefore cannot shut out; among their like, who asks first is served first.
 */
import { assert } from './assert.js';

/** Up to so many bytes a taker is a small one. */
const smallBytesMax = 1024 * 1024;

interface Waiter {
  readonly bytes: number;
  readonly granted: () => void;
}

/** Those who wait, in the order of asking. */
interface Line {
  readonly waiting: Set<Waiter>;
  readonly bytesMax: number;
}

export class ByteBudget {
  readonly #small: Line;
  readonly #large: Line;
  #taken = 0;

  /** `smallShareBytes`: how much of `bytesMax` only small takers get. Nobody may ask for more than its kind can get. */
  constructor(bytesMax: number, smallShareBytes = 0) {
    assert(bytesMax > smallShareBytes, 'there is something left for large takers');
    this.#small = { waiting: new Set(), bytesMax };
    this.#large = { waiting: new Set(), bytesMax: bytesMax - smallShareBytes };
  }

  get takenBytes(): number {
    return this.#taken;
  }

  /** Whether somebody waits for bytes that others hold. */
  get isWanted(): boolean {
    return this.#small.waiting.size + this.#large.waiting.size > 0;
  }

  /** Takes the bytes at once, if they are free and nobody of the same kind waits. */
  tryTake(bytes: number): boolean {
    const { waiting, bytesMax } = this.#lineOf(bytes);
    assert(bytes <= bytesMax, 'nobody may ask for more than there is');
    if (waiting.size > 0 || this.#taken + bytes > bytesMax) return false;
    this.#taken += bytes;
    return true;
  }

  /** Takes the bytes when it is this one's turn, and calls `granted` then. Returns how to give up before. */
  wait(bytes: number, granted: () => void): () => void {
    const { waiting } = this.#lineOf(bytes);
    const waiter: Waiter = { bytes, granted };
    waiting.add(waiter);
    return () => {
      if (waiting.delete(waiter)) this.#grant();
    };
  }

  give(bytes: number): void {
    assert(bytes <= this.#taken, 'what is given back was taken');
    this.#taken -= bytes;
    if (this.isWanted) this.#grant();
  }

  #lineOf(bytes: number): Line {
    return bytes <= smallBytesMax ? this.#small : this.#large;
  }

  #grant(): void {
    for (const { waiting, bytesMax } of [this.#small, this.#large]) {
      for (const waiter of waiting) {
        if (this.#taken + waiter.bytes > bytesMax) break;
        waiting.delete(waiter);
        this.#taken += waiter.bytes;
        waiter.granted();
      }
    }
  }
}
