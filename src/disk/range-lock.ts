/**
 * Exclusive ranges of a disk. Promise: of overlapping ranges one holds at a time, in the order of their arrival; ranges
 * that do not overlap never wait for each other.
 */
import { type ByteRange, overlaps } from '../base/range.js';

interface Claim extends ByteRange {
  readonly ended: Promise<void>;
}

export class RangeLock {
  /** Held or waiting, in the order of arrival. */
  readonly #claims = new Set<Claim>();

  /** Runs `run` while no other holds a byte of `range`. */
  async hold<Result>(range: ByteRange, run: () => Promise<Result>): Promise<Result> {
    const earlier = [...this.#claims].filter((claim) => overlaps(claim, range)).map((claim) => claim.ended);
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const claim = { ...range, ended };
    this.#claims.add(claim);
    try {
      await Promise.all(earlier);
      return await run();
    } finally {
      this.#claims.delete(claim);
      end();
    }
  }
}
