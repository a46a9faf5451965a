/** A volume in memory, in place of the gateway where only the NBD side is under test. Sparse: a terabyte costs what is written. */
import type { BufferPool } from '../../src/base/buffer-pool.js';
import type { Failure } from '../../src/base/failure.js';
import type { Extent } from '../../src/base/range.js';
import type { Volume, ZeroOptions } from '../../src/base/volume.js';

const chunkBytes = 64 * 1024;

export class MemoryVolume implements Volume {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** What was asked for besides data, in order. */
  readonly calls: string[] = [];
  /** Thrown by the next call. */
  failNext: Failure | undefined;
  /** While set, calls wait for it. */
  gate: Promise<void> | undefined;
  readonly #buffers: BufferPool;
  readonly #chunks = new Map<number, Buffer>();

  constructor(sizeBytes: number, buffers: BufferPool, readOnly = false) {
    this.sizeBytes = sizeBytes;
    this.readOnly = readOnly;
    this.#buffers = buffers;
  }

  async read(offset: number, into: Buffer): Promise<void> {
    await this.#enter();
    this.#each(offset, into.length, (chunk, at, length, done) => {
      const data = this.#chunks.get(chunk);
      if (data === undefined) into.fill(0, done, done + length);
      else data.copy(into, done, at, at + length);
    });
  }

  async write(offset: number, bytes: Buffer, fua: boolean): Promise<void> {
    await this.#enter();
    if (fua) this.calls.push('fua');
    this.#each(offset, bytes.length, (chunk, at, length, done) =>
      bytes.copy(this.#chunk(chunk), at, done, done + length),
    );
    this.#buffers.give(bytes);
  }

  async zero(offset: number, length: number, { fua, mayTrim, fast }: ZeroOptions): Promise<void> {
    await this.#enter();
    this.calls.push(`zero${mayTrim ? ' may-trim' : ''}${fast ? ' fast' : ''}${fua ? ' fua' : ''}`);
    this.#each(offset, length, (chunk, at, size) => {
      if (size === chunkBytes && mayTrim) this.#chunks.delete(chunk);
      else this.#chunk(chunk).fill(0, at, at + size);
    });
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    await this.#enter();
    this.calls.push(`trim${fua ? ' fua' : ''}`);
    this.#each(offset, length, (chunk, _, size) => {
      if (size === chunkBytes) this.#chunks.delete(chunk);
    });
  }

  async flush(): Promise<void> {
    await this.#enter();
    this.calls.push('flush');
  }

  async cache(): Promise<void> {
    await this.#enter();
    this.calls.push('cache');
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    await this.#enter();
    const extents: Extent[] = [];
    this.#each(offset, length, (chunk, at, size) => {
      extents.push({ offset: chunk * chunkBytes + at, length: size, kind: this.#chunks.has(chunk) ? 'data' : 'hole' });
    });
    return extents;
  }

  async #enter(): Promise<void> {
    if (this.gate !== undefined) await this.gate;
    const failure = this.failNext;
    this.failNext = undefined;
    if (failure !== undefined) throw failure;
  }

  #chunk(number: number): Buffer {
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      chunk = Buffer.alloc(chunkBytes);
      this.#chunks.set(number, chunk);
    }
    return chunk;
  }

  #each(
    offset: number,
    length: number,
    visit: (chunk: number, at: number, length: number, done: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const at = (offset + done) % chunkBytes;
      const size = Math.min(chunkBytes - at, length - done);
      visit(Math.floor((offset + done) / chunkBytes), at, size, done);
      done += size;
    }
  }
}
