/**
 * Simulated time and chance. One seed, one run: events happen in the order of their times, and between two of them every promise
 * that can settle has settled.
 */
import type { Clock, Timer } from '../../src/base/clock.js';

interface Entry {
  readonly atMs: number;
  readonly sequence: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class World {
  nowMs = 0;
  events = 0;
  /** How often something holds a message back for seconds. */
  heldBack = 0.01;
  readonly random: Random;
  readonly log: string[] = [];
  readonly #heap: Entry[] = [];
  #sequence = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  note(what: string): void {
    this.log.push(`${this.nowMs.toFixed(3).padStart(10)} ${what}`);
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
  async run(finished: () => boolean, limitMs: number): Promise<boolean> {
    for (;;) {
      await settled();
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

/** Every promise that can settle without another event has settled. */
function settled(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/**
 * A process of the simulation: it can be paused (its events wait) and killed (its events are dropped). Its clock has a rate and an
 * origin of its own.
 */
export class Process implements Clock {
  readonly #world: World;
  readonly #rate: number;
  readonly #originMs: number;
  #backlog: (() => void)[] = [];
  #state: 'running' | 'paused' | 'dead' = 'running';

  constructor(world: World, rate: number, originMs: number) {
    this.#world = world;
    this.#rate = rate;
    this.#originMs = originMs;
  }

  get state(): 'running' | 'paused' | 'dead' {
    return this.#state;
  }

  nowMs(): number {
    return this.#originMs + this.#world.nowMs * this.#rate;
  }

  after(delayMs: number, run: () => void): Timer {
    return this.#world.after(delayMs / this.#rate, () => this.do(run));
  }

  /** Runs `event` now, at the end of the pause, or never. */
  do(event: () => void): void {
    if (this.#state === 'running') event();
    else if (this.#state === 'paused') this.#backlog.push(event);
  }

  pause(): void {
    if (this.#state === 'running') this.#state = 'paused';
  }

  resume(): void {
    if (this.#state !== 'paused') return;
    this.#state = 'running';
    const backlog = this.#backlog;
    this.#backlog = [];
    for (const event of backlog) this.#world.after(0, () => this.do(event));
  }

  kill(): void {
    this.#state = 'dead';
    this.#backlog = [];
  }
}

/** sfc32: small, fast, good enough, and the same everywhere. */
export class Random {
  #a = 0x9e3779b9;
  #b = 0x243f6a88;
  #c = 0xb7e15162;
  #d: number;

  constructor(seed: number) {
    this.#d = seed >>> 0;
    this.#a ^= Math.floor(seed / 2 ** 32);
    for (let round = 0; round < 12; round += 1) this.next();
  }

  /** In [0, 1). */
  next(): number {
    const t = (this.#a + this.#b + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + t) | 0;
    return (t >>> 0) / 2 ** 32;
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** A whole number from `min` to `max`, both included. */
  whole(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  between(min: number, max: number): number {
    return min + this.next() * (max - min);
  }

  pick<T>(from: readonly T[]): T {
    const picked = from[Math.floor(this.next() * from.length)];
    if (picked === undefined) throw new RangeError('nothing to pick from');
    return picked;
  }
}

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
