/** sd_notify(3): tells the service manager how this service is, if there is one that wants to know. */
import { closeSync } from 'node:fs';
import { LibcFunction } from './libc.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const pathBytesMax = 107;

const socket = new LibcFunction('int socket(int domain, int type, int protocol)');
const sendTo = new LibcFunction(
  'intptr_t sendto(int fd, const void *bytes, size_t length, int flags, const void *address, uint32_t addressLength)',
);

/** `text`: assignments, one a line: `READY=1`. `place`: the value of $NOTIFY_SOCKET. Best effort, never waits. */
export function notifyServiceManager(text: string, place: string | undefined): void {
  if (place === undefined || Buffer.byteLength(place) > pathBytesMax || !/^[/@]/.test(place)) return;
  const fd = socket.call(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd === -1) return;
  const message = Buffer.from(text);
  const address = unixAddress(place);
  sendTo.call(fd, message, message.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, address.length);
  closeSync(fd);
}

/** sockaddr_un = family u16 · path; `@` stands for the NUL of an abstract one. */
export function unixAddress(place: string): Buffer {
  const family = Buffer.alloc(2);
  family.writeUInt16LE(AF_UNIX);
  return Buffer.concat([family, Buffer.from(place.replace(/^@/, '\0'))]);
}
