/** fallocate(2), always with KEEP_SIZE: offsets and lengths in bytes. Rejects with EOPNOTSUPP where it cannot be done. */
import { LibcFunction } from './libc.js';

const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;
const fallocate = new LibcFunction('int fallocate(int fd, int mode, int64_t offset, int64_t length)');

/** Frees the range; it reads as zeroes afterwards. On a block device too, with block-aligned ranges. */
export async function punchHole(fd: number, offset: number, length: number): Promise<void> {
  await fallocate.callAsync(fd, PUNCH_HOLE | KEEP_SIZE, offset, length);
}

/** The range reads as zeroes afterwards, and stays (or becomes) allocated. */
export async function zeroRange(fd: number, offset: number, length: number): Promise<void> {
  await fallocate.callAsync(fd, ZERO_RANGE | KEEP_SIZE, offset, length);
}
