/**
 * Group commit: writes that end while a sync is in progress share the next one.
 *
 * S4  a sync covers only writes that had returned before it started: whoever joins during a sync waits for the next
 * S5  after a failed sync there is none any more: everyone who waits, and everyone who joins later, gets the failure
 */
import { asFailure, type Failure } from '../base/failure.js';

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (failure: Failure) => void;
}

/** Those who share one sync. */
type Batch = Waiter[];

type State =
  | { readonly at: 'idle' }
  | { readonly at: 'syncing'; readonly next: Batch }
  | { readonly at: 'failed'; readonly failure: Failure };

export class GroupCommit {
  readonly #sync: () => Promise<void>;
  readonly #onFailure: (failure: Failure) => void;
  #state: State = { at: 'idle' };

  /** `onFailure` runs once, before anyone who waits gets the failure. */
  constructor(sync: () => Promise<void>, onFailure: (failure: Failure) => void) {
    this.#sync = sync;
    this.#onFailure = onFailure;
  }

  /** Resolves when everything that was written before this call is durable. Rejects with a Failure. */
  durable(): Promise<void> {
    return new Promise((resolve, reject) => {
      const state = this.#state;
      if (state.at === 'failed') reject(state.failure);
      else if (state.at === 'syncing') state.next.push({ resolve, reject });
      else this.#start([{ resolve, reject }]);
    });
  }

  #start(batch: Batch): void {
    const next: Batch = [];
    this.#state = { at: 'syncing', next };
    this.#sync().then(
      () => this.#succeeded(batch, next),
      (error: unknown) => this.#failed([...batch, ...next], asFailure(error)),
    );
  }

  #succeeded(batch: Batch, next: Batch): void {
    for (const waiter of batch) waiter.resolve();
    if (next.length > 0) this.#start(next);
    else this.#state = { at: 'idle' };
  }

  #failed(waiters: Batch, failure: Failure): void {
    this.#state = { at: 'failed', failure };
    this.#onFailure(failure);
    for (const waiter of waiters) waiter.reject(failure);
  }
}
