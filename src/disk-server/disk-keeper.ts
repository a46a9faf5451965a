/**
 * Keeps the disk open: opens it, tries again every second while it cannot be opened, and closes and opens it again when it
 * has gone, holds its operations, or a sync has failed.
 *
 *     new ── start ──▶ opening ── opened ──▶ open ── sync failed, disk gone or suspended ──▶ draining
 *                      ▲     │ refused                                                          │ operations ended, disk closed
 *                      │     ▼                                                                  │
 *                      ├── waiting (1 s) ◀── opened again less than 1 s ago ────────────────────┤
 *                      └────────────────────────────────────────────────────────────────────────┘
 *     any ── stop ──▶ stopping ──▶ stopped
 *
 * A disk that opens well and then fails again and again is thus opened about once a second, not in a loop. One that is suspended
 * keeps its operations in the kernel, whatever their clients have been told: it is opened anew only when the last has come back, so
 * that nothing of the new life is overtaken by anything of the old one.
 *
 * S5  a failed sync ends the life of the disk: no new operation, those in progress finish, then comes a new instance id
 * S6  stopping: no new operation, those in progress finish (for a limited time), the disk is closed
 */
import { assert } from '../base/assert.js';
import type { Channel } from '../base/channel.js';
import type { Clock, Timer } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import { within } from '../base/within.js';
import type { Disk } from '../disk/disk.js';
import { DiskLife } from './disk-life.js';
import type { WatchLimits } from './suspension-watch.js';

/** Opens the disk. Rejects with a Failure that says why it cannot be opened now. It may take as long as it likes. */
export type DiskOpener = () => Promise<Disk>;

export type DiskEvent =
  | { readonly is: 'opened'; readonly sizeBytes: number; readonly readOnly: boolean; readonly instance: string }
  /** It cannot be opened, and is tried again and again. Once for each reason. */
  | { readonly is: 'waiting'; readonly reason: string }
  /** A sync failed: what was not durable may be lost, and whoever has a copy must write it again. */
  | { readonly is: 'sync-failed'; readonly reason: string }
  | { readonly is: 'lost'; readonly reason: string };

export interface KeeperLimits {
  readonly retryDelayMs: number;
  /** After that the first attempt counts as over, though the opener may still be at it. */
  readonly firstAttemptMs: number;
  /** After that an attempt counts as one that does not come back, and is said to be so. */
  readonly slowOpenMs: number;
  /** How long a stop waits for operations in progress. */
  readonly stopWaitMs: number;
  /** How long a stop waits for the disk to close. */
  readonly closeWaitMs: number;
  /** When a disk that can be suspended is asked whether it is, because an operation has not come back. */
  readonly suspension: WatchLimits;
}

export interface KeeperOptions {
  readonly clock: Clock;
  readonly openDisk: DiskOpener;
  /** A new id at each call: 1 to 64 characters of [A-Za-z0-9_-]. */
  readonly newInstance: () => string;
  readonly limits: KeeperLimits;
  readonly events: Channel<DiskEvent>;
  /** Runs when the disk has just ceased to be open: what has not started yet must not start any more. */
  readonly onUnavailable: () => void;
}

type State =
  | { readonly at: 'new' }
  | { readonly at: 'opening'; readonly reason: string }
  | { readonly at: 'waiting'; readonly reason: string; readonly timer: Timer }
  | { readonly at: 'open'; readonly life: DiskLife }
  | { readonly at: 'draining'; readonly life: DiskLife; readonly reason: string; readonly closed: Promise<void> }
  | { readonly at: 'stopping'; readonly stopped: Promise<Stopped> };

/** What had happened when the time was over. */
export interface Stopped {
  /** Operations that were still in progress. */
  readonly unfinished: number;
  /** The disk is closed, or was not open. Closing writes what is in the page cache, so it can hang as writes can. */
  readonly closed: boolean;
}

export class DiskKeeper {
  readonly #options: KeeperOptions;
  #state: State = { at: 'new' };
  #firstAttemptOver: () => void = () => {};
  #lastReason: string | undefined;
  /** When a disk that had gone was last opened again without a pause, in the clock's time. */
  #reopenedMs = Number.NEGATIVE_INFINITY;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** The open disk; undefined: there is none at the moment. */
  get life(): DiskLife | undefined {
    return this.#state.at === 'open' ? this.#state.life : undefined;
  }

  /** Why there is no open disk. */
  refusal(): Failure {
    const state = this.#state;
    switch (state.at) {
      case 'new':
        return new Failure('unavailable', 'the server is starting');
      case 'opening':
      case 'waiting':
      case 'draining':
        return new Failure('unavailable', `the disk is not open: ${state.reason}`);
      case 'stopping':
        return new Failure('unavailable', 'the server is stopping');
      case 'open':
        return new Failure('unavailable', 'the disk was opened anew');
    }
  }

  /** Resolves when the first attempt to open the disk is over, however it ended. */
  start(): Promise<void> {
    assert(this.#state.at === 'new', 'started once');
    const { clock, limits } = this.#options;
    const over = new Promise<void>((resolve) => {
      this.#firstAttemptOver = resolve;
    });
    this.#attempt('it is being opened');
    return within(clock, limits.firstAttemptMs, over).then(() => {});
  }

  /** S6. Resolves within the limits, whatever the disk does. Idempotent. */
  stop(): Promise<Stopped> {
    const state = this.#state;
    if (state.at === 'stopping') return state.stopped;
    const stopped = this.#stopFrom(state);
    this.#state = { at: 'stopping', stopped };
    this.#firstAttemptOver();
    this.#options.onUnavailable();
    return stopped;
  }

  /** The disk behind `life` has gone: closes it, and waits for its return. */
  lost(life: DiskLife, failure: Failure): void {
    this.#leave(life, { is: 'lost', reason: failure.message });
  }

  #attempt(reason: string): void {
    const { clock, limits, openDisk } = this.#options;
    this.#state = { at: 'opening', reason };
    const slow = clock.after(limits.slowOpenMs, () => this.#tellSlow());
    openDisk()
      .finally(() => slow.cancel())
      .then(
        (disk) => this.#opened(disk),
        (error: unknown) => this.#refused(asFailure(error)),
      );
  }

  #tellSlow(): void {
    if (this.#state.at !== 'opening') return;
    const reason = 'the kernel has not opened it yet';
    this.#state = { at: 'opening', reason };
    this.#tellWaiting(reason);
  }

  /** Once for each state. */
  #tellWaiting(reason: string): void {
    if (reason !== this.#lastReason) this.#options.events.publish({ is: 'waiting', reason });
    this.#lastReason = reason;
  }

  #opened(disk: Disk): void {
    const { clock, newInstance, limits, events } = this.#options;
    const life: DiskLife = new DiskLife(disk, newInstance(), {
      ...{ clock, suspension: limits.suspension },
      onSyncFailure: (failure) => this.#syncFailed(life, failure),
      onSuspension: (failure) => this.lost(life, failure),
    });
    if (this.#state.at !== 'opening') {
      void life.close();
      return;
    }
    this.#state = { at: 'open', life };
    this.#lastReason = undefined;
    events.publish({ is: 'opened', sizeBytes: life.sizeBytes, readOnly: life.readOnly, instance: life.instance });
    this.#firstAttemptOver();
  }

  #refused(failure: Failure): void {
    if (this.#state.at !== 'opening') return;
    this.#wait(failure.message);
    this.#tellWaiting(failure.message);
    this.#firstAttemptOver();
  }

  #wait(reason: string): void {
    const { clock, limits } = this.#options;
    this.#state = { at: 'waiting', reason, timer: clock.after(limits.retryDelayMs, () => this.#attempt(reason)) };
  }

  /** S5. */
  #syncFailed(life: DiskLife, failure: Failure): void {
    this.#leave(life, { is: 'sync-failed', reason: failure.message });
  }

  #leave(life: DiskLife, event: DiskEvent & { readonly reason: string }): void {
    if (this.#state.at !== 'open' || this.#state.life !== life) return;
    const { reason } = event;
    const closed = life.idle().then(() => life.close());
    this.#state = { at: 'draining', life, reason, closed };
    void closed.then(() => this.#drained(life, reason));
    this.#options.events.publish(event);
    this.#options.onUnavailable();
  }

  #drained(life: DiskLife, reason: string): void {
    if (this.#state.at !== 'draining' || this.#state.life !== life) return;
    const { clock, limits } = this.#options;
    const nowMs = clock.nowMs();
    if (nowMs - this.#reopenedMs < limits.retryDelayMs) return this.#wait(reason);
    this.#reopenedMs = nowMs;
    this.#attempt(reason);
  }

  async #stopFrom(state: State): Promise<Stopped> {
    if (state.at === 'waiting') state.timer.cancel();
    if (state.at !== 'open' && state.at !== 'draining') return { unfinished: 0, closed: true };
    const { clock, limits } = this.#options;
    const { life } = state;
    await within(clock, limits.stopWaitMs, life.idle());
    const unfinished = life.running;
    const closing = state.at === 'draining' ? state.closed : life.close();
    // It cannot be closed before they come back.
    if (unfinished > 0) return { unfinished, closed: false };
    return { unfinished, closed: await within(clock, limits.closeWaitMs, closing) };
  }
}
