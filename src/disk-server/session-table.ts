/**
 * The sessions that this server knows: their epochs, and their writes in progress (docs/failover.md, rules S1 to S3).
 *
 * S1 (epoch)  a write is refused when its session is known with a higher epoch
 * S2          no write of an epoch starts while one of a lower epoch of that session is between its check and its end
 * S3          an unknown session is accepted and remembered; it is forgotten only `memoryMs` after its last request;
 *             at the bound new ones are refused, and none is evicted
 *
 * Since an older epoch is refused from the moment a newer one is seen, all writes in progress of a session have one epoch.
 */
import { assert } from '../base/assert.js';
import type { Epoch } from '../http-disk/messages.js';

interface Session {
  /** The highest that was seen. */
  epoch: Epoch;
  lastRequestMs: number;
  writing: { readonly epoch: Epoch; count: number } | undefined;
  /** Writes of the highest epochs that wait for the end of `writing` (S2). */
  readonly waiting: Set<() => void>;
}

export type Admission = 'admitted' | 'stale-epoch' | 'table-full';

export class SessionTable {
  readonly #memoryMs: number;
  readonly #sessionsMax: number;
  /** In the order of their last requests. */
  readonly #sessions = new Map<string, Session>();
  /** The last in that order. */
  #latest: Session | undefined;

  constructor(limits: { readonly memoryMs: number; readonly sessionsMax: number }) {
    this.#memoryMs = limits.memoryMs;
    this.#sessionsMax = limits.sessionsMax;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** A write of `session` has arrived: whether its epoch still holds. A higher epoch than before makes all lower ones stale. */
  admit(name: string, epoch: Epoch, nowMs: number): Admission {
    const session = this.#sessions.get(name);
    if (session === undefined) return this.#remember(name, epoch, nowMs) ? 'admitted' : 'table-full';
    session.lastRequestMs = nowMs;
    if (session !== this.#latest) this.#moveToEnd(name, session);
    if (isBelow(epoch, session.epoch)) return 'stale-epoch';
    session.epoch = epoch;
    return 'admitted';
  }

  /** S1, immediately before a write that was admitted is applied. */
  isStale(name: string, epoch: Epoch): boolean {
    const session = this.#sessions.get(name);
    return session !== undefined && isBelow(epoch, session.epoch);
  }

  /** S2: whether writes of a lower epoch are in progress. If so, `retry` is called once when they have ended. */
  waitsForLower(name: string, epoch: Epoch, retry: () => void): boolean {
    const session = this.#sessions.get(name);
    if (session?.writing === undefined || !isBelow(session.writing.epoch, epoch)) return false;
    session.waiting.add(retry);
    return true;
  }

  /** The write behind `retry` has been given up. */
  stopWaiting(name: string, retry: () => void): void {
    this.#sessions.get(name)?.waiting.delete(retry);
  }

  /** A write has passed its last check and is being applied from now on. */
  begin(name: string, epoch: Epoch): void {
    const session = this.#sessions.get(name);
    assert(session !== undefined, 'a session is remembered for as long as its writes can pass their check');
    session.writing ??= { epoch, count: 0 };
    assert(
      !isBelow(session.writing.epoch, epoch) && !isBelow(epoch, session.writing.epoch),
      'one epoch writes at a time',
    );
    session.writing.count++;
  }

  /** The write has come to its end: nothing of it can be applied any more. */
  end(name: string): void {
    const session = this.#sessions.get(name);
    assert(session?.writing !== undefined, 'a write that ends has begun');
    session.writing.count--;
    if (session.writing.count > 0) return;
    session.writing = undefined;
    const waiting = [...session.waiting];
    session.waiting.clear();
    for (const retry of waiting) retry();
  }

  #remember(name: string, epoch: Epoch, nowMs: number): boolean {
    if (this.#sessions.size >= this.#sessionsMax) this.#forget(nowMs);
    if (this.#sessions.size >= this.#sessionsMax) return false;
    this.#moveToEnd(name, { epoch, lastRequestMs: nowMs, writing: undefined, waiting: new Set() });
    return true;
  }

  #moveToEnd(name: string, session: Session): void {
    this.#sessions.delete(name);
    this.#sessions.set(name, session);
    this.#latest = session;
  }

  /** Forgets the one that has been silent for longest, if for long enough (S3). */
  #forget(nowMs: number): void {
    for (const [name, session] of this.#sessions) {
      if (nowMs - session.lastRequestMs <= this.#memoryMs) return;
      if (session.writing === undefined && session.waiting.size === 0) {
        this.#sessions.delete(name);
        return;
      }
    }
  }
}

function isBelow(a: Epoch, b: Epoch): boolean {
  return a.generation < b.generation || (a.generation === b.generation && a.counter < b.counter);
}
