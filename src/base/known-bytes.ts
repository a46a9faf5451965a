/** Recognizing received bytes that are like known ones but for some gaps. */

/** From here on the runtime's own comparison is faster than a loop. */
const nativeBytesMin = 48;

/** A place in the known bytes where anything may stand: `[start, end)`. */
export interface Gap {
  readonly start: number;
  readonly end: number;
}

export class KnownBytes<Kind extends Gap> {
  readonly #bytes: Buffer;
  readonly #gaps: readonly Kind[];

  /** `bytes` are copied. `gaps`: in the order in which they stand there. */
  constructor(bytes: Buffer, gaps: readonly Kind[]) {
    this.#bytes = Buffer.from(bytes);
    this.#gaps = gaps;
  }

  /**
   * Where in `bytes[at, end)` that ends which is the same, from `at` on, but for the gaps; -1: it is not, or not all there. `endOfGap`
   * is told where something stands in a gap's place, and says where it ends; -1: it is not fit for it.
   */
  match(bytes: Buffer, at: number, end: number, endOfGap: (gap: Kind, at: number) => number): number {
    let from = 0;
    let place = at;
    for (const gap of this.#gaps) {
      place = this.#endOfSame(from, gap.start, bytes, place, end);
      if (place >= 0) place = endOfGap(gap, place);
      if (place < 0) return -1;
      from = gap.end;
    }
    return this.#endOfSame(from, this.#bytes.length, bytes, place, end);
  }

  #endOfSame(from: number, to: number, bytes: Buffer, at: number, end: number): number {
    const known = this.#bytes;
    const stop = at + to - from;
    if (stop > end) return -1;
    if (to - from >= nativeBytesMin) return bytes.compare(known, from, to, at, stop) === 0 ? stop : -1;
    for (let index = from, place = at; index < to; index++, place++) {
      if (known[index] !== bytes[place]) return -1;
    }
    return stop;
  }
}
