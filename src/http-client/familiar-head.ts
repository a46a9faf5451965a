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

/** With the numbers only where they stand as a parser wants them. */
const rangeLine = /^content-range:(?:[ \t]*bytes (\d+)-(\d+)\/)?/dgim;
const clockLine = /^disk-clock:(?:[ \t]*(\d+)[ \t]*\r)?/dgim;

interface Changing {
  readonly what: 'rangeFirst' | 'rangeLast' | 'clockMs';
  /** Its digits, in the head. */
  readonly start: number;
  readonly end: number;
}

export class FamiliarHead {
  /** The numbers of the head that {@link match} has recognized last; -1: it has no such field, or none that can be read. */
  rangeFirst = -1;
  rangeLast = -1;
  clockMs = -1;
  #bytes = nothing;
  /** In the order in which they stand there. */
  #changing: readonly Changing[] = [];

  /**
   * From now on heads like the one in `bytes[start, end)`, in which `numbers` have been read, are recognized. Numbers that could not be read,
   * or were read from something odd, have to stay as they are.
   */
  learn(bytes: Buffer, start: number, end: number, numbers: Readonly<Record<Changing['what'], number>>): void {
    this.rangeFirst = numbers.rangeFirst;
    this.rangeLast = numbers.rangeLast;
    this.clockMs = numbers.clockMs;
    if (end - start > headBytesMax) {
      this.#bytes = nothing;
      return;
    }
    this.#bytes = Buffer.from(bytes.subarray(start, end));
    const text = bytes.toString('latin1', start, end);
    const range = this.rangeFirst < 0 ? undefined : onlyLine(text, rangeLine);
    const clock = this.clockMs < 0 ? undefined : onlyLine(text, clockLine);
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

/** Where the parts of the one line that `pattern` describes are. Undefined: there is none, or its field is there twice. */
function onlyLine(text: string, pattern: RegExp): RegExpIndicesArray | undefined {
  const [first, second] = text.matchAll(pattern);
  return second === undefined ? first?.indices : undefined;
}

function changing(what: Changing['what'], indices: [number, number] | undefined): Changing[] {
  return indices === undefined ? [] : [{ what, start: indices[0], end: indices[1] }];
}
