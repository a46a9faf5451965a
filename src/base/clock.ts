/**
 * Time, as the cores see it. Promise: nothing below `cli/` reads a clock or sets a timer in any other way,
 * so that the whole of it runs under a simulated clock.
 */

export interface Timer {
  /** Idempotent; a cancelled timer never runs. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds, fractional, from an arbitrary start; never goes back. */
  nowMs(): number;
  /** Runs `run` once, not before `delayMs` milliseconds from now. Does not keep the process alive. */
  after(delayMs: number, run: () => void): Timer;
}

/** Resolves after `delayMs` milliseconds of `clock`. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => void clock.after(delayMs, resolve));
}

/** CLOCK_MONOTONIC and the event loop's timers. It stands still while the machine is suspended. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(delayMs, run) {
    const timeout = setTimeout(run, delayMs);
    timeout.unref();
    return { cancel: () => clearTimeout(timeout) };
  },
};
