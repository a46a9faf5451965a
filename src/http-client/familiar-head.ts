/**
 * Recognizes a response head that is the one before it but for the numbers that differ from answer to answer. Nearly every head
 * is one, and comparing it costs a third of reading it.
 * Promise: what is recognized would be read as the same head with those numbers.
 */
import { endOfSame } from '../base/same-bytes.js';

/** A longer head is not worth it. */
const headBytesMax = 1024;
/** Numbers of as many digits are safe integers, whatever they are. */
const digitsMax = 15;
const digit0 = 0x30;
const nothing: Buffer = Buffer.alloc(0);

interface Changing {
  readonly what: 'rangeFirst' | 'rangeLast' | 'clockMs';
  /** Its digits, in the head. */
  readonly start: number;
  readonly end: number;
}

export class FamiliarHead {
  /** The numbers of the head that {@link match} has recognized last; -1: it has no such field. */
  rangeFirst = -1;
  rangeLast = -1;
  clockMs = -1;
  #bytes = nothing;
  /** In the order in which they stand there. */
  #changing: readonly Changing[] = [];

  /**
   * From now on heads like the one in `bytes[start, end)` are recognized, in which the numbers of the `readable` fields may differ: a
   * field that could not be read has to stay as it is.
   */
  learn(
    bytes: Buffer,
    start: number,
    end: number,
    readable: { readonly range: boolean; readonly clock: boolean },
  ): void {
    this.rangeFirst = -1;
    this.rangeLast = -1;
    this.clockMs = -1;
    if (end - start > headBytesMax) {
      this.#bytes = nothing;
      return;
    }
    this.#bytes = Buffer.from(bytes.subarray(start, end));
    const text = bytes.toString('latin1', start, end);
    const range = readable.range ? /^content-range:[ \t]*bytes (\d+)-(\d+)\//dim.exec(text)?.indices : undefined;
    const clock = readable.clock ? /^disk-clock:[ \t]*(\d+)/dim.exec(text)?.indices : undefined;
    this.#changing = [
      ...changing('rangeFirst', range?.[1]),
      ...changing('rangeLast', range?.[2]),
      ...changing('clockMs', clock?.[1]),
    ].sort((one, other) => one.start - other.start);
  }

  /** Where the head that starts at `at` and lies inside `bytes[at, end)` ends; -1: it is not a familiar one, or not all there. */
  match(bytes: Buffer, at: number, end: number): number {
    const known = this.#bytes;
    if (known.length === 0) return -1;
    let from = 0;
    let place = at;
    for (const { what, start, end: stop } of this.#changing) {
      place = endOfSame(known, from, start, bytes, place, end);
      if (place < 0) return -1;
      let value = 0;
      const limit = Math.min(end, place + digitsMax);
      const digits = place;
      for (; place < limit; place++) {
        const digit = (bytes[place] ?? 0) - digit0;
        if (digit < 0 || digit > 9) break;
        value = value * 10 + digit;
      }
      if (place === digits) return -1;
      this[what] = value;
      from = stop;
    }
    return endOfSame(known, from, known.length, bytes, place, end);
  }
}

function changing(what: Changing['what'], indices: [number, number] | undefined): Changing[] {
  return indices === undefined ? [] : [{ what, start: indices[0], end: indices[1] }];
}
