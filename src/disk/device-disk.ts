/**
 * A block device as a disk.
 * Promise: what the kernel only does with whole blocks (zeroing, discarding) is done so inside the range; at its edges
 * zeroes are written, and trims leave the bytes alone.
 *
 * Zeroes come by fallocate(2) rather than by the ioctl BLKZEROOUT: the same function of the kernel, but it looks after
 * the page cache afterwards, so that on kernels before 5.15 a read in between cannot leave old data cached.
 */
import { close, constants, open } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { Failure } from '../base/failure.js';
import type { ByteRange, Extent } from '../base/range.js';
import { deviceSize, discard } from '../linux/block-device.js';
import type { DeviceNumber } from '../linux/device-number.js';
import { errnoOf } from '../linux/errno.js';
import { punchHole, zeroRange } from '../linux/fallocate.js';
import { BaseDisk, type Geometry } from './base-disk.js';
import { type Descriptor, persist } from './descriptor.js';
import type { ChangeCheck } from './disk.js';
import { checkedSize } from './size.js';

const closeNow = promisify(close);
const openNow = promisify<string, number, number>(open);

/** A page: partial pages would have to be merged with the page cache. */
const alignmentBytesMin = 4096;
/** So that no thread of the pool is in one system call for long. */
const pieceBytesMax = 64 * 1024 * 1024;

/** The device does not have it, or somebody else uses the pages: then it is done in another way. */
const refusals: ReadonlySet<string | undefined> = new Set(['EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'EINVAL', 'EBUSY']);

export interface DeviceTraits {
  readonly zeroesFast: boolean;
  /** {@link Disk.suspension} */
  readonly suspension?: (() => Promise<string | undefined>) | undefined;
}

export class DeviceDisk extends BaseDisk {
  readonly zeroesFast: boolean;
  readonly suspension: DeviceTraits['suspension'];

  constructor(descriptor: Descriptor, geometry: Geometry, { zeroesFast, suspension }: DeviceTraits) {
    super(descriptor, geometry);
    this.zeroesFast = zeroesFast;
    this.suspension = suspension;
  }

  protected override async zeroInside(
    offset: number,
    length: number,
    mayTrim: boolean,
    check: ChangeCheck,
  ): Promise<void> {
    const inner = this.#alignedPart(offset, length);
    await this.writeZeroes(offset, inner.offset - offset, check);
    for (const piece of pieces(inner.offset, inner.length)) {
      if (mayTrim && (await this.#try('punch', piece, punchHole, check))) continue;
      if (await this.#try('zero', piece, zeroRange, check)) continue;
      await this.writeZeroes(piece.offset, piece.length, check);
    }
    const innerEnd = inner.offset + inner.length;
    await this.writeZeroes(innerEnd, offset + length - innerEnd, check);
  }

  protected override async trimInside(offset: number, length: number, check: ChangeCheck): Promise<void> {
    const inner = this.#alignedPart(offset, length);
    for (const piece of pieces(inner.offset, inner.length)) {
      if (!(await this.#try('discard', piece, discard, check))) return;
    }
  }

  /** A block device cannot tell what is allocated. */
  protected override async extentsInside(offset: number, length: number): Promise<Extent[]> {
    return [{ offset, length, kind: 'data' }];
  }

  protected override async measure(): Promise<number> {
    const sizeBytes = checkedSize(await this.descriptor.use('BLKGETSIZE64', deviceSize));
    if (this.descriptor.kind === 'drbd') await this.descriptor.use('open', checkOpenable);
    return sizeBytes;
  }

  /** Nothing to ask: beyond its end a device takes no writes. */
  protected override async checkWhole(): Promise<void> {}

  /** The whole blocks inside the range. Without any: empty, at its end. */
  #alignedPart(offset: number, length: number): ByteRange {
    const unit = Math.max(alignmentBytesMin, this.logicalBlockBytes, this.physicalBlockBytes);
    const end = offset + length;
    const first = Math.ceil(offset / unit) * unit;
    const last = Math.floor(end / unit) * unit;
    return first < last ? { offset: first, length: last - first } : { offset: end, length: 0 };
  }

  /** False: this device cannot do it. */
  #try(
    doing: string,
    { offset, length }: ByteRange,
    run: (fd: number, offset: number, length: number) => Promise<void>,
    check: ChangeCheck,
  ): Promise<boolean> {
    return this.descriptor.useRange(offset, length, doing, async (fd) => {
      try {
        await persist(() => {
          check();
          return run(fd, offset, length);
        });
        return true;
      } catch (error) {
        if (!refusals.has(errnoOf(error))) throw error;
        return false;
      }
    });
  }
}

/**
 * DRBD 9 can make a host Secondary by force, or leave it Primary without quorum. The device then still reads, from copies that
 * another Primary changes and from a page cache that nobody keeps up to date; but it does not open any more. Opening what is
 * open already changes nothing; for reading only, because udev looks at a device that was open for writing and is closed.
 */
async function checkOpenable(fd: number): Promise<void> {
  try {
    await closeNow(await openNow(`/proc/self/fd/${fd}`, constants.O_RDONLY));
  } catch (error) {
    throw new Failure('unavailable', `it could not be opened any more: ${errnoOf(error)}`, { cause: error });
  }
}

/** Whether the device zeroes blocks by itself, as sysfs tells; false when it does not tell. */
export async function hasZeroOffload({ major, minor }: DeviceNumber): Promise<boolean> {
  const device = `/sys/dev/block/${major}:${minor}`;
  // A partition has no queue of its own, its disk has.
  for (const queue of [`${device}/queue`, `${device}/../queue`]) {
    try {
      return Number(await readFile(`${queue}/write_zeroes_max_bytes`, 'latin1')) > 0;
    } catch {
      // The next place, or no sysfs.
    }
  }
  return false;
}

function* pieces(offset: number, length: number): Generator<ByteRange> {
  for (let done = 0; done < length; done += pieceBytesMax) {
    yield { offset: offset + done, length: Math.min(pieceBytesMax, length - done) };
  }
}
