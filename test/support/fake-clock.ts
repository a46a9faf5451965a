/**
 * A clock that stands still until a test moves it.
 * Promise: timers run in the order of their times (of their making, if those are equal), each at exactly its time, unless that was
 * skipped.
 */
import type { Clock, Timer } from '../../src/base/clock.js';

interface Entry {
  readonly atMs: number;
  readonly run: () => void;
}

export class FakeClock implements Clock {
  #nowMs: number;
  readonly #entries = new Set<Entry>();

  constructor(nowMs = 1000) {
    this.#nowMs = nowMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  /** Timers that are set. */
  get timers(): number {
    return this.#entries.size;
  }

  after(delayMs: number, run: () => void): Timer {
    const entry: Entry = { atMs: this.#nowMs + Math.max(0, delayMs), run };
    this.#entries.add(entry);
    return { cancel: () => void this.#entries.delete(entry) };
  }

  /** Lets `ms` milliseconds pass; what promises set off between two timers happens before the second. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await settled();
    for (let entry = this.#next(untilMs); entry !== undefined; entry = this.#next(untilMs)) {
      this.#nowMs = Math.max(this.#nowMs, entry.atMs);
      this.#entries.delete(entry);
      entry.run();
      await settled();
    }
    this.#nowMs = untilMs;
  }

  /** Time passes, and nothing happens: nobody runs. Then what was due is late. */
  skip(ms: number): void {
    this.#nowMs += ms;
  }

  #next(untilMs: number): Entry | undefined {
    let first: Entry | undefined;
    for (const entry of this.#entries) {
      if (entry.atMs <= untilMs && (first === undefined || entry.atMs < first.atMs)) first = entry;
    }
    return first;
  }
}

/** Resolves when every promise that could settle by itself has done so. */
export function settled(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}
