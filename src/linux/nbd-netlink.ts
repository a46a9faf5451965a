/**
 * The kernel's network block devices, through generic netlink (Linux, include/uapi/linux/nbd-netlink.h and nbd.h; from 4.12 on).
 * Each command runs on a thread of the pool, and may take as long as another command, of anybody on this machine, is stuck.
 */
import { SystemError } from './errno.js';
import { familyNumber, generic } from './netlink.js';
import { attributeOf, decodeAttributes, encodeNested, encodeText, encodeU32, encodeU64 } from './netlink-message.js';

const command = { connect: 1, disconnect: 2, reconfigure: 3 } as const;

const attribute = {
  index: 1,
  sizeBytes: 2,
  blockBytes: 3,
  timeoutS: 4,
  serverFlags: 5,
  clientFlags: 6,
  sockets: 7,
  deadTimeoutS: 8,
  identifier: 10,
} as const;
const socketItem = 1;
const socketDescriptor = 1;

/** What the kernel is told that we can do. */
export const serverFlag = {
  hasFlags: 1,
  readOnly: 2,
  flush: 4,
  fua: 8,
  trim: 32,
  writeZeroes: 64,
  multiConnection: 256,
} as const;

export interface Timeouts {
  /** How long a request may be unanswered before the kernel gives its socket up, whole seconds. */
  readonly timeoutS: number;
  /** How long requests wait when no socket is left, whole seconds. */
  readonly deadTimeoutS: number;
}

export interface NewDevice extends Timeouts {
  /** N of /dev/nbdN. Undefined: the kernel takes a free one, or makes one. */
  readonly index: number | undefined;
  /** A multiple of `blockBytes`. */
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Of {@link serverFlag}, or-ed. */
  readonly serverFlags: number;
  /** Descriptors of the kernel's ends; still ours to close afterwards. */
  readonly sockets: readonly number[];
  /** Shown in /sys/block/nbdN/backend, and asked for when the device is changed. Kernels before 5.14 ignore it. */
  readonly identifier: string;
}

/** Of an existing device, whose `identifier` must be this one. */
export interface DeviceChange {
  readonly index: number;
  readonly identifier: string;
  /** Undefined: stays. */
  readonly sizeBytes?: number;
  /** Empty: none is replaced. More than the device has dead ones: the rest is ignored, with success. */
  readonly sockets: readonly number[];
  readonly timeouts?: Timeouts;
}

export function encodeConnect(device: NewDevice): Buffer[] {
  return [
    ...(device.index === undefined ? [] : [encodeU32(attribute.index, device.index)]),
    encodeU64(attribute.sizeBytes, device.sizeBytes),
    encodeU64(attribute.blockBytes, device.blockBytes),
    encodeU64(attribute.serverFlags, device.serverFlags),
    encodeU64(attribute.clientFlags, 0),
    ...encodeTimeouts(device),
    encodeSockets(device.sockets),
    encodeText(attribute.identifier, device.identifier),
  ];
}

export function encodeReconfigure({ index, identifier, sizeBytes, sockets, timeouts }: DeviceChange): Buffer[] {
  return [
    encodeU32(attribute.index, index),
    ...(sizeBytes === undefined ? [] : [encodeU64(attribute.sizeBytes, sizeBytes)]),
    ...(timeouts === undefined ? [] : encodeTimeouts(timeouts)),
    ...(sockets.length === 0 ? [] : [encodeSockets(sockets)]),
    encodeText(attribute.identifier, identifier),
  ];
}

export function decodeConnected(answer: Buffer): number | undefined {
  return attributeOf(decodeAttributes(answer), attribute.index)?.readUInt32LE(0);
}

function encodeTimeouts({ timeoutS, deadTimeoutS }: Timeouts): Buffer[] {
  return [encodeU64(attribute.timeoutS, timeoutS), encodeU64(attribute.deadTimeoutS, deadTimeoutS)];
}

function encodeSockets(sockets: readonly number[]): Buffer {
  const items = sockets.map((fd) => encodeNested(socketItem, [encodeU32(socketDescriptor, fd)]));
  return encodeNested(attribute.sockets, items);
}

/** The kernel's nbd driver. */
export class NbdDriver {
  readonly #family: number;

  private constructor(family: number) {
    this.#family = family;
  }

  /** Undefined: it is not loaded. Rejects with a {@link SystemError} where netlink itself cannot be used. */
  static async find(): Promise<NbdDriver | undefined> {
    const family = await familyNumber('nbd');
    return family === undefined ? undefined : new NbdDriver(family);
  }

  /** Makes a device and resolves with its index. EBUSY: the index that was asked for is in use. */
  async connect(device: NewDevice): Promise<number> {
    const answers = await this.#do(command.connect, encodeConnect(device));
    for (const answer of answers) {
      const index = decodeConnected(answer);
      if (index !== undefined) return index;
    }
    if (device.index !== undefined) return device.index;
    throw new SystemError(0, 'netlink: no index in the answer');
  }

  /** EINVAL: no such device, not configured, or another identifier. */
  async reconfigure(change: DeviceChange): Promise<void> {
    await this.#do(command.reconfigure, encodeReconfigure(change));
  }

  /** Fails what is in flight, and frees the device; one that is still open stays until its last close. */
  async disconnect(index: number): Promise<void> {
    await this.#do(command.disconnect, [encodeU32(attribute.index, index)]);
  }

  #do(which: number, attributes: readonly Buffer[]): Promise<Buffer[]> {
    return generic({ family: this.#family, command: which, attributes });
  }
}
