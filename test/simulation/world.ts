/**
 * Simulated time and chance. One seed, one run: events happen in the order of their times, and between two of them every promise
 * that can settle has settled.
 */
import type { Timer } from '../../src/base/clock.js';
import { Random } from './random.js';

interface Entry {
  readonly atMs: number;
  readonly sequence: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class World {
  nowMs = 0;
  events = 0;
  /** Nothing goes wrong any more. */
  isCalm = false;
  readonly random: Random;
  /** What happened how often in this run: see statistics.ts. */
  readonly tally = new Map<string, number>();
  readonly #log: string[] | undefined;
  readonly #heap: Entry[] = [];
  #sequence = 0;

  /** `log`: where notes go. Undefined: nowhere, which is faster. */
  constructor(seed: number, log: string[] | undefined) {
    this.random = new Random(seed);
    this.#log = log;
  }

  note(what: () => string): void {
    this.#log?.push(`${this.nowMs.toFixed(3).padStart(10)} ${what()}`);
  }

  count(what: string): void {
    this.tally.set(what, (this.tally.get(what) ?? 0) + 1);
  }

  after(delayMs: number, run: () => void): Timer {
    this.#sequence += 1;
    const entry = { atMs: this.nowMs + Math.max(0, delayMs), sequence: this.#sequence, run, cancelled: false };
    push(this.#heap, entry);
    return {
      cancel: () => {
        entry.cancelled = true;
      },
    };
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.after(delayMs, resolve));
  }

  /** Runs events until `finished`, or until `limitMs` of simulated time. Resolves with whether it finished. */
  run(finished: () => boolean, limitMs: number): Promise<boolean> {
    // From a turn of the event loop of its own: promises do not settle within a callback of a promise.
    return new Promise((resolve, reject) => {
      setImmediate(() => {
        try {
          resolve(this.#run(finished, limitMs));
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
  }

  #run(finished: () => boolean, limitMs: number): boolean {
    for (;;) {
      settle();
      if (finished()) return true;
      const entry = pop(this.#heap);
      if (entry === undefined || entry.atMs > limitMs) return false;
      if (entry.cancelled) continue;
      this.nowMs = entry.atMs;
      this.events += 1;
      entry.run();
    }
  }
}

/**
 * Settles every promise that can settle without another event. A turn of the event loop does the same, which makes the whole simulation take
 * nearly twice as long; this is what Node itself calls at the end of each callback (DEP0134: not documented).
 */
const settle = (process as typeof process & { readonly _tickCallback: () => void })._tickCallback;

function isBefore(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence);
}

function push(heap: Entry[], entry: Entry): void {
  let place = heap.length;
  while (place > 0) {
    const up = (place - 1) >> 1;
    const parent = heap[up];
    if (parent === undefined || isBefore(parent, entry)) break;
    heap[place] = parent;
    place = up;
  }
  heap[place] = entry;
}

function pop(heap: Entry[]): Entry | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return first;
  let place = 0;
  for (;;) {
    let child = 2 * place + 1;
    const left = heap[child];
    if (left === undefined) break;
    const right = heap[child + 1];
    if (right !== undefined && isBefore(right, left)) child += 1;
    const smaller = heap[child];
    if (smaller === undefined || isBefore(last, smaller)) break;
    heap[place] = smaller;
    place = child;
  }
  heap[place] = last;
  return first;
}
