/**
 * A regular file as a disk, of any number of bytes.
 * Promise: a sparse file stays sparse: holes are reported, kept, and made by trims. A file that was truncated meanwhile
 * is `unavailable`, its missing end never reads or maps as zeroes.
 */
import { Failure } from '../base/failure.js';
import type { Extent, ExtentKind } from '../base/range.js';
import { errnoOf } from '../linux/errno.js';
import { punchHole, zeroRange } from '../linux/fallocate.js';
import { seekData, seekHole } from '../linux/sparse.js';
import { BaseDisk, type Geometry } from './base-disk.js';
import { type Descriptor, persist } from './descriptor.js';
import { checkedSize, statOf } from './size.js';

/** What this file system turned out not to have, so that it is asked once only. */
interface Lacks {
  punching: boolean;
  zeroing: boolean;
  mapping: boolean;
}

export class FileDisk extends BaseDisk {
  readonly #lacks: Lacks;

  /** `zeroing`: whether the file system is known to have FALLOC_FL_ZERO_RANGE (it cannot be asked without a change). */
  constructor(descriptor: Descriptor, geometry: Geometry, zeroing: boolean) {
    super(descriptor, geometry);
    this.#lacks = { punching: false, zeroing: !zeroing, mapping: false };
  }

  override get zeroesFast(): boolean {
    return !this.#lacks.punching && !this.#lacks.zeroing;
  }

  protected override async zeroInside(offset: number, length: number, mayTrim: boolean): Promise<void> {
    if (mayTrim && (await this.#try('punching', (fd) => punchHole(fd, offset, length)))) return;
    if (await this.#try('zeroing', (fd) => zeroRange(fd, offset, length))) return;
    await this.writeZeroes(offset, length);
  }

  protected override async trimInside(offset: number, length: number): Promise<void> {
    await this.#try('punching', (fd) => punchHole(fd, offset, length));
  }

  protected override async extentsInside(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    const everything: Extent[] = [{ offset, length, kind: 'data' }];
    if (this.#lacks.mapping) return everything;
    const extents: Extent[] = [];
    const mapped = await this.#try('mapping', (fd) => this.#map(fd, offset, offset + length, extentsMax, extents));
    return mapped && extents.length > 0 ? extents : everything;
  }

  protected override async measure(): Promise<number> {
    return checkedSize((await this.descriptor.use('fstat', statOf)).size);
  }

  /** Appends to `extents` what lies between `start` and `end`. */
  async #map(fd: number, start: number, end: number, extentsMax: number, extents: Extent[]): Promise<void> {
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
      if (data === 'end' || at >= end || extents.length >= extentsMax) return;
      const hole = await orEndOfFile(seekHole(fd, at));
      if (hole === 'end') await this.#checkNotTruncated(fd);
      // Somebody else may have punched here meanwhile; whatever is called data is never wrong.
      add(hole === 'end' || hole <= at ? end : hole, 'data');
    }
  }

  async #checkNotTruncated(fd: number): Promise<void> {
    const { size } = await statOf(fd);
    if (size < BigInt(this.sizeBytes)) throw new Failure('unavailable', `the file has shrunk to ${size} bytes`);
  }

  /** False: this file system cannot do it (and is not asked again). */
  async #try(what: keyof Lacks, run: (fd: number) => Promise<void>): Promise<boolean> {
    if (this.#lacks[what]) return false;
    return this.descriptor.use(what, async (fd) => {
      try {
        await persist(() => run(fd));
        return true;
      } catch (error) {
        if (!isLack(errnoOf(error), what)) throw error;
        this.#lacks[what] = true;
        return false;
      }
    });
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
