/**
 * Gathers small writes that come in the same turn of the event loop, or while earlier ones are under way, into batches.
 * Promise: at most two threads of the pool are in use; a write waits for at most the batches that were under way when it came and
 * those gathered before it; each is checked when its batch is handed to a thread, however long it has waited; a result that is
 * not a whole write is left to the caller to finish or to fail.
 */
import { batchedWritesMax, type SmallWrite, WriteBatch, type WriteResult } from '../linux/batched-write.js';
import type { ChangeCheck } from './disk.js';

/** Longer writes are better off on a thread of their own. */
export const gatheredBytesMax = 64 * 1024;
const batchesAtOnceMax = 2;

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
  readonly #free: Batch[] = [];
  #open = 0;
  #underWay = 0;
  #scheduled = false;
  #closed = false;
  /** Whether this machine can do it at all. */
  #supported = true;

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
      if (this.#scheduled || this.#underWay === batchesAtOnceMax) return;
      this.#scheduled = true;
      process.nextTick(() => {
        this.#scheduled = false;
        this.#start();
      });
    });
  }

  /** To be called when no write is under way any more. */
  close(): void {
    this.#closed = true;
    for (const batch of this.#free.splice(0)) batch.close();
  }

  #start(): void {
    if (this.#gathered.length === 0 || this.#underWay === batchesAtOnceMax) return;
    const gathered = this.#gathered.splice(0, batchedWritesMax);
    // One alone is faster on the ordinary way.
    const batch = gathered.length > 1 ? this.#take() : undefined;
    if (batch === undefined) {
      for (const { resolve } of gathered) resolve('not-tried');
      this.#start();
      return;
    }
    const writes = gathered.filter(mayStart);
    if (writes.length === 0) {
      this.#free.push(batch);
      this.#start();
      return;
    }
    this.#underWay += 1;
    void batch.write(this.#fd, writes).then((results) => {
      this.#underWay -= 1;
      if (this.#closed) batch.close();
      else this.#free.push(batch);
      for (const [index, { resolve }] of writes.entries()) resolve(results[index] ?? 'not-tried');
      this.#start();
    });
    this.#start();
  }

  #take(): Batch | undefined {
    const free = this.#free.pop();
    if (free !== undefined || !this.#supported || this.#open === batchesAtOnceMax) return free;
    const batch = this.#openBatch();
    if (batch === undefined) this.#supported = false;
    else this.#open += 1;
    return batch;
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
