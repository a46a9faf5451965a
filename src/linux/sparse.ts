/** Where a file has data: lseek(2) with SEEK_DATA and SEEK_HOLE. Moves the file position, so use positions in reads. */
import { LibcFunction } from './libc.js';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const lseek = new LibcFunction('int64_t lseek(int fd, int64_t offset, int whence)');

/** The first byte at or after `offset` that is data. Rejects with ENXIO: none before the end of the file. */
export function seekData(fd: number, offset: number): Promise<number> {
  return lseek.callAsync(fd, offset, SEEK_DATA);
}

/** The first byte at or after `offset` that is in a hole; the end of the file counts as one. ENXIO: beyond the end. */
export function seekHole(fd: number, offset: number): Promise<number> {
  return lseek.callAsync(fd, offset, SEEK_HOLE);
}
