/**
 * One disk operation on its way through the thread pool.
 *
 *     waiting ── a slot is free, last check passed ──▶ running ── the disk and the sync came back ──▶ over
 *        │ refused, time over                             │ time over, disk suspended
 *        └──────────▶ over                                └──────────▶ over, though the thread is still at it
 *
 * Promise: exactly one outcome, within the time limit. One that never started says so: certainly not applied.
 */
import { asFailure, Failure } from '../base/failure.js';
import type { TimeLimit } from '../base/time-limit.js';
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
  /** Tells {@link Operation.expire}. */
  readonly limit: TimeLimit<Operation>;
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
  #state: State = { at: 'waiting', withdraw: undefined };

  constructor(life: DiskLife, work: Work, context: OperationContext) {
    this.#life = life;
    this.#work = work;
    this.#context = context;
    context.limit.add(this);
  }

  /** It stands in a queue, unless it has started already; `withdraw` takes it out. */
  waitIn(withdraw: () => void): void {
    if (this.#state.at === 'waiting') this.#state = { at: 'waiting', withdraw };
  }

  /** A slot is free. `freed` is called when it is free again; false: the operation does not run. */
  start(freed: () => void): boolean {
    if (this.#state.at !== 'waiting') return false;
    const refusal = this.#work.check();
    if (refusal !== undefined) {
      this.refuse(refusal);
      return false;
    }
    this.#life.begin(this);
    this.#state = { at: 'running', end: this.#run(freed) };
    this.#context.left();
    return true;
  }

  /** Unless it has started, it must not start any more. */
  refuse(failure: Failure): void {
    const state = this.#state;
    if (state.at !== 'waiting') return;
    state.withdraw?.();
    this.#context.left();
    this.#end({ at: 'failed', failure, answer: this.#work.answer() });
  }

  /** The time is over. */
  expire(): void {
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

  /** Resolves when the disk has come back from everything. */
  async #run(freed: () => void): Promise<void> {
    let failure: Failure | undefined;
    try {
      await this.#work.run();
    } catch (error) {
      failure = asFailure(error);
    }
    this.#work.ended();
    const committed = failure === undefined ? this.#work.commit?.() : undefined;
    freed();
    try {
      await committed;
    } catch (error) {
      failure = asFailure(error);
    }
    const explained = failure === undefined ? undefined : this.#work.explain(failure);
    this.#life.end(this);
    if (this.#state.at === 'over') return;
    const answer = this.#work.answer();
    this.#end(explained === undefined ? { at: 'done', answer } : { at: 'failed', failure: explained, answer });
  }

  #end(outcome: Outcome): void {
    this.#state = { at: 'over' };
    this.#context.limit.delete(this);
    this.#context.settle(outcome);
  }
}
