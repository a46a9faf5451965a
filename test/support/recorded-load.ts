/**
 * A load of overlapping reads, writes, FUA writes and flushes on an NBD device whose whole history is kept and judged, block by block
 * (test/simulation/checker.ts): lost writes, ghosts, stale reads, flushes that lied.
 * Promise: every request is answered, and without an error; everything that was read or found on the disk can be explained.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { judgeBlock, judgeRemains, type Operation } from '../simulation/checker.js';
import { blockBytes, readStamp, readStamps, stampBlock } from './stamped-block.js';

export interface RecordedClient {
  read(offset: number, length: number): Promise<Buffer>;
  write(offset: number, bytes: Buffer, fua: boolean): Promise<void>;
  flush(): Promise<void>;
}

export interface RecordedLoadOptions {
  /** The disk's size. It holds zeroes at the start. */
  readonly blocks: number;
  readonly workers: number;
  /** Between two requests of a worker: so long at the most, milliseconds. */
  readonly pauseMsMax: number;
  /** Write-through: an answered write is durable. */
  readonly durableWhenAnswered: boolean;
  /** How long a request may take before the load counts as standing still, milliseconds. */
  readonly answerWaitMs: number;
}

/** Half of the requests go to so many blocks: overlaps are the point. */
const hotBlocks = 32;
const smallBlocksMax = 4;
const largeBlocksMax = 64;
/** Of a hundred requests; the others are reads. */
const shares = { flush: 3, fua: 4, write: 63 } as const;

export class RecordedLoad {
  /** Answered so far, by kind. */
  readonly counts = { read: 0, write: 0, fua: 0, flush: 0 };
  readonly #clients: readonly RecordedClient[];
  readonly #options: RecordedLoadOptions;
  #histories: Operation[][];
  /** Answered, and not known to be durable. */
  #undurable: Operation[] = [];
  #lastValue = 0;
  #workers: Promise<void>[] = [];
  #stopped = true;
  #withoutSyncs = false;
  #lossExpected = false;
  #failure: Error | undefined;
  #answered: (() => void)[] = [];

  constructor(clients: readonly RecordedClient[], options: RecordedLoadOptions) {
    this.#clients = clients;
    this.#options = options;
    this.#histories = Array.from({ length: options.blocks }, () => []);
  }

  get answered(): number {
    const { read, write, fua, flush } = this.counts;
    return read + write + fua + flush;
  }

  start(): void {
    assert.ok(this.#stopped, 'it is not running');
    this.#stopped = false;
    this.#withoutSyncs = false;
    this.#workers = Array.from({ length: this.#options.workers }, (_, worker) => this.#work(worker));
  }

  /** Stops when everything that was asked for has been answered. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await within(this.#options.answerWaitMs, Promise.all(this.#workers), () => 'requests are not answered');
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Waits until so many more requests have been answered. */
  async progress(requests: number): Promise<void> {
    const goal = this.answered + requests;
    while (this.answered < goal) {
      if (this.#failure !== undefined) throw this.#failure;
      const next = new Promise<void>((resolve) => void this.#answered.push(resolve));
      await within(this.#options.answerWaitMs, next, () => `the load stands still after ${this.answered} answers`);
    }
  }

  /** Until the next start: no flush and no FUA, so that there is something to lose. */
  withholdSyncs(): void {
    this.#withoutSyncs = true;
  }

  /** From now on the connection may be lost: what is not answered then may have happened or not. */
  expectLoss(): void {
    this.#lossExpected = true;
  }

  async flush(): Promise<void> {
    await this.#flush(this.#client(0));
  }

  /** Reads every block through the gateway. */
  async readBack(): Promise<void> {
    const { blocks } = this.#options;
    for (let block = 0; block < blocks; block += largeBlocksMax)
      await this.#read(this.#client(0), block, Math.min(largeBlocksMax, blocks - block));
  }

  /** What lies on the disk itself, after a flush: takes the place of a read of everything. */
  found(disk: Buffer): void {
    assert.equal(disk.length, this.#options.blocks * blockBytes);
    const nowMs = performance.now();
    for (const [block, history] of this.#histories.entries()) {
      const value = readStamp(disk.subarray(block * blockBytes, (block + 1) * blockBytes), block);
      const name = `what the disk holds in block ${block}`;
      history.push({
        ...{ kind: 'read', block, value, startMs: nowMs, endMs: nowMs, outcome: 'ok', name },
        durableMs: Number.POSITIVE_INFINITY,
      });
    }
  }

  /** What remained on a disk that crashed at `crashMs`: whatever was known to be durable by then. Throws when it is not there. */
  judgeRemains(disk: Buffer, crashMs: number): void {
    assert.equal(disk.length, this.#options.blocks * blockBytes);
    this.#throwFaults((history, block) => {
      const value = readStamp(disk.subarray(block * blockBytes, (block + 1) * blockBytes), block);
      return judgeRemains(
        history.map((operation) =>
          operation.durableMs <= crashMs ? operation : { ...operation, durableMs: Number.POSITIVE_INFINITY },
        ),
        value,
      );
    });
  }

  /** Blocks that hold an older value than the last one that was acknowledged by `crashMs`. Only of interest to see that a crash hurt. */
  countLost(disk: Buffer, crashMs: number): number {
    let lost = 0;
    for (const [block, history] of this.#histories.entries()) {
      const value = readStamp(disk.subarray(block * blockBytes, (block + 1) * blockBytes), block);
      const writes = history.filter(({ kind, endMs }) => kind === 'write' && endMs <= crashMs);
      const source = history.find((operation) => operation.kind === 'write' && operation.value === value);
      if (writes.some((write) => write.startMs > (source?.endMs ?? Number.NEGATIVE_INFINITY))) lost += 1;
    }
    return lost;
  }

  /** Judges everything since the start, or since {@link forget}. Throws with what is wrong. */
  judge(): void {
    this.#throwFaults((history) => judgeBlock(history));
  }

  /** A new history that begins with what was read last. Call it when everything was just read back and judged. */
  forget(): void {
    assert.ok(this.#stopped, 'it is not running');
    this.#undurable = [];
    this.#histories = this.#histories.map((history, block) => {
      const last = history.findLast((operation) => operation.kind === 'read');
      const value = last?.value ?? 0;
      const atMs = last?.endMs ?? Number.NEGATIVE_INFINITY;
      if (value === 0) return [];
      return [
        {
          ...{ kind: 'write', block, value, startMs: atMs, endMs: atMs, outcome: 'ok' },
          durableMs: Number.POSITIVE_INFINITY,
          name: `the state of block ${block} at ${seconds(atMs)}`,
        },
      ];
    });
  }

  async #work(worker: number): Promise<void> {
    const client = this.#client(worker);
    while (!this.#stopped && this.#failure === undefined) {
      try {
        await this.#request(client);
      } catch (error) {
        if (!this.#lossExpected) this.#failure ??= error as Error;
        this.#wake();
        return;
      }
      this.#wake();
      if (this.#options.pauseMsMax > 0) await delay(randomInt(this.#options.pauseMsMax + 1));
    }
  }

  #request(client: RecordedClient): Promise<void> {
    const choice = randomInt(this.#withoutSyncs ? shares.flush + shares.fua : 0, 100);
    if (choice < shares.flush) return this.#flush(client);
    const [block, count] = this.#choosePlace();
    if (choice >= shares.flush + shares.fua + shares.write) return this.#read(client, block, count);
    return this.#write(client, block, count, choice < shares.flush + shares.fua);
  }

  #choosePlace(): [block: number, count: number] {
    const { blocks } = this.#options;
    const block = randomInt(2) === 0 ? randomInt(Math.min(hotBlocks, blocks)) : randomInt(blocks);
    const wanted = randomInt(20) === 0 ? randomInt(1, largeBlocksMax + 1) : randomInt(1, smallBlocksMax + 1);
    return [block, Math.min(wanted, blocks - block)];
  }

  async #flush(client: RecordedClient): Promise<void> {
    const covered = this.#undurable;
    this.#undurable = [];
    try {
      await client.flush();
    } catch (error) {
      this.#undurable = [...covered, ...this.#undurable];
      throw error;
    }
    const nowMs = performance.now();
    for (const operation of covered) operation.durableMs = nowMs;
    this.counts.flush += 1;
  }

  async #read(client: RecordedClient, block: number, count: number): Promise<void> {
    const startMs = performance.now();
    const bytes = await client.read(block * blockBytes, count * blockBytes);
    const endMs = performance.now();
    for (let index = 0; index < count; index += 1) {
      const part = bytes.subarray(index * blockBytes, (index + 1) * blockBytes);
      const value = this.#valueRead(part, block + index, startMs, endMs);
      if (value === 'being-written') continue;
      this.#histories[block + index]?.push({
        ...{ kind: 'read', block: block + index, value, startMs, endMs, outcome: 'ok' },
        durableMs: Number.POSITIVE_INFINITY,
        name: `a read of block ${block + index} from ${seconds(startMs)} to ${seconds(endMs)}`,
      });
    }
    this.counts.read += 1;
  }

  /**
   * A read and a write that are under way at the same time may each see a part of the other, as with any disk. Nothing else may be
   * mixed: all parts but those of such writes are of one value, which is what was read. `being-written`: there are none.
   */
  #valueRead(bytes: Buffer, block: number, startMs: number, endMs: number): number | 'being-written' {
    const values = readStamps(bytes, block);
    const [only, ...others] = values;
    if (only !== undefined && others.length === 0) return only;
    const isBeingWritten = (value: number) =>
      this.#histories[block]?.some((operation) => {
        const meets = operation.startMs <= endMs && operation.endMs >= startMs;
        return operation.kind === 'write' && operation.value === value && meets;
      });
    const [settled, ...rest] = values.filter((value) => isBeingWritten(value) !== true);
    assert.equal(rest.length, 0, `block ${block} was mixed of ${values.join(', ')}, read at ${seconds(startMs)}`);
    return settled ?? 'being-written';
  }

  async #write(client: RecordedClient, block: number, count: number, fua: boolean): Promise<void> {
    const startMs = performance.now();
    const operations = Array.from({ length: count }, (_, index): Operation => {
      this.#lastValue += 1;
      return {
        ...{ kind: 'write', block: block + index, value: this.#lastValue, startMs, outcome: 'pending' },
        endMs: Number.POSITIVE_INFINITY,
        durableMs: Number.POSITIVE_INFINITY,
        name: `write ${this.#lastValue} of block ${block + index} at ${seconds(startMs)}`,
      };
    });
    for (const operation of operations) this.#histories[operation.block]?.push(operation);
    const bytes = Buffer.concat(operations.map((operation) => stampBlock(operation.block, operation.value)));
    await client.write(block * blockBytes, bytes, fua);
    const endMs = performance.now();
    const isDurable = fua || this.#options.durableWhenAnswered;
    for (const operation of operations) {
      operation.outcome = 'ok';
      operation.endMs = endMs;
      if (isDurable) operation.durableMs = endMs;
      else this.#undurable.push(operation);
    }
    this.counts[fua ? 'fua' : 'write'] += 1;
  }

  #client(worker: number): RecordedClient {
    const client = this.#clients[worker % this.#clients.length];
    assert.ok(client !== undefined, 'a load has clients');
    return client;
  }

  #wake(): void {
    for (const resolve of this.#answered.splice(0)) resolve();
  }

  #throwFaults(judge: (history: readonly Operation[], block: number) => string | undefined): void {
    const faults: string[] = [];
    for (const [block, history] of this.#histories.entries()) {
      const fault = judge(history, block);
      if (fault !== undefined) faults.push(`block ${block}: ${fault}\n${story(history)}`);
    }
    if (faults.length === 0) return;
    const shown = faults.slice(0, faultsShownMax).join('\n');
    throw new assert.AssertionError({ message: `${faults.length} blocks are wrong\n${shown}` });
  }
}

const faultsShownMax = 4;
const operationsShownMax = 12;

/** The last operations on a block, for whoever has to find out. */
function story(history: readonly Operation[]): string {
  return history
    .slice(-operationsShownMax)
    .map(({ name, value, outcome, endMs, durableMs }) => {
      return `    ${name}: ${value}, ${outcome}, until ${seconds(endMs)}, durable ${seconds(durableMs)}`;
    })
    .join('\n');
}

function seconds(timeMs: number): string {
  return `${(timeMs / 1000).toFixed(3)} s`;
}

async function within<Value>(limitMs: number, what: Promise<Value>, complaint: () => string): Promise<Value> {
  const late = new AbortController();
  const limit = delay(limitMs, undefined, { signal: late.signal }).then(() => {
    throw new Error(`${complaint()} for ${limitMs / 1000} s`);
  });
  try {
    return await Promise.race([what, limit]);
  } finally {
    limit.catch(() => undefined);
    late.abort();
  }
}
