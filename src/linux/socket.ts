/** send(2) and setsockopt(2) where Node has no call for them. */
import { LibcFunction } from './libc.js';

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const send = new LibcFunction('intptr_t send(int fd, const void *bytes, size_t length, int flags)');

/** Sends what the socket takes at once; returns how many bytes. Throws a SystemError, EAGAIN when it takes none. */
export function sendNow(fd: number, bytes: Buffer): number {
  return send.callOrThrow(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

const setsockopt = new LibcFunction('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)');

/** Unsent bytes: one large request, so that its sender is not woken for each part of it. A unix socket has 208 KiB otherwise. */
const sendBufferBytes = 1024 * 1024;

/** For unix sockets; those of TCP grow by themselves. Best effort: needs CAP_NET_ADMIN. */
export function enlargeSendBuffer(fd: number): void {
  setsockopt.call(fd, SOL_SOCKET, SO_SNDBUFFORCE, Int32Array.of(sendBufferBytes), 4);
}
