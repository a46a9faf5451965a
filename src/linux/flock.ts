/** flock(2): a lock on an open file that the kernel drops when its last descriptor is closed, also by a crash. */
import { constants } from 'node:os';
import { LibcFunction, lastErrno } from './libc.js';
import { SystemError } from './errno.js';

const LOCK_EX = 2;
const LOCK_NB = 4;
const flock = new LibcFunction('int flock(int fd, int operation)');

/** Takes the exclusive lock if nobody else holds it; never waits. */
export function tryLock(fd: number): boolean {
  if (flock.call(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = lastErrno();
  if (errno === constants.errno.EWOULDBLOCK || errno === constants.errno.EINTR) return false;
  throw new SystemError(errno, flock.name);
}
