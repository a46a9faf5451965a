/**
 * Keeps a write from landing late when the whole process was stopped between the write's check and its system call
 * (docs/failover.md, rule S8): then the process must end without running again, and only the kernel can see to that.
 *
 * S8  from the check of a stamped write until its system call has certainly begun, a timer of the kernel is set that kills this
 *     process at the write's deadline + {@link killAfterMs}, or earlier
 *
 * Why that is enough: nobody writes the same bytes elsewhere before the deadline + 1000 ms (the gateway's landing margin, rule
 * G5). Of these the timer takes the first half; the other half is for a thread that goes on just before the timer would have
 * ended it, and for the disk.
 *
 * When a system call has certainly begun: a thread was free when it was handed over, so the thread starts as soon as it gets a
 * processor. The event loop has then run at {@link looksMax} looks, 200 ms from the first to the last, each in a turn of its
 * own: the process was not stopped all the time. Time alone proves nothing: it passes while the process is stopped, too.
 * So a disk that is slow for seconds ends nobody; a process that does not run is ended only when a deadline is over.
 */
import type { Clock } from '../base/clock.js';

export const killAfterMs = 500;
const lookMs = 100;
/** The last one must be possible before the timer strikes, also for a write that was checked just before its deadline. */
const looksMax = 3;

/** Kills this process, even if it is stopped. */
export interface KillTimer {
  /** When, in the time of the server's clock; in place of what was set before. Undefined: not at all. */
  set(atMs: number | undefined): void;
}

/** For where the kernel has no such timer, and for tests. */
export const noKillTimer: KillTimer = { set: () => {} };

/** A write that is on its way into the kernel. */
interface Passage {
  readonly deadlineMs: number;
  looks: number;
}

export class Fence {
  readonly #clock: Clock;
  readonly #timer: KillTimer;
  readonly #passing = new Map<object, Passage>();
  #killAtMs: number | undefined;
  #looking = false;

  constructor(clock: Clock, timer: KillTimer) {
    this.#clock = clock;
    this.#timer = timer;
  }

  /**
   * `write` has been checked, its deadline is ahead, and (a piece of) it is about to be handed to a thread. `set`: the timer has been set just
   * now, and the check must be made once more. Costs a system call once in a hundred milliseconds.
   */
  enter(write: object, deadlineMs: number): 'set' | 'was-set' {
    this.#passing.set(write, { deadlineMs, looks: 0 });
    if (!this.#looking) this.#lookLater();
    const killAtMs = deadlineMs + killAfterMs;
    if (this.#killAtMs !== undefined && this.#killAtMs <= killAtMs) return 'was-set';
    this.#set(killAtMs);
    return 'set';
  }

  /** Nothing of `write` is in a thread any more. */
  leave(write: object): void {
    this.#passing.delete(write);
  }

  #lookLater(): void {
    this.#looking = true;
    this.#clock.after(lookMs, () => this.#look());
  }

  #look(): void {
    this.#looking = false;
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const [write, passage] of this.#passing) {
      passage.looks++;
      if (passage.looks >= looksMax) this.#passing.delete(write);
      else earliestMs = Math.min(earliestMs, passage.deadlineMs);
    }
    const killAtMs = this.#passing.size === 0 ? undefined : earliestMs + killAfterMs;
    if (killAtMs !== this.#killAtMs) this.#set(killAtMs);
    if (this.#passing.size > 0) this.#lookLater();
  }

  #set(atMs: number | undefined): void {
    this.#killAtMs = atMs;
    this.#timer.set(atMs);
  }
}
