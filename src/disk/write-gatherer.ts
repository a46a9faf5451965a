/**
 * Gathers small writes that come in the same turn of the event loop, or while earlier ones are under way, into batches: one at a time,
 * because a file system lets one thread at a time write to a file, and a second one would only wait for it.
 * Promise: a write waits for at most the batch that was under way when it came and those gathered before it; each is checked when its
 * batch is handed to a thread, however long it has waited; a result that is not a whole write is left to the caller to finish or to fail.
 */
import { assert } from '../base/assert.js';
import { batchedWritesMax, type SmallWrite, WriteBatch, type WriteResult } from '../linux/batched-write.js';
import type { ChangeCheck } from './disk.js';

/** Longer writes are better off on a thread of their own. */
export const gatheredBytesMax = 64 * 1024;

interface Gathered extends SmallWrite {
  readonly check: ChangeCheck;
  readonly resolve: (result: WriteResult) => void;
  readonly reject: (refusal: unknown) => void;
}

/** What is needed of a {@link WriteBatch}. */
export type Batch = Pick<WriteBatch, 'write' | 'close'>;

export class WriteGatherer {
  readonly #fd: number;
  readonly #openBatch: () => Batch | undefined;
  #gathered: Gathered[] = [];
  /** Undefined: none is open yet; null: this machine cannot do it. */
  #batch: Batch | undefined | null;
  #isUnderWay = false;
  #isScheduled = false;

  constructor(fd: number, openBatch: () => Batch | undefined = () => WriteBatch.open()) {
    this.#fd = fd;
    this.#openBatch = openBatch;
  }

  /**
   * Resolves with the bytes written, a negative errno, or `not-tried`: then the check is still to be made, too. Rejects with what
   * `check` throws.
   */
  write(offset: number, bytes: Buffer, check: ChangeCheck): Promise<WriteResult> {
    return new Promise((resolve, reject) => {
      this.#gathered.push({ offset, bytes, check, resolve, reject });
      if (this.#isScheduled || this.#isUnderWay) return;
      this.#isScheduled = true;
      process.nextTick(() => {
        this.#isScheduled = false;
        this.#start();
      });
    });
  }

  /** To be called when no write is under way any more. */
  close(): void {
    assert(!this.#isUnderWay, 'closed while writes are under way');
    this.#batch?.close();
    this.#batch = null;
  }

  #start(): void {
    if (this.#isUnderWay || this.#gathered.length === 0) return;
    const gathered = this.#gathered.splice(0, batchedWritesMax);
    // One alone is faster on the ordinary way.
    const batch = gathered.length > 1 ? this.#opened() : null;
    if (batch === null) {
      for (const { resolve } of gathered) resolve('not-tried');
      this.#start();
      return;
    }
    const writes = gathered.filter(mayStart);
    if (writes.length === 0) {
      this.#start();
      return;
    }
    this.#isUnderWay = true;
    void batch.write(this.#fd, writes).then((results) => {
      this.#isUnderWay = false;
      for (const [index, { resolve }] of writes.entries()) resolve(results[index] ?? 'not-tried');
      this.#start();
    });
  }

  #opened(): Batch | null {
    if (this.#batch === undefined) this.#batch = this.#openBatch() ?? null;
    return this.#batch;
  }
}

/** A write that is refused now is told so, and left out. */
function mayStart({ check, reject }: Gathered): boolean {
  try {
    check();
    return true;
  } catch (refusal) {
    reject(refusal);
    return false;
  }
}
