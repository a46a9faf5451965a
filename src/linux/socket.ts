/** send(2) where Node has no call for it. */
import { LibcFunction } from './libc.js';

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const send = new LibcFunction('intptr_t send(int fd, const void *bytes, size_t length, int flags)');

/** Sends what the socket takes at once; returns how many bytes. Throws a SystemError, EAGAIN when it takes none. */
export function sendNow(fd: number, bytes: Buffer): number {
  return send.callOrThrow(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
}
