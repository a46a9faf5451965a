/**
 * Runs a range of seeds on several threads.
 * Promises: what is reported as done has been run without a gap from the start of the range; the seed that is reported as failed is the lowest
 * of those that ran; with a file, a range that was interrupted goes on where it was, and never with another version of the program.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { type SavedStatistics, Statistics } from './statistics.js';
import type { PieceDone } from './worker.js';

export interface RangeOptions {
  readonly from: number;
  readonly count: number;
  readonly jobs: number;
  /** Where progress is kept. Undefined: nowhere. */
  readonly file: string | undefined;
  /** Told now and then. */
  readonly progress: (line: string) => void;
}

export interface RangeDone {
  /** Seeds without a violation, from the start of the range. */
  readonly seeds: number;
  readonly events: number;
  readonly statistics: Statistics;
  readonly failure: PieceDone['failure'];
}

interface Saved {
  readonly program: string;
  readonly from: number;
  readonly count: number;
  readonly done: number;
  readonly events: number;
  readonly statistics: SavedStatistics;
}

const pieceSeeds = 100;
const progressPeriodMs = 15_000;

export function runRange(options: RangeOptions): Promise<RangeDone> {
  return new SeedRange(options).run();
}

class SeedRange {
  readonly #options: RangeOptions;
  readonly #program: string;
  readonly #statistics = new Statistics();
  /** What has been run ahead of a gap, by the first seeds: it counts when the gap is closed. */
  readonly #ahead = new Map<number, PieceDone>();
  readonly #startedMs = performance.now();
  #next: number;
  #done = 0;
  #doneBefore = 0;
  #events = 0;
  #failure: PieceDone['failure'];
  #reportedMs = this.#startedMs;

  constructor(options: RangeOptions) {
    this.#options = options;
    this.#program = options.file === undefined ? '' : hashOfProgram();
    this.#next = options.from;
    this.#load();
  }

  async run(): Promise<RangeDone> {
    await Promise.all(Array.from({ length: this.#options.jobs }, () => this.#job()));
    this.#save();
    return { seeds: this.#done, events: this.#events, statistics: this.#statistics, failure: this.#failure };
  }

  async #job(): Promise<void> {
    const worker = new Worker(new URL('worker.js', import.meta.url));
    const end = this.#options.from + this.#options.count;
    try {
      while (this.#failure === undefined && this.#next < end) {
        const piece = { from: this.#next, count: Math.min(pieceSeeds, end - this.#next) };
        this.#next += piece.count;
        worker.postMessage(piece);
        const [done] = (await once(worker, 'message')) as [PieceDone];
        this.#take(done);
      }
    } finally {
      await worker.terminate();
    }
  }

  #take(done: PieceDone): void {
    const { failure } = done;
    if (failure !== undefined && failure.seed < (this.#failure?.seed ?? Infinity)) this.#failure = failure;
    if (failure === undefined) this.#ahead.set(done.from, done);
    for (;;) {
      const following = this.#ahead.get(this.#options.from + this.#done);
      if (following === undefined) break;
      this.#ahead.delete(following.from);
      this.#done += following.count;
      this.#events += following.events;
      this.#statistics.merge(following.statistics);
    }
    if (performance.now() - this.#reportedMs > progressPeriodMs) this.#report();
  }

  #report(): void {
    this.#reportedMs = performance.now();
    this.#save();
    const { count, progress } = this.#options;
    const perSecond = ((this.#done - this.#doneBefore) * 1000) / (this.#reportedMs - this.#startedMs);
    const minutes = (count - this.#done) / perSecond / 60;
    progress(
      `${this.#done} of ${count} seeds, ${perSecond.toFixed(1)} seeds/s, about ${minutes.toFixed(1)} minutes to go`,
    );
  }

  #load(): void {
    const { file, from, count } = this.#options;
    if (file === undefined || !existsSync(file)) return;
    const saved = JSON.parse(readFileSync(file, 'utf8')) as Saved;
    if (saved.program !== this.#program) throw new Error(`${file} is of another version of the program: remove it`);
    if (saved.from !== from || saved.count !== count)
      throw new Error(`${file} is of ${saved.count} seeds from ${saved.from}: remove it, or run those`);
    this.#done = saved.done;
    this.#doneBefore = saved.done;
    this.#next = from + saved.done;
    this.#events = saved.events;
    this.#statistics.merge(saved.statistics);
  }

  #save(): void {
    const { file, from, count } = this.#options;
    if (file === undefined) return;
    const saved: Saved = {
      ...{ program: this.#program, from, count, done: this.#done },
      ...{ events: this.#events, statistics: this.#statistics.save() },
    };
    writeFileSync(`${file}.new`, JSON.stringify(saved));
    renameSync(`${file}.new`, file);
  }
}

/** Of everything that decides what a seed does: the compiled program and the simulation. */
function hashOfProgram(): string {
  const root = join(import.meta.dirname, '..', '..');
  const hash = createHash('sha256');
  for (const folder of ['src', 'test/simulation', 'test/support']) {
    const names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
    for (const name of names.filter((each) => each.endsWith('.js')).sort()) {
      hash.update(`${folder}/${name}\n`).update(readFileSync(join(root, folder, name)));
    }
  }
  return hash.digest('hex');
}
