/** socketpair(2): two connected unix stream sockets, both closed on exec. */
import { LibcFunction } from './libc.js';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;

const socketpair = new LibcFunction('int socketpair(int domain, int type, int protocol, int *pair)');
const setsockopt = new LibcFunction('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)');
const receive = new LibcFunction('intptr_t recv(int fd, void *bytes, size_t length, int flags)');

/** Unsent bytes of each direction: one large request, so that its sender is not woken for each part of it. */
const sendBufferBytes = 1024 * 1024;

/** Throws a SystemError (EMFILE). The descriptors are the caller's to close. */
export function socketPair(): readonly [number, number] {
  const pair = new Int32Array(2);
  socketpair.callOrThrow(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
  const [a = -1, b = -1] = pair;
  // Best effort: needs CAP_NET_ADMIN.
  for (const fd of pair) setsockopt.call(fd, SOL_SOCKET, SO_SNDBUFFORCE, Int32Array.of(sendBufferBytes), 4);
  return [a, b];
}

/** Whether nobody has the other end open any more. Takes nothing out of the socket. */
export function isAbandoned(fd: number): boolean {
  return receive.call(fd, Buffer.alloc(1), 1, MSG_PEEK | MSG_DONTWAIT) === 0;
}
