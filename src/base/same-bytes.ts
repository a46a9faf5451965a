/** Comparing what has been received with what is known. */

/** From here on the runtime's own comparison is faster than a loop. */
const nativeBytesMin = 48;

/** Where in `bytes[at, end)` that ends which is the same there, from `at` on, as `known[from, to)`; -1: it is not, or not all there. */
export function endOfSame(
  known: Uint8Array,
  from: number,
  to: number,
  bytes: Buffer,
  at: number,
  end: number = bytes.length,
): number {
  const stop = at + to - from;
  if (stop > end) return -1;
  if (to - from >= nativeBytesMin) return bytes.compare(known, from, to, at, stop) === 0 ? stop : -1;
  for (let index = from, place = at; index < to; index++, place++) {
    if (known[index] !== bytes[place]) return -1;
  }
  return stop;
}
