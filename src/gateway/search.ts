/**
 * Finds a server: probes the list in order, the next one as soon as the one before has failed or has been silent for a
 * moment, so that a dead host costs no more than that moment.
 * Promise: at most one probe of each server at a time, each bounded in time; the first acceptable server wins and all other probes
 * are given up. A second-best one (read-only, where writing is wanted) wins only when the whole round found nothing better.
 */
import type { Channel } from '../base/channel.js';
import type { Clock, Timer } from '../base/clock.js';
import { asFailure, type Failure } from '../base/failure.js';
import { Attachment } from './attachment.js';
import type { Backend, Probe } from './backend.js';
import type { GatewayEvent } from './events.js';

/** How a probed server is judged. */
export type Verdict =
  | { readonly use: 'yes' }
  | { readonly use: 'second-best' }
  | { readonly use: 'no'; readonly reason: string };

export interface SearchOptions {
  readonly clock: Clock;
  /** How long one probe may take, milliseconds. */
  readonly probeTimeoutMs: number;
  readonly judge: (probe: Probe, backend: Backend) => Verdict;
  /** Hears of each probe that has failed. */
  readonly missed: (failure: Failure) => void;
  readonly events: Channel<GatewayEvent>;
}

/** How long a probe may be silent before the next server is tried beside it. */
const headStartMs = 300;
/** Pause between two rounds that found nothing: doubles from the first to the last. */
const pauseMinMs = 50;
const pauseMaxMs = 1000;

export class Search {
  readonly #order: readonly Backend[];
  readonly #options: SearchOptions;
  readonly #found: (attachment: Attachment) => void;
  readonly #outstanding = new Set<Backend>();
  /** The last thing said of each server: a state is logged once, not once a round. */
  readonly #said = new Map<Backend, string>();
  #next = 0;
  #secondBest: Attachment | undefined;
  #pauseMs = pauseMinMs;
  #timer: Timer | undefined;
  #over = false;

  /** Searches until it calls `found`, once, or is cancelled. `order`: the servers, the most promising first. */
  constructor(order: readonly Backend[], options: SearchOptions, found: (attachment: Attachment) => void) {
    this.#order = order;
    this.#options = options;
    this.#found = found;
    // Later, so that whoever starts the gateway can subscribe to its events first.
    queueMicrotask(() => {
      if (!this.#over) this.#probeNext();
    });
  }

  cancel(): void {
    this.#over = true;
    this.#timer?.cancel();
    for (const backend of this.#outstanding) backend.abandon();
    this.#outstanding.clear();
  }

  #probeNext(): void {
    this.#timer?.cancel();
    const backend = this.#order[this.#next];
    if (backend === undefined) {
      if (this.#outstanding.size === 0) this.#endRound();
      return;
    }
    this.#next += 1;
    if (!this.#said.has(backend)) this.#options.events.publish({ type: 'trying', server: backend.name });
    this.#outstanding.add(backend);
    this.#probe(backend);
    if (!this.#over) this.#timer = this.#options.clock.after(headStartMs, () => this.#probeNext());
  }

  #probe(backend: Backend): void {
    const { clock, probeTimeoutMs } = this.#options;
    let timedOut = false;
    const limit = clock.after(probeTimeoutMs, () => {
      timedOut = true;
      backend.abandon();
    });
    backend.probe().then(
      (probe) => {
        limit.cancel();
        if (this.#outstanding.delete(backend) && !this.#over) this.#judge(backend, probe);
      },
      (error: unknown) => {
        limit.cancel();
        const failure = asFailure(error);
        if (!this.#outstanding.delete(backend) || this.#over) return;
        const reason = timedOut ? `no answer within ${probeTimeoutMs / 1000} s` : failure.message;
        this.#say(backend, { type: 'probe-failed', server: backend.name, reason });
        this.#options.missed(failure);
        this.#probeNext();
      },
    );
  }

  #judge(backend: Backend, probe: Probe): void {
    const verdict = this.#options.judge(probe, backend);
    if (verdict.use === 'yes') return this.#win(new Attachment(backend, probe));
    if (verdict.use === 'second-best') {
      if (this.#secondBest === undefined) this.#secondBest = new Attachment(backend, probe);
      else backend.abandon();
    } else {
      backend.abandon();
      this.#say(backend, { type: 'refused', server: backend.name, reason: verdict.reason });
    }
    this.#probeNext();
  }

  #endRound(): void {
    if (this.#secondBest !== undefined) return this.#win(this.#secondBest);
    this.#next = 0;
    this.#timer = this.#options.clock.after(this.#pauseMs, () => this.#probeNext());
    this.#pauseMs = Math.min(this.#pauseMs * 2, pauseMaxMs);
  }

  #win(attachment: Attachment): void {
    if (this.#secondBest !== undefined && this.#secondBest !== attachment) this.#secondBest.backend.abandon();
    this.cancel();
    this.#found(attachment);
  }

  #say(backend: Backend, event: Extract<GatewayEvent, { reason: string }>): void {
    if (this.#said.get(backend) === event.reason) return;
    this.#said.set(backend, event.reason);
    this.#options.events.publish(event);
  }
}
