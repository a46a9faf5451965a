/**
 * One disk operation on its way through the thread pool.
 *
 *     waiting ── a slot is free, last check passed ──▶ running ── the disk and the sync came back ──▶ over
 *        │ refused, time over                             │ time over, disk suspended
 *        └──────────▶ over                                └──────────▶ over, though the thread is still at it
 *
 * Promise: exactly one outcome, within the time limit. One that never started says so: certainly not applied.
 */
import type { Clock, Timer } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import type { DiskAnswer } from '../http-disk/messages.js';
import type { DiskLife, DiskUser } from './disk-life.js';
import type { Outcome } from './outcome.js';

/** What an operation does. */
export interface Work {
  /** Immediately before it starts; a failure is the outcome, and it does not start. */
  check(): Failure | undefined;
  /** Occupies a slot until it settles. Rejects with a Failure. */
  run(): Promise<void>;
  /** After that, without a slot: the sync. */
  readonly commit: (() => Promise<void>) | undefined;
  /** It is given up while it runs: what of it has not begun is left undone. */
  expire(): void;
  /** The disk has come back from `run`, however it ended. */
  ended(): void;
  /** What the client is told of a failure of `run` or `commit`, or of the disk meanwhile. */
  explain(failure: Failure): Failure;
  /** What the client is told when the time is over while it runs. */
  readonly late: 'unavailable' | 'timed-out';
  answer(): DiskAnswer;
}

export interface OperationContext {
  readonly clock: Clock;
  readonly limitMs: number;
  /** It does not wait any more: it has started, or is over. */
  readonly left: () => void;
  /** Called once. */
  readonly settle: (outcome: Outcome) => void;
}

type State =
  | { readonly at: 'waiting'; readonly withdraw: (() => void) | undefined }
  | { readonly at: 'running'; readonly end: Promise<void> }
  | { readonly at: 'over' };

export class Operation implements DiskUser {
  readonly #life: DiskLife;
  readonly #work: Work;
  readonly #context: OperationContext;
  readonly #timer: Timer;
  #state: State = { at: 'waiting', withdraw: undefined };

  constructor(life: DiskLife, work: Work, context: OperationContext) {
    this.#life = life;
    this.#work = work;
    this.#context = context;
    this.#timer = context.clock.after(context.limitMs, () => this.#expire());
  }

  /** It stands in a queue, unless it has started already; `withdraw` takes it out. */
  waitIn(withdraw: () => void): void {
    if (this.#state.at === 'waiting') this.#state = { at: 'waiting', withdraw };
  }

  /** A slot is free. The promise resolves when it is free again; undefined: the operation does not run. */
  start(): Promise<void> | undefined {
    if (this.#state.at !== 'waiting') return undefined;
    const refusal = this.#work.check();
    if (refusal !== undefined) {
      this.refuse(refusal);
      return undefined;
    }
    this.#life.begin(this);
    const ran = this.#run();
    const end = ran.then((failure) => this.#commit(failure));
    this.#state = { at: 'running', end };
    this.#context.left();
    return ran.then(() => {});
  }

  /** Unless it has started, it must not start any more. */
  refuse(failure: Failure): void {
    const state = this.#state;
    if (state.at !== 'waiting') return;
    state.withdraw?.();
    this.#context.left();
    this.#end({ at: 'failed', failure, answer: this.#work.answer() });
  }

  #expire(): void {
    const state = this.#state;
    if (state.at === 'waiting') this.refuse(new Failure('unavailable', 'the disk is busy'));
    if (state.at === 'running') this.#giveUp(state.end, new Failure(this.#work.late, 'the disk does not answer'));
  }

  /** The disk does not come back from it for now: the client is told so at once. */
  abandon(failure: Failure): void {
    const state = this.#state;
    if (state.at === 'running') this.#giveUp(state.end, this.#work.explain(failure));
  }

  #giveUp(stillRunning: Promise<void>, failure: Failure): void {
    this.#work.expire();
    this.#end({ at: 'failed', failure, answer: this.#work.answer(), stillRunning });
  }

  /** Resolves with the failure, if it is one. */
  async #run(): Promise<Failure | undefined> {
    try {
      await this.#work.run();
      return undefined;
    } catch (error) {
      return asFailure(error);
    } finally {
      this.#work.ended();
    }
  }

  async #commit(runFailure: Failure | undefined): Promise<void> {
    const failure = runFailure ?? (await this.#committed());
    const explained = failure === undefined ? undefined : this.#work.explain(failure);
    this.#life.end(this);
    if (this.#state.at === 'over') return;
    const answer = this.#work.answer();
    this.#end(explained === undefined ? { at: 'done', answer } : { at: 'failed', failure: explained, answer });
  }

  async #committed(): Promise<Failure | undefined> {
    try {
      await this.#work.commit?.();
      return undefined;
    } catch (error) {
      return asFailure(error);
    }
  }

  #end(outcome: Outcome): void {
    this.#state = { at: 'over' };
    this.#timer.cancel();
    this.#context.settle(outcome);
  }
}
