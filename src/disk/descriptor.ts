/**
 * An open file descriptor of a disk, through the thread pool.
 * Promise: reads and writes are whole or fail with a Failure, also when the kernel does them in parts; the descriptor is
 * closed only when nothing uses it any more, so that a late operation can never reach the file that gets its number next.
 */
import { close, fdatasync, read, write } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { assert } from '../base/assert.js';
import { Failure } from '../base/failure.js';
import { errnoOf } from '../linux/errno.js';
import { readNowait } from '../linux/nowait-read.js';
import type { ChangeCheck } from './disk.js';
import { type DiskKind, diskFailure } from './disk-failure.js';
import { gatheredBytesMax, WriteGatherer } from './write-gatherer.js';

/** What is cached is read in pieces of so many bytes, each in a turn of the event loop of its own: small requests come in between. */
const cachedPieceBytes = 128 * 1024;

/** EINTR and EAGAIN are tried again so often in a row; then they are errors. */
const interruptionsMax = 100;

const syncData = promisify(fdatasync);
const closeNow = promisify(close);

type Life = { readonly at: 'open' } | { readonly at: 'closing'; readonly done: Promise<void> };

export class Descriptor {
  readonly kind: DiskKind;
  readonly #fd: number;
  #users = 0;
  #life: Life = { at: 'open' };
  #whenUnused: (() => void) | undefined;
  readonly #gatherer: WriteGatherer;
  #nowait: 'works' | 'unsupported' = 'works';

  constructor(fd: number, kind: DiskKind) {
    this.#fd = fd;
    this.kind = kind;
    this.#gatherer = new WriteGatherer(fd);
  }

  /** Fills `into` with what is in the page cache; false: not possible without waiting. Never blocks. */
  readNow(offset: number, into: Buffer): boolean {
    if (this.#nowait === 'unsupported' || this.#life.at !== 'open') return false;
    const outcome = readNowait(this.#fd, offset, into);
    if (outcome === 'unsupported') this.#nowait = 'unsupported';
    return outcome === 'done';
  }

  /** Fills `into`. A disk that ends before that is `unavailable`: it is not what it was when it was opened. */
  read(offset: number, into: Buffer): Promise<void> {
    return this.use('read', async (fd) => {
      let done = into.length > cachedPieceBytes ? await this.#readCached(offset, into) : 0;
      while (done < into.length) {
        const count = await persist(() => readSome(fd, into, done, offset + done));
        if (count === 0) throw new Failure('unavailable', `the disk ends at ${offset + done} bytes, it has shrunk`);
        done += count;
      }
    });
  }

  /** How many bytes from the start on were in the page cache. A thread would take them from there to another processor's cache. */
  async #readCached(offset: number, into: Buffer): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const piece = into.subarray(done, done + cachedPieceBytes);
      if (!this.readNow(offset + done, piece)) break;
      done += piece.length;
      if (done < into.length) await turn();
    }
    return done;
  }

  /** `check` runs before each system call. */
  async write(offset: number, bytes: Buffer, check: ChangeCheck): Promise<void> {
    this.#enter();
    try {
      // What is not whole, for whatever reason, is finished below, or fails there in words.
      const gathered =
        bytes.length <= gatheredBytesMax ? await this.#gatherer.write(offset, bytes, check) : 'not-tried';
      const done = gathered === 'not-tried' ? 0 : Math.max(gathered, 0);
      if (done < bytes.length) await this.#writeRest(offset, bytes, done, check);
    } catch (error) {
      throw diskFailure(error, this.kind, 'write');
    } finally {
      this.#leave();
    }
  }

  async #writeRest(offset: number, bytes: Buffer, from: number, check: ChangeCheck): Promise<void> {
    for (let done = from; done < bytes.length; ) {
      const count = await persist(() => {
        check();
        return writeSome(this.#fd, bytes, done, offset + done);
      });
      if (count === 0) throw new Failure('disk-error', 'write: no progress');
      done += count;
    }
  }

  sync(): Promise<void> {
    return this.use('fdatasync', (fd) => persist(() => syncData(fd)));
  }

  /**
   * Runs `run` with the descriptor, which stays open until then. Errors of system calls become Failures that name
   * `doing`; `run` deals with those that are none.
   */
  async use<Result>(doing: string, run: (fd: number) => Promise<Result>): Promise<Result> {
    this.#enter();
    try {
      return await run(this.#fd);
    } catch (error) {
      throw diskFailure(error, this.kind, doing);
    } finally {
      this.#leave();
    }
  }

  #enter(): void {
    if (this.#life.at !== 'open') throw new Failure('unavailable', 'the disk is closed');
    this.#users += 1;
  }

  #leave(): void {
    this.#users -= 1;
    if (this.#users === 0) this.#whenUnused?.();
  }

  /** As {@link use}, for a change of `length` bytes at `offset` by other means than {@link write}. */
  useRange<Result>(
    _offset: number,
    _length: number,
    doing: string,
    run: (fd: number) => Promise<Result>,
  ): Promise<Result> {
    return this.use(doing, run);
  }

  /** Lets what runs finish, and closes. Idempotent. New operations are refused from now on. */
  close(): Promise<void> {
    if (this.#life.at === 'open') this.#life = { at: 'closing', done: this.#closeWhenUnused() };
    return this.#life.done;
  }

  async #closeWhenUnused(): Promise<void> {
    if (this.#users > 0) await new Promise<void>((resolve) => (this.#whenUnused = resolve));
    assert(this.#users === 0, 'closed while in use');
    this.#gatherer.close();
    try {
      await closeNow(this.#fd);
    } catch (error) {
      throw diskFailure(error, this.kind, 'close');
    }
  }
}

/** `attempt` again when a signal interrupted it. */
export async function persist<Result>(attempt: () => Promise<Result>): Promise<Result> {
  for (let interruptions = 0; ; interruptions += 1) {
    try {
      return await attempt();
    } catch (error) {
      const errno = errnoOf(error);
      if ((errno !== 'EINTR' && errno !== 'EAGAIN') || interruptions >= interruptionsMax) throw error;
    }
  }
}

/** One pread(2) into `into` from its byte `from` on. Resolves with the number of bytes; 0 at the end of the disk. */
export function readSome(fd: number, into: Buffer, from: number, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, into, from, into.length - from, offset, (error, count) => (error ? reject(error) : resolve(count)));
  });
}

/** One pwrite(2) of `bytes` from its byte `from` on. Resolves with the number of bytes. */
export function writeSome(fd: number, bytes: Buffer, from: number, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, from, bytes.length - from, offset, (error, count) => (error ? reject(error) : resolve(count)));
  });
}
