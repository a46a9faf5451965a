/**
 * The ioctls of block devices (linux/fs.h). All on a thread of the pool: a device may take its time to answer even
 * how large it is. They reject with a SystemError: ENOTTY where the device has no such thing, ENXIO when it has gone.
 */
import { LibcFunction } from './libc.js';

// _IO and _IOR as all architectures number them but MIPS, PowerPC and SPARC.
const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKDISCARD = 0x1277;
const BLKPBSZGET = 0x127b;
const BLKGETSIZE64 = 0x80081272;

const ioctl = new LibcFunction('int ioctl(int fd, unsigned long request, void *argument)');

async function readInt(fd: number, request: number): Promise<number> {
  const value = new Int32Array(1);
  await ioctl.callAsync(fd, request, value);
  return value[0] ?? 0;
}

/** BLKGETSIZE64, in bytes. */
export async function deviceSize(fd: number): Promise<bigint> {
  const value = new BigUint64Array(1);
  await ioctl.callAsync(fd, BLKGETSIZE64, value);
  return value[0] ?? 0n;
}

/** BLKSSZGET, in bytes: the unit in which the device is addressed. */
export function logicalBlockBytes(fd: number): Promise<number> {
  return readInt(fd, BLKSSZGET);
}

/** BLKPBSZGET, in bytes: the unit in which the device writes without reading first. */
export function physicalBlockBytes(fd: number): Promise<number> {
  return readInt(fd, BLKPBSZGET);
}

/** BLKROGET: whether the device refuses writes. */
export async function isReadOnly(fd: number): Promise<boolean> {
  return (await readInt(fd, BLKROGET)) !== 0;
}

/** BLKDISCARD: the range's content is given up. Aligned to logical blocks, else EINVAL. */
export async function discard(fd: number, offset: number, length: number): Promise<void> {
  await ioctl.callAsync(fd, BLKDISCARD, BigUint64Array.of(BigInt(offset), BigInt(length)));
}
