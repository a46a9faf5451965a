/**
 * What a predecessor of this process left behind (failover rules T3 and T5): writes that may still land somewhere, and acknowledged
 * writes that are not durable.
 * Promises: no write goes to a server while one of the predecessor may still land on another; nothing at all is done before what it had
 * acknowledged is durable. If that cannot be had any more it is `lost`, and stays so.
 */
import { Failure } from '../base/failure.js';
import { Attachment, type Hazard, isOver } from './attachment.js';
import type { Backend, Probe } from './backend.js';
import type { LedgerEntry } from './ledger.js';
import type { Verdict } from './search.js';

export interface InheritedServer {
  readonly server: string;
  readonly endpoint: string | undefined;
  readonly instance: string | undefined;
  /** How long ago the predecessor chose another one, milliseconds; 0: it used this one to its end. */
  readonly leftMsAgo: number;
}

export interface Inheritance {
  /** The last one in use comes first. */
  readonly servers: readonly InheritedServer[];
  readonly unflushed: LedgerEntry['unflushed'];
}

/** The longest deadline that a server accepts (Dmax of the failover protocol). */
const deadlineAheadMsMax = 60_000;

type Unflushed =
  | { readonly at: 'none' }
  | { readonly at: 'instance'; readonly holder: Attachment }
  | { readonly at: 'lost' };

export class Inherited {
  readonly hazards: readonly Hazard[];
  readonly #marginMs: number;
  readonly #onLost: () => void;
  #unflushed: Unflushed;

  /**
   * `backend`: any. `marginMs`: the longest time between a server's check of a write and the end of that write.
   * `onLost`: acknowledged writes are gone; called once, at the earliest when {@link start} is.
   */
  constructor(
    { servers, unflushed }: Inheritance,
    backend: Backend,
    nowMs: number,
    marginMs: number,
    onLost: (server: string) => void,
  ) {
    const standIns = servers.map((server) => standIn(server, backend, nowMs));
    this.hazards = servers.flatMap(({ instance, leftMsAgo }, place) => {
      const attachment = standIns[place];
      // Without sessions nothing can be known (rule G12).
      if (instance === undefined || attachment === undefined) return [];
      return { attachment, deadlineMs: deadlineAheadMsMax - leftMsAgo };
    });
    this.#marginMs = marginMs;
    this.#onLost = () => onLost(servers[0]?.server ?? 'no server');
    const [holder] = standIns;
    if (unflushed === 'none' || (unflushed === 'instance' && holder?.instance === undefined)) {
      this.#unflushed = { at: 'none' };
    } else if (unflushed === 'instance' && holder !== undefined) this.#unflushed = { at: 'instance', holder };
    else this.#unflushed = { at: 'lost' };
  }

  start(): void {
    if (this.#unflushed.at === 'lost') this.#onLost();
  }

  /** Whether a commit must come before anything else. */
  get needsCommit(): boolean {
    return this.#unflushed.at === 'instance';
  }

  /** Acknowledged writes are not known to be durable: a commit must come first, or can never come any more. */
  get owesCommit(): boolean {
    return this.#unflushed.at !== 'none';
  }

  /** Nothing is to be waited for any more. */
  isOver(nowMs: number): boolean {
    return this.#unflushed.at !== 'instance' && this.hazards.every((hazard) => this.#isOver(hazard, nowMs));
  }

  /** Everything that the predecessor had acknowledged is durable. */
  committed(): void {
    this.#unflushed = { at: 'none' };
  }

  /** Rule T3. */
  mayWriteTo(attachment: Attachment, nowMs: number): boolean {
    return this.hazards.every((hazard) => hazard.attachment.isSameInstance(attachment) || this.#isOver(hazard, nowMs));
  }

  /** Servers whose death would let a write go, if writes go to `current`. */
  feared(current: Attachment | undefined, nowMs: number): Attachment[] {
    const feared = this.hazards.flatMap((hazard) =>
      this.#isOver(hazard, nowMs) || (current !== undefined && hazard.attachment.isSameInstance(current))
        ? []
        : hazard.attachment,
    );
    if (this.#unflushed.at === 'instance' && current === undefined) feared.push(this.#unflushed.holder);
    return feared;
  }

  /** The process of `server` is certainly gone. */
  died(server: Attachment): void {
    server.provenGone = true;
    if (this.#unflushed.at === 'instance' && this.#unflushed.holder === server) this.#lose();
  }

  /** No disk is open at `endpoint`: no instance that was there will ever commit again. */
  noDiskAt(endpoint: string): void {
    if (this.#unflushed.at === 'instance' && this.#unflushed.holder.endpoint === endpoint) this.#lose();
  }

  /** Rule T5: only the instance that holds what is not durable will do. Undefined: it is not for this to judge. */
  judge(backend: Backend, { description, endpoint }: Probe): Verdict | undefined {
    const unflushed = this.#unflushed;
    if (unflushed.at === 'none') return undefined;
    if (unflushed.at === 'instance') {
      const { holder } = unflushed;
      if (description.instance === holder.instance) return undefined;
      // A new life where the old one was.
      if (backend.name === holder.backend.name || (endpoint !== undefined && endpoint === holder.endpoint))
        this.#lose();
    }
    return { use: 'no', reason: 'another server has the writes that are not durable' };
  }

  #isOver(hazard: Hazard, nowMs: number): boolean {
    return isOver(hazard, nowMs, this.#marginMs);
  }

  #lose(): void {
    this.#unflushed = { at: 'lost' };
    this.#onLost();
  }
}

/**
 * The server as far as it is on record. Its clock is counted from now: no deadline of the predecessor's writes lies further ahead than the
 * longest that a server accepts.
 */
function standIn({ server, endpoint, instance }: InheritedServer, backend: Backend, nowMs: number): Attachment {
  const unused = new Failure('shutting-down');
  const absent: Backend = {
    name: server,
    refuses: (place) => backend.refuses(place),
    probe: () => Promise.reject(unused),
    send: (_request, _bytes, _into, completion) => queueMicrotask(() => completion.failed(unused)),
    abandon: () => {},
  };
  const description = {
    ...{ sizeBytes: 0, readOnly: false, features: new Set(['session'] as const), instance, clockMs: 0, endpoint },
    ...{ logicalBlockBytes: 512, physicalBlockBytes: 512 },
  };
  return new Attachment(absent, { description, sentAtMs: nowMs, receivedAtMs: nowMs, endpoint, oneAtATime: false });
}
