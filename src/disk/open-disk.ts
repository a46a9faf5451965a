/**
 * Opens a disk by its path: a regular file or a block device.
 *
 * Promise: rejects with a Failure only. `unavailable`: wait and try again, it may come (a path under /dev that is not
 * there yet, a DRBD device that is Secondary, a drive without a medium). Any other code: this path will never do as
 * long as nobody changes it ({@link isFatalAtStart}). A path that is neither file nor block device is never opened,
 * because opening a FIFO or a terminal has effects. A medium that cannot be written is opened read-only, with an event.
 *
 * Everything goes through the thread pool: the kernel may hold an open for a minute.
 */
import { type BigIntStats, close, constants, open } from 'node:fs';
import { readlink, stat, statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Channel } from '../base/channel.js';
import { Failure, type FailureCode } from '../base/failure.js';
import { alignedBuffer } from '../linux/aligned-buffer.js';
import { deviceSize, isReadOnly, logicalBlockBytes, physicalBlockBytes } from '../linux/block-device.js';
import { deviceNumber } from '../linux/device-number.js';
import { errnoOf } from '../linux/errno.js';
import { Descriptor, persist, readSome } from './descriptor.js';
import { DirectDescriptor, directBlockBytes } from './direct-descriptor.js';
import { DeviceDisk, hasZeroOffload } from './device-disk.js';
import type { Disk } from './disk.js';
import type { DiskKind } from './disk-failure.js';
import { Drbdsetup } from './drbd.js';
import { FileDisk } from './file-disk.js';
import { checkedSize, statOf } from './size.js';

export interface OpenDiskOptions {
  readonly readOnly: boolean;
  /** O_DIRECT: past the page cache, for storage that other hosts write too. */
  readonly direct: boolean;
  readonly events?: Channel<DiskEvent> | undefined;
  /** The same for all attempts, so that one that hangs costs the next ones less. */
  readonly drbdsetup?: Drbdsetup | undefined;
}

/** For the log. */
export type DiskEvent = { readonly is: 'opened-read-only'; readonly reason: string };

/** Where none is given. */
const ownDrbdsetup = new Drbdsetup();
const drbdMajor = 147;
const symlinksMax = 40;
const alignmentBytes = 4096;

const closeNow = promisify(close);
const openNow = promisify<string, number, number>(open);

/** File systems that have FALLOC_FL_ZERO_RANGE, by the magic number that statfs(2) gives: ext4, XFS, btrfs, f2fs. */
const zeroingFileSystems: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010]);

/** Whether it is no use to wait for a disk that could not be opened so. */
export function isFatalAtStart(failure: Failure): boolean {
  return failure.code !== 'unavailable';
}

export async function openDisk(path: string, options: OpenDiskOptions): Promise<Disk> {
  const { kind, minor } = await kindOf(path);
  if (kind === 'drbd') await refuseWhileDrbdObjects(drbdAt(path, minor, options));
  const opened = await openFile(path, kind, options);
  try {
    return await diskOf(opened, kind, path, options);
  } catch (error) {
    await closeNow(opened.fd);
    throw error instanceof Failure ? error : openFailure(error, kind);
  }
}

async function kindOf(path: string): Promise<{ kind: DiskKind; minor: number }> {
  let stats: BigIntStats;
  try {
    stats = await stat(path, { bigint: true });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' && (await leadsUnderDev(path))) {
      throw new Failure('unavailable', 'No such device yet', { cause: error });
    }
    throw openFailure(error, 'file');
  }
  return { kind: checkedKind(stats), minor: deviceNumber(stats.rdev).minor };
}

/** What can be asked of DRBD about one of its devices. */
interface Drbd {
  readonly obstacle: () => Promise<string | undefined>;
  readonly suspension: () => Promise<string | undefined>;
}

function drbdAt(path: string, minor: number, { drbdsetup = ownDrbdsetup }: OpenDiskOptions): Drbd {
  const device = { path: resolve(path), minor };
  return { obstacle: () => drbdsetup.obstacle(device), suspension: () => drbdsetup.suspension(device) };
}

async function refuseWhileDrbdObjects(drbd: Drbd): Promise<void> {
  const obstacle = await drbd.obstacle();
  if (obstacle !== undefined) throw new Failure('unavailable', obstacle);
}

function checkedKind(stats: BigIntStats): DiskKind {
  if (stats.isFile()) return 'file';
  if (stats.isBlockDevice()) return deviceNumber(stats.rdev).major === drbdMajor ? 'drbd' : 'device';
  if (stats.isDirectory()) throw new Failure('invalid-request', 'Is a folder');
  throw new Failure('invalid-request', 'Neither a regular file nor a block device');
}

/** Whether the path, or what its symbolic links lead to, lies under /dev. */
async function leadsUnderDev(path: string): Promise<boolean> {
  let current = resolve(path);
  for (let links = 0; links < symlinksMax; links += 1) {
    if (current.startsWith('/dev/')) return true;
    try {
      current = resolve(dirname(current), await readlink(current));
    } catch {
      return false;
    }
  }
  return false;
}

interface Opened {
  readonly fd: number;
  readonly readOnly: boolean;
}

async function openFile(path: string, kind: DiskKind, options: OpenDiskOptions): Promise<Opened> {
  const flags = options.direct ? constants.O_DIRECT : 0;
  if (!options.readOnly) {
    try {
      return { fd: await openNow(path, constants.O_RDWR | flags), readOnly: false };
    } catch (error) {
      if (!isWriteRefusal(errnoOf(error), kind)) throw openFailure(error, kind);
      options.events?.publish({ is: 'opened-read-only', reason: errnoOf(error) ?? 'unknown' });
    }
  }
  try {
    return { fd: await openNow(path, constants.O_RDONLY | flags), readOnly: true };
  } catch (error) {
    throw openFailure(error, kind);
  }
}

/** Refused for writing, perhaps not for reading. A DRBD device says EROFS when it is Secondary: not openable at all. */
function isWriteRefusal(errno: string | undefined, kind: DiskKind): boolean {
  return errno === 'EACCES' || errno === 'EPERM' || errno === 'ETXTBSY' || (errno === 'EROFS' && kind !== 'drbd');
}

async function diskOf(opened: Opened, kind: DiskKind, path: string, options: OpenDiskOptions): Promise<Disk> {
  const stats = await statOf(opened.fd);
  // The path may have been given to something else between the two looks.
  if (checkedKind(stats) !== kind) throw new Failure('unavailable', 'It changed while it was opened');
  if (kind === 'file') return fileDisk(opened, stats, path, options);
  const disk = await deviceDisk(opened, kind, path, stats, options);
  if (kind === 'drbd') await checkReadable(path, disk.logicalBlockBytes);
  return disk;
}

async function fileDisk(opened: Opened, stats: BigIntStats, path: string, options: OpenDiskOptions): Promise<Disk> {
  const { fd, readOnly } = opened;
  const blockBytes = options.direct ? await fileBlockBytes(fd, stats) : 512;
  const geometry = {
    sizeBytes: checkedSize(stats.size),
    readOnly,
    logicalBlockBytes: blockBytes,
    physicalBlockBytes: Math.max(blockBytes, Number(stats.blksize)),
  };
  const { type } = await statfs(path);
  const traits = { zeroing: zeroingFileSystems.has(type), sizeUnitBytes: options.direct ? blockBytes : 1 };
  return new FileDisk(descriptorOf(fd, 'file', blockBytes, options), geometry, traits);
}

/** The unit of direct requests to this file, which its size must be a multiple of. */
async function fileBlockBytes(fd: number, stats: BigIntStats): Promise<number> {
  const blockBytes = await directBlockBytes(fd);
  if (blockBytes === undefined) throw new Failure('unsupported', 'The file system refuses direct requests (O_DIRECT)');
  if (stats.size % BigInt(blockBytes) === 0n) return blockBytes;
  throw new Failure('unsupported', `With O_DIRECT its size, ${stats.size}, must be a multiple of ${blockBytes} bytes`);
}

async function deviceDisk(
  { fd, readOnly }: Opened,
  kind: DiskKind,
  path: string,
  stats: BigIntStats,
  options: OpenDiskOptions,
): Promise<Disk> {
  const writeProtected = !readOnly && (await isReadOnly(fd));
  if (writeProtected) options.events?.publish({ is: 'opened-read-only', reason: 'the device is write-protected' });
  const sizeBytes = checkedSize(await deviceSize(fd));
  if (sizeBytes === 0) throw new Failure('unavailable', 'The device has no medium (0 bytes)');
  const geometry = {
    sizeBytes,
    readOnly: readOnly || writeProtected,
    logicalBlockBytes: await logicalBlockBytes(fd),
    physicalBlockBytes: await physicalBlockBytes(fd),
  };
  const descriptor = descriptorOf(fd, kind, geometry.logicalBlockBytes, options);
  const number = deviceNumber(stats.rdev);
  const zeroesFast = await hasZeroOffload(number);
  const suspension = kind === 'drbd' ? drbdAt(path, number.minor, options).suspension : undefined;
  return new DeviceDisk(descriptor, geometry, { zeroesFast, suspension });
}

/**
 * A Primary that no copy of the data can be reached from opens well, and then fails every read. Past the page cache, in
 * which somebody else on this host may still have the block.
 */
async function checkReadable(path: string, blockBytes: number): Promise<void> {
  const fd = await openNow(path, constants.O_RDONLY | constants.O_DIRECT);
  try {
    await persist(() => readSome(fd, alignedBuffer(blockBytes, alignmentBytes), 0, 0));
  } finally {
    await closeNow(fd);
  }
}

function descriptorOf(fd: number, kind: DiskKind, blockBytes: number, { direct }: OpenDiskOptions): Descriptor {
  return direct ? new DirectDescriptor(fd, kind, blockBytes) : new Descriptor(fd, kind);
}

/** What a failed stat or open means. */
const openCodes: Readonly<Record<string, readonly [FailureCode, string]>> = {
  ENOENT: ['not-found', 'No such file or directory'],
  ENOTDIR: ['not-found', 'Not a directory'],
  ELOOP: ['not-found', 'Too many levels of symbolic links'],
  ENAMETOOLONG: ['invalid-request', 'File name too long'],
  EACCES: ['access-denied', 'Permission denied'],
  EPERM: ['access-denied', 'Operation not permitted'],
  EISDIR: ['invalid-request', 'Is a folder'],
  EINVAL: ['unsupported', 'The file system does not have what was asked for (O_DIRECT)'],
  EROFS: ['unavailable', 'Read-only file system'],
  EMEDIUMTYPE: ['unavailable', 'Wrong medium type'],
  ENOMEDIUM: ['unavailable', 'No medium found'],
  ENXIO: ['unavailable', 'No such device or address'],
  ENODEV: ['unavailable', 'No such device'],
  EBUSY: ['unavailable', 'Device or resource busy'],
  EAGAIN: ['unavailable', 'Resource temporarily unavailable'],
  ENODATA: ['unavailable', 'No data available'],
  ENOTRECOVERABLE: ['unavailable', 'State not recoverable'],
  EIO: ['unavailable', 'Input/output error'],
};

/** What it means when DRBD says so. */
const drbdHints: Readonly<Record<string, string>> = {
  EROFS: 'the DRBD device is Secondary',
  EMEDIUMTYPE: 'the DRBD device is Secondary',
  EIO: 'the DRBD device reaches no copy of the data',
  ENODATA: 'the DRBD device has no quorum or no data',
  ENOTRECOVERABLE: 'the DRBD device was made Secondary by force while it was open',
};

function openFailure(error: unknown, kind: DiskKind): unknown {
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  const [code, message] = openCodes[errno] ?? ['unavailable', errno];
  const hint = kind === 'drbd' ? drbdHints[errno] : undefined;
  return new Failure(code, hint === undefined ? message : `${message} (${hint})`, { cause: error });
}
