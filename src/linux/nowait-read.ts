/**
 * preadv2(2) with RWF_NOWAIT: reads what the page cache holds, without ever waiting for a disk.
 * Promise: never blocks; costs about a microsecond.
 */
import { constants } from 'node:os';
import { addressOf, LibcFunction, lastErrno, setWord64 } from './libc.js';

const RWF_NOWAIT = 0x8;
const preadv2 = new LibcFunction('intptr_t preadv2(int fd, void *iov, int iovcnt, int64_t offset, int flags)');

/** struct iovec { void *base; size_t length }, of a 64-bit machine. Reused: the call is over when it returns. */
const iovec = new Uint32Array(4);

/** `would-block`: not (wholly) cached, or interrupted. `unsupported`: not on this file, kernel or C library. */
export type NowaitRead = 'done' | 'would-block' | 'unsupported';

/** Fills `into` from `offset` (bytes) of `fd` if all of it can be had at once. Otherwise `into` may be partly filled. */
export function readNowait(fd: number, offset: number, into: Buffer): NowaitRead {
  setWord64(iovec, 0, addressOf(into));
  setWord64(iovec, 2, into.length);
  const count = preadv2.call(fd, iovec, 1, offset, RWF_NOWAIT);
  if (count === into.length) return 'done';
  if (count >= 0) return 'would-block';
  const errno = lastErrno();
  return errno === constants.errno.EAGAIN || errno === constants.errno.EINTR ? 'would-block' : 'unsupported';
}
