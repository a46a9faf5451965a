/** Descriptors that a parent left open for this process: later children must not get them as well. */
import { LibcFunction } from './libc.js';

const FIOCLEX = 0x5451;
const ioctl = new LibcFunction('int ioctl(int fd, unsigned long request, void *argument)');

/** Throws a SystemError, EBADF if it is not open. */
export function closeOnExec(fd: number): void {
  ioctl.callOrThrow(fd, FIOCLEX, null);
}
