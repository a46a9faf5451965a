/**
 * Notices that the disk keeps its operations until somebody decides (DRBD: suspended I/O).
 *
 *     resting ── an operation begins ──▶ looking ── the oldest one is the same as a look ago ──▶ asking ── it is suspended ──▶ over
 *        ▲                                │  ▲                                                     │
 *        └──── none is in progress ───────┘  └────────────── it is not, or it came back ───────────┘
 *
 * Promise: an operation costs nothing here. There is one timer at most, and none for long while nothing is in progress. The disk is
 * asked at most once a look, and only when one operation has been in progress from one look to the next.
 */
import type { Clock } from '../base/clock.js';

export interface WatchOptions {
  readonly clock: Clock;
  readonly lookMs: number;
  /** What is in progress, in the order in which it began. */
  readonly users: ReadonlySet<object>;
  /** Why the disk is suspended; undefined: it is not. Never rejects. */
  readonly ask: () => Promise<string | undefined>;
  /** Called once. */
  readonly suspended: (reason: string) => void;
}

export class SuspensionWatch {
  readonly #options: WatchOptions;
  #resting = true;
  /** The one that had been in progress for longest, when it was looked last. */
  #oldest: object | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  begun(user: object): void {
    if (!this.#resting) return;
    this.#resting = false;
    this.#oldest = user;
    this.#lookLater();
  }

  #lookLater(): void {
    const { clock, lookMs } = this.#options;
    clock.after(lookMs, () => this.#look());
  }

  #look(): void {
    const [oldest] = this.#options.users;
    if (oldest !== undefined && oldest === this.#oldest) return void this.#ask(oldest);
    this.#oldest = oldest;
    if (oldest === undefined) this.#resting = true;
    else this.#lookLater();
  }

  async #ask(oldest: object): Promise<void> {
    const { ask, users, suspended } = this.#options;
    const reason = await ask();
    if (reason === undefined || !users.has(oldest)) this.#lookLater();
    else suspended(reason);
  }
}
