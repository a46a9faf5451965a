/**
 * A load on a block device that knows what every byte must be. Promise: a read that returns anything but the bytes of the
 * last acknowledged write, or an error where none is expected, fails `finish`. A write that was answered with an error may have
 * happened or not; both are accepted, until the next write to the same block.
 */
import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';

export interface BlockClient {
  read(offset: number, length: number): Promise<Buffer>;
  write(offset: number, bytes: Buffer): Promise<void>;
  flush(): Promise<void>;
}

export interface LoadOptions {
  readonly sizeBytes: number;
  readonly workers?: number;
  /** Answers with an error are counted instead of failing the load. */
  readonly errorsExpected?: boolean;
}

const blockBytes = 4096;
const rememberedWritesMax = 4096;
const waitMs = 60_000;

export class CheckedLoad {
  /** Requests that were answered so far. */
  answered = 0;
  errors = 0;
  readonly #client: BlockClient;
  readonly #options: LoadOptions;
  /** What each block may read as. */
  readonly #model: Buffer[][];
  /** The latest writes, the newest first: to tell what came back. */
  readonly #written: { readonly block: number; readonly bytes: Buffer }[] = [];
  readonly #workers: Promise<void>[];
  #stopped = false;
  #failure: Error | undefined;
  #progressed: (() => void) | undefined;

  /** `initial`: what the disk holds before. */
  constructor(client: BlockClient, initial: Buffer, options: LoadOptions) {
    this.#client = client;
    this.#options = options;
    const blocks = options.sizeBytes / blockBytes;
    this.#model = Array.from({ length: blocks }, (_, block) => [
      Buffer.from(initial.subarray(block * blockBytes, (block + 1) * blockBytes)),
    ]);
    const workers = options.workers ?? 8;
    this.#workers = Array.from({ length: workers }, (_, worker) => this.#work(worker, workers));
  }

  /** Waits until so many more requests have been answered; fails if the load fails or stands still. */
  async progress(requests: number): Promise<void> {
    const goal = this.answered + requests;
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      this.#progressed?.();
    }, waitMs);
    while (this.answered < goal && this.#failure === undefined && !timedOut) {
      await new Promise<void>((resolve) => {
        this.#progressed = resolve;
      });
    }
    clearTimeout(timer);
    this.#rethrow();
    assert.ok(!timedOut, `the load stands still: ${this.answered} of ${goal} requests answered after ${waitMs} ms`);
  }

  /** Stops, flushes, and reads every block back. Resolves with what the whole disk must hold, where that is certain. */
  async finish(): Promise<Buffer> {
    this.#stopped = true;
    await Promise.all(this.#workers);
    this.#rethrow();
    await this.#client.flush();
    const blocks: Buffer[] = [];
    for (const block of this.#model.keys()) blocks.push(await this.#readChecked(block));
    return Buffer.concat(blocks);
  }

  async #work(worker: number, workers: number): Promise<void> {
    // Each worker has its own blocks, so that it knows what each of them must be.
    const own = [...this.#model.keys()].filter((block) => block % workers === worker);
    while (!this.#stopped && this.#failure === undefined) {
      const block = own[randomInt(own.length)] ?? 0;
      try {
        if (randomInt(3) === 0) await this.#readChecked(block);
        else await this.#write(block);
      } catch (error) {
        if (this.#options.errorsExpected !== true || error instanceof assert.AssertionError)
          this.#failure = error as Error;
        else this.errors++;
      }
      this.answered++;
      this.#progressed?.();
    }
  }

  async #write(block: number): Promise<void> {
    const bytes = randomBytes(blockBytes);
    const before = this.#model[block] ?? [];
    this.#model[block] = [...before, bytes];
    this.#written.unshift({ block, bytes });
    this.#written.splice(rememberedWritesMax);
    await this.#client.write(block * blockBytes, bytes);
    this.#model[block] = [bytes];
  }

  async #readChecked(block: number): Promise<Buffer> {
    const read = await this.#client.read(block * blockBytes, blockBytes);
    const allowed = this.#model[block] ?? [];
    const found = allowed.find((bytes) => bytes.equals(read));
    assert.ok(found !== undefined, this.#describe(block, read));
    // Once it was seen, it must stay so.
    this.#model[block] = [found];
    return read;
  }

  #describe(block: number, read: Buffer): string {
    const age = this.#written.filter((write) => write.block === block).findIndex(({ bytes }) => bytes.equals(read));
    const what = age < 0 ? 'bytes that nobody wrote lately' : `the bytes of an older write, ${age} writes ago`;
    return `block ${block} does not hold what was last written to it, but ${what}`;
  }

  #rethrow(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
