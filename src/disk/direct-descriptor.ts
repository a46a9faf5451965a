/**
 * A descriptor opened with O_DIRECT: past the page cache, for storage that other hosts write too.
 * Promise: the kernel sees whole aligned blocks only; a change that does not fill its blocks is a read-modify-write of
 * exactly those, and two changes of the same block never cross. A change of whole blocks touches nothing else: hosts
 * that keep to blocks of their own never overwrite each other's.
 */
import { Failure } from '../base/failure.js';
import { alignedBuffer } from '../linux/aligned-buffer.js';
import { errnoOf } from '../linux/errno.js';
import { Descriptor, persist, readSome, writeSome } from './descriptor.js';
import type { ChangeCheck } from './disk.js';
import type { DiskKind } from './disk-failure.js';
import { RangeLock } from './range-lock.js';

/** Bytes that go through one buffer at a time. */
const pieceBytes = 1024 * 1024;
const smallBytes = 64 * 1024;
/** As many as the disk server runs operations at a time, and some. */
const idleBuffersMax = 16;
const memoryAlignmentBytes = 4096;
const blockBytesMin = 512;
const blockBytesMax = 64 * 1024;

export class DirectDescriptor extends Descriptor {
  readonly #blockBytes: number;
  readonly #lock = new RangeLock();
  readonly #idle: { readonly small: Buffer[]; readonly large: Buffer[] } = { small: [], large: [] };

  /** `blockBytes`: what {@link directBlockBytes} tells for a file, the logical block of a device. */
  constructor(fd: number, kind: DiskKind, blockBytes: number) {
    super(fd, kind);
    this.#blockBytes = blockBytes;
  }

  /** Nothing is cached. */
  override readNow(): boolean {
    return false;
  }

  override async read(offset: number, into: Buffer): Promise<void> {
    for (let done = 0; done < into.length; ) {
      const piece = this.#piece(offset + done, into.length - done);
      await this.#withBuffer(piece.blocksBytes, async (blocks) => {
        await this.use('read', (fd) => fillWhole(fd, piece.start, blocks, piece.skip + piece.bytes, this.#blockBytes));
        blocks.copy(into, done, piece.skip, piece.skip + piece.bytes);
      });
      done += piece.bytes;
    }
  }

  override async write(offset: number, bytes: Buffer, check: ChangeCheck): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const piece = this.#piece(offset + done, bytes.length - done);
      const source = bytes.subarray(done, done + piece.bytes);
      await this.useRange(offset + done, piece.bytes, 'write', (fd) => this.#writePiece(fd, piece, source, check));
      done += piece.bytes;
    }
  }

  override useRange<Result>(
    offset: number,
    length: number,
    doing: string,
    run: (fd: number) => Promise<Result>,
  ): Promise<Result> {
    const start = this.#floor(offset);
    const range = { offset: start, length: this.#ceil(offset + length) - start };
    return this.#lock.hold(range, () => this.use(doing, run));
  }

  #writePiece(fd: number, piece: Piece, source: Buffer, check: ChangeCheck): Promise<void> {
    return this.#withBuffer(piece.blocksBytes, async (blocks) => {
      const unit = this.#blockBytes;
      const end = piece.skip + piece.bytes;
      const last = piece.blocksBytes - unit;
      if (piece.skip > 0) await fillWhole(fd, piece.start, blocks.subarray(0, unit), unit, unit);
      const lastIsPartial = end < piece.blocksBytes && !(piece.skip > 0 && last === 0);
      if (lastIsPartial) await fillWhole(fd, piece.start + last, blocks.subarray(last), unit, unit);
      source.copy(blocks, piece.skip);
      await writeWhole(fd, piece.start, blocks, unit, check);
    });
  }

  /** What one buffer takes of the range. */
  #piece(offset: number, length: number): Piece {
    const start = this.#floor(offset);
    const skip = offset - start;
    const bytes = Math.min(length, pieceBytes - skip);
    return { start, skip, bytes, blocksBytes: this.#ceil(skip + bytes) };
  }

  async #withBuffer<Result>(length: number, run: (buffer: Buffer) => Promise<Result>): Promise<Result> {
    const small = length <= smallBytes;
    const idle = small ? this.#idle.small : this.#idle.large;
    const buffer = idle.pop() ?? alignedBuffer(small ? smallBytes : pieceBytes, memoryAlignmentBytes);
    const result = await run(buffer.subarray(0, length));
    // After a failure nobody knows who still writes into it: it is left to the garbage collector.
    if (idle.length < idleBuffersMax) idle.push(buffer);
    return result;
  }

  #floor(offset: number): number {
    return offset - (offset % this.#blockBytes);
  }

  #ceil(offset: number): number {
    return this.#floor(offset + this.#blockBytes - 1);
  }
}

/** A part of a request: `bytes` bytes from `skip` on, in the whole blocks from `start` on. */
interface Piece {
  readonly start: number;
  readonly skip: number;
  readonly bytes: number;
  readonly blocksBytes: number;
}

/** Reads until the first `needed` bytes of `blocks` are there. The kernel may stop at any block. */
async function fillWhole(fd: number, start: number, blocks: Buffer, needed: number, unit: number): Promise<void> {
  for (let done = 0; done < needed; ) {
    const from = done - (done % unit);
    const count = await persist(() => readSome(fd, blocks, from, start + from));
    if (from + count <= done) throw new Failure('unavailable', `the disk ends at ${start + done} bytes, it has shrunk`);
    done = from + count;
  }
}

async function writeWhole(fd: number, start: number, blocks: Buffer, unit: number, check: ChangeCheck): Promise<void> {
  for (let done = 0; done < blocks.length; ) {
    const count = await persist(() => {
      check();
      return writeSome(fd, blocks, done, start + done);
    });
    const whole = count - (count % unit);
    if (whole === 0) throw new Failure('disk-error', 'write: no progress');
    done += whole;
  }
}

/** The smallest block that direct reads of this file accept; undefined: there is none. */
export async function directBlockBytes(fd: number): Promise<number | undefined> {
  const buffer = alignedBuffer(blockBytesMax, memoryAlignmentBytes);
  for (let bytes = blockBytesMin; bytes <= blockBytesMax; bytes *= 2) {
    try {
      await persist(() => readSome(fd, buffer.subarray(0, bytes), 0, 0));
      return bytes;
    } catch (error) {
      if (errnoOf(error) !== 'EINVAL') throw error;
    }
  }
  return undefined;
}
