/** Sizes of disks: whole numbers of bytes up to 2^53 - 1, which JavaScript and JSON both take exactly. */
import { type BigIntStats, fstat } from 'node:fs';
import { Failure } from '../base/failure.js';

/** `size` as a number; a larger one is `unsupported`. */
export function checkedSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new Failure('unsupported', `${size} bytes are more than ${Number.MAX_SAFE_INTEGER}, the largest size served`);
  }
  return Number(size);
}

/** What is known of an open file, with exact sizes. */
export function statOf(fd: number): Promise<BigIntStats> {
  return new Promise((resolve, reject) => {
    fstat(fd, { bigint: true }, (error, stats) => (error ? reject(error) : resolve(stats)));
  });
}
