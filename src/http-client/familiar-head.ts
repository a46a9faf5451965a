/**
 * Recognizes a response head that is the one before it but for the numbers that differ from answer to answer. Nearly every head
 * is one, and comparing it costs a third of reading it.
 * Promise: what is recognized would be read as the same head with those numbers.
 */
import { type Gap, KnownBytes } from '../base/known-bytes.js';

/** A longer head is not worth it. */
const headBytesMax = 1024;
/** Numbers of as many digits are safe integers, whatever they are. */
const digitsMax = 15;
const digit0 = 0x30;

/** With the numbers only where they stand as a parser wants them. */
const rangeLine = /^content-range:(?:[ \t]*bytes (\d+)-(\d+)\/)?/dgim;
const clockLine = /^disk-clock:(?:[ \t]*(\d+)[ \t]*\r)?/dgim;

/** The digits of a number that may differ. */
interface Changing extends Gap {
  readonly what: 'rangeFirst' | 'rangeLast' | 'clockMs';
}

export class FamiliarHead {
  /** The numbers of the head that {@link match} has recognized last; -1: it has no such field, or none that can be read. */
  rangeFirst = -1;
  rangeLast = -1;
  clockMs = -1;
  #known: KnownBytes<Changing> | undefined;

  /**
   * From now on heads like the one in `bytes[start, end)`, in which `numbers` have been read, are recognized. Numbers that could not be read,
   * or were read from something odd, have to stay as they are.
   */
  learn(bytes: Buffer, start: number, end: number, numbers: Readonly<Record<Changing['what'], number>>): void {
    this.rangeFirst = numbers.rangeFirst;
    this.rangeLast = numbers.rangeLast;
    this.clockMs = numbers.clockMs;
    this.#known = undefined;
    if (end - start > headBytesMax) return;
    const text = bytes.toString('latin1', start, end);
    const range = this.rangeFirst < 0 ? undefined : onlyLine(text, rangeLine);
    const clock = this.clockMs < 0 ? undefined : onlyLine(text, clockLine);
    const differing = [
      ...changing('rangeFirst', range?.[1]),
      ...changing('rangeLast', range?.[2]),
      ...changing('clockMs', clock?.[1]),
    ].sort((one, other) => one.start - other.start);
    this.#known = new KnownBytes(bytes.subarray(start, end), differing);
  }

  /** Where the head that starts at `at` and lies inside `bytes[at, end)` ends; -1: it is not a familiar one, or not all there. */
  match(bytes: Buffer, at: number, end: number): number {
    return this.#known?.match(bytes, at, end, ({ what }, place) => this.#takeNumber(what, bytes, place, end)) ?? -1;
  }

  /** Where the digits end that start at `at`; -1: there are none. */
  #takeNumber(what: Changing['what'], bytes: Buffer, at: number, end: number): number {
    const limit = Math.min(end, at + digitsMax);
    let value = 0;
    let place = at;
    for (; place < limit; place++) {
      const digit = (bytes[place] ?? 0) - digit0;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    this[what] = value;
    return place === at ? -1 : place;
  }
}

/** Where the parts of the one line that `pattern` describes are. Undefined: there is none, or its field is there twice. */
function onlyLine(text: string, pattern: RegExp): RegExpIndicesArray | undefined {
  const [first, second] = text.matchAll(pattern);
  return second === undefined ? first?.indices : undefined;
}

function changing(what: Changing['what'], indices: [number, number] | undefined): Changing[] {
  return indices === undefined ? [] : [{ what, start: indices[0], end: indices[1] }];
}
