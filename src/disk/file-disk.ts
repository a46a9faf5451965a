/**
 * A regular file as a disk, of any number of bytes.
 * Promise: a sparse file stays sparse: holes are reported, kept, and made by trims. A file that was truncated meanwhile
 * is `unavailable`, its missing end never reads or maps as zeroes.
 */
import { Failure } from '../base/failure.js';
import type { ByteRange, Extent, ExtentKind } from '../base/range.js';
import { errnoOf } from '../linux/errno.js';
import { punchHole, zeroRange } from '../linux/fallocate.js';
import { seekData, seekHole } from '../linux/sparse.js';
import { BaseDisk, type Geometry } from './base-disk.js';
import { type Descriptor, persist } from './descriptor.js';
import type { ChangeCheck } from './disk.js';
import { checkedSize, statOf } from './size.js';

/** What this file system turned out not to have, so that it is asked once only. */
interface Lacks {
  punching: boolean;
  zeroing: boolean;
  mapping: boolean;
}

export interface FileTraits {
  /** Whether the file system is known to have FALLOC_FL_ZERO_RANGE: it cannot be asked without a change. */
  readonly zeroing: boolean;
  /** With O_DIRECT, the disk ends at a whole block. */
  readonly sizeUnitBytes: number;
}

export class FileDisk extends BaseDisk {
  readonly #lacks: Lacks;
  readonly #sizeUnitBytes: number;

  constructor(descriptor: Descriptor, geometry: Geometry, { zeroing, sizeUnitBytes }: FileTraits) {
    super(descriptor, geometry);
    this.#lacks = { punching: false, zeroing: !zeroing, mapping: false };
    this.#sizeUnitBytes = sizeUnitBytes;
  }

  override get zeroesFast(): boolean {
    return !this.#lacks.punching && !this.#lacks.zeroing;
  }

  protected override async zeroInside(
    offset: number,
    length: number,
    mayTrim: boolean,
    check: ChangeCheck,
  ): Promise<void> {
    if (mayTrim && (await this.#change('punching', { offset, length }, punchHole, check))) return;
    if (await this.#change('zeroing', { offset, length }, zeroRange, check)) return;
    await this.writeZeroes(offset, length, check);
  }

  protected override async trimInside(offset: number, length: number, check: ChangeCheck): Promise<void> {
    await this.#change('punching', { offset, length }, punchHole, check);
  }

  protected override async extentsInside(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    const everything: Extent[] = [{ offset, length, kind: 'data' }];
    const extents = await this.descriptor.use('map', (fd) =>
      this.#try('mapping', () => this.#map(fd, offset, offset + length, extentsMax)),
    );
    return extents === 'lacking' || extents.length === 0 ? everything : extents;
  }

  protected override async measure(): Promise<number> {
    const size = checkedSize((await this.descriptor.use('fstat', statOf)).size);
    return size - (size % this.#sizeUnitBytes);
  }

  /** A write beyond the end of a truncated file makes it grow again, with zeroes in between: it must not be acknowledged. */
  protected override checkWhole(): Promise<void> {
    return this.descriptor.use('fstat', (fd) => this.#checkNotTruncated(fd));
  }

  async #map(fd: number, start: number, end: number, extentsMax: number): Promise<Extent[]> {
    const extents: Extent[] = [];
    let at = start;
    const add = (until: number, kind: ExtentKind) => {
      const limit = Math.min(until, end);
      if (limit > at) extents.push({ offset: at, length: limit - at, kind });
      at = Math.max(at, limit);
    };
    while (at < end && extents.length < extentsMax) {
      const data = await orEndOfFile(seekData(fd, at));
      if (data === 'end') await this.#checkNotTruncated(fd);
      add(data === 'end' ? end : data, 'hole');
      if (data === 'end' || at >= end || extents.length >= extentsMax) return extents;
      const hole = await orEndOfFile(seekHole(fd, at));
      if (hole === 'end') await this.#checkNotTruncated(fd);
      // Somebody else may have punched here meanwhile; whatever is called data is never wrong.
      add(hole === 'end' || hole <= at ? end : hole, 'data');
    }
    return extents;
  }

  async #checkNotTruncated(fd: number): Promise<void> {
    const { size } = await statOf(fd);
    if (size < BigInt(this.sizeBytes)) throw new Failure('unavailable', `the file has shrunk to ${size} bytes`);
  }

  /** False: this file system cannot do it. */
  #change(
    what: 'punching' | 'zeroing',
    { offset, length }: ByteRange,
    run: (fd: number, offset: number, length: number) => Promise<void>,
    check: ChangeCheck,
  ): Promise<boolean> {
    return this.descriptor.useRange(offset, length, what, async (fd) => {
      const outcome = await this.#try(what, () => {
        check();
        return run(fd, offset, length);
      });
      return outcome !== 'lacking';
    });
  }

  /** `lacking`: this file system cannot do it, and is not asked again. */
  async #try<Result>(what: keyof Lacks, run: () => Promise<Result>): Promise<Result | 'lacking'> {
    if (this.#lacks[what]) return 'lacking';
    try {
      return await persist(run);
    } catch (error) {
      if (!isLack(errnoOf(error), what)) throw error;
      this.#lacks[what] = true;
      return 'lacking';
    }
  }
}

function isLack(errno: string | undefined, what: keyof Lacks): boolean {
  return errno === 'EOPNOTSUPP' || errno === 'ENOSYS' || (what === 'mapping' && errno === 'EINVAL');
}

async function orEndOfFile(seek: Promise<number>): Promise<number | 'end'> {
  try {
    return await seek;
  } catch (error) {
    if (errnoOf(error) === 'ENXIO') return 'end';
    throw error;
  }
}
