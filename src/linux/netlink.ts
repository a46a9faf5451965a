/**
 * Generic netlink: commands to the kernel, and their answers.
 * Promise: nothing here blocks the calling thread. `send` carries the command out inside the system call, so it runs on a thread
 * of the pool; when it comes back the answers are waiting in the socket, and taking them never waits.
 */
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemError } from './errno.js';
import { lastErrno, LibcFunction } from './libc.js';
import {
  attributeOf,
  decodeAttributes,
  decodeMessages,
  encodeGenericRequest,
  encodeText,
  type GenericRequest,
  type NetlinkMessage,
} from './netlink-message.js';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_GENERIC = 16;
const MSG_DONTWAIT = 0x40;

const socket = new LibcFunction('int socket(int domain, int type, int protocol)');
const send = new LibcFunction('intptr_t send(int fd, const void *bytes, size_t length, int flags)');
const receive = new LibcFunction('intptr_t recv(int fd, void *bytes, size_t length, int flags)');

/** The controller, which knows the numbers of the other families. */
const controller = { family: 16, getFamily: 3, familyId: 1, familyName: 2 } as const;

/** The kernel's datagrams are smaller (NLMSG_GOODSIZE, 8 KiB at the most). */
const datagramBytesMax = 32 * 1024;

/**
 * Carries a command out and resolves with the attributes of each message of its answer. Rejects with a {@link SystemError}: the
 * kernel's refusal, or EPERM, EPROTONOSUPPORT and the like where there is no generic netlink.
 */
export async function generic(request: Omit<GenericRequest, 'sequence'>): Promise<Buffer[]> {
  const fd = socket.callOrThrow(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  try {
    const message = encodeGenericRequest({ ...request, sequence: 1 });
    await send.callAsync(fd, message, message.length, 0);
    return receiveAnswer(fd);
  } finally {
    closeSync(fd);
  }
}

/** The number of a family. Undefined: the kernel does not have it (its module is not loaded). */
export async function familyNumber(name: string): Promise<number | undefined> {
  try {
    const [answer] = await generic({
      family: controller.family,
      command: controller.getFamily,
      attributes: [encodeText(controller.familyName, name)],
    });
    const value = answer && attributeOf(decodeAttributes(answer), controller.familyId);
    return value?.readUInt16LE(0);
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function receiveAnswer(fd: number): Buffer[] {
  const answer: Buffer[] = [];
  for (;;) {
    for (const message of receiveMessages(fd)) {
      if (message.kind === 'data') answer.push(message.attributes);
      else if (message.kind === 'done' || message.errno === 0) return answer;
      else throw new SystemError(message.errno, 'netlink');
    }
  }
}

/** At least one message: the ACK is queued before `send` returns. */
function receiveMessages(fd: number): NetlinkMessage[] {
  const datagram = Buffer.allocUnsafe(datagramBytesMax);
  const length = receive.call(fd, datagram, datagram.length, MSG_DONTWAIT);
  if (length > 0) return decodeMessages(Buffer.from(datagram.subarray(0, length)));
  throw new SystemError(length === 0 ? constants.errno.EPIPE : lastErrno(), 'netlink');
}
