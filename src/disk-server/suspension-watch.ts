/**
 * Notices that the disk keeps its operations until somebody decides (DRBD: suspended I/O).
 *
 *     resting ── an operation begins ──▶ looking ── the oldest one is the same for `patienceMs` ──▶ asking ── it is suspended ──▶ over
 *        ▲                                │  ▲                                                       │
 *        └──── none is in progress ───────┘  └───────────── it is not, or the oldest came back ──────┘
 *
 * Who is about to tell others that the disk is well asks, too: {@link SuspensionWatch.check}.
 *
 * Promise: an operation costs nothing here. There is one timer at most, and none for long while nothing is in progress. There is one
 * question at a time. While operations come back the disk is not asked because of them, and while one is merely slow less and less often.
 */
import type { Clock } from '../base/clock.js';

export interface WatchLimits {
  /** How long an operation may take before the disk is asked for the first time, which is at most half as much later. */
  readonly patienceMs: number;
  /** The pause until it is asked again is twice as long each time, up to this. */
  readonly pauseMsMax: number;
}

export interface WatchOptions extends WatchLimits {
  readonly clock: Clock;
  /** What is in progress, in the order in which it began. */
  readonly users: ReadonlySet<object>;
  /** Why the disk is suspended; undefined: it is not. Never rejects. */
  readonly ask: () => Promise<string | undefined>;
  /** Called once. */
  readonly suspended: (reason: string) => void;
}

export class SuspensionWatch {
  readonly #options: WatchOptions;
  #state: 'resting' | 'looking' | 'over' = 'resting';
  /** The one that had been in progress for longest, when it was looked last. */
  #oldest: object | undefined;
  /** Since when it is known. */
  #oldestSinceMs = 0;
  #question: Promise<void> | undefined;
  #askedMs = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  begun(user: object): void {
    if (this.#state !== 'resting') return;
    this.#state = 'looking';
    this.#see(user);
    this.#lookLater();
  }

  /** Asks now. Resolves when the answer is there, and has had its consequences. */
  check(): Promise<void> {
    return this.#question ?? this.#ask(undefined);
  }

  #see(oldest: object | undefined): void {
    const nowMs = this.#options.clock.nowMs();
    this.#oldest = oldest;
    this.#oldestSinceMs = nowMs;
    if (nowMs - this.#askedMs >= this.#options.pauseMsMax) this.#pauseMs = this.#options.patienceMs;
  }

  #lookLater(): void {
    const { clock, patienceMs } = this.#options;
    clock.after(patienceMs / 2, () => this.#look());
  }

  #look(): void {
    if (this.#state === 'over') return;
    const [oldest] = this.#options.users;
    if (oldest !== this.#oldest) this.#see(oldest);
    if (oldest === undefined) {
      this.#state = 'resting';
      return;
    }
    if (this.#question === undefined && this.#isDue()) void this.#ask(oldest);
    this.#lookLater();
  }

  #isDue(): boolean {
    const { clock, patienceMs } = this.#options;
    const nowMs = clock.nowMs();
    return nowMs - this.#oldestSinceMs >= patienceMs && nowMs - this.#askedMs >= this.#pauseMs;
  }

  /** `doubted`: the operation for whose sake it is asked. Its return shows that the disk is not suspended any more. */
  #ask(doubted: object | undefined): Promise<void> {
    const { ask, clock, pauseMsMax, suspended, users } = this.#options;
    const asked = async () => {
      const reason = await ask();
      this.#question = undefined;
      this.#askedMs = clock.nowMs();
      if (doubted !== undefined) this.#pauseMs = Math.min(2 * this.#pauseMs, pauseMsMax);
      if (this.#state === 'over' || reason === undefined) return;
      if (doubted !== undefined && !users.has(doubted)) return;
      this.#state = 'over';
      suspended(reason);
    };
    this.#question = asked();
    return this.#question;
  }
}
