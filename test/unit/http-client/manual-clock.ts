/** A clock that the test moves. */
import type { Clock, Timer } from '../../../src/base/clock.js';

export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Map<object, { atMs: number; run: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): Timer {
    const key = {};
    this.#timers.set(key, { atMs: this.#nowMs + delayMs, run });
    return { cancel: () => void this.#timers.delete(key) };
  }

  /** Timers run in the order in which they are due; those that they set run too, if they are due by then. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const [next] = [...this.#timers].sort(([, a], [, b]) => a.atMs - b.atMs);
      if (next === undefined || next[1].atMs > untilMs) break;
      this.#timers.delete(next[0]);
      this.#nowMs = next[1].atMs;
      next[1].run();
    }
    this.#nowMs = untilMs;
  }
}
