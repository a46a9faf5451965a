/** Byte ranges of a disk: `offset` and `length` in bytes, whole numbers up to 2^53 - 1. */

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Whether the two share at least one byte. An empty range overlaps nothing. */
export function overlaps(a: ByteRange, b: ByteRange): boolean {
  return a.length > 0 && b.length > 0 && a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

/** Whether the range lies inside a disk of `sizeBytes`, without overflow. */
export function isInside(offset: number, length: number, sizeBytes: number): boolean {
  return (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset <= sizeBytes &&
    length <= sizeBytes - offset
  );
}

/**
 * What is stored in a part of a disk. `data`: allocated, may hold anything. `zero`: allocated, reads as zeroes.
 * `hole`: not allocated, reads as zeroes.
 */
export type ExtentKind = 'data' | 'zero' | 'hole';

export interface Extent extends ByteRange {
  readonly kind: ExtentKind;
}
