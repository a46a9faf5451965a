/**
 * One time limit for many things that begin at different times: a single timer for all of them, where one for each would cost more than
 * most of what it guards.
 * Promise: each member is told once, when it has been in for the whole limit, unless it was taken out before.
 */
import type { Clock } from './clock.js';

export class TimeLimit<Member extends object> {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #expired: (member: Member) => void;
  /** When the time of each is over. In the order of that, because the limit is the same for all. */
  readonly #members = new Map<Member, number>();
  #isWatching = false;

  constructor(clock: Clock, limitMs: number, expired: (member: Member) => void) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#expired = expired;
  }

  add(member: Member): void {
    this.#members.set(member, this.#clock.nowMs() + this.#limitMs);
    if (!this.#isWatching) this.#watch(this.#limitMs);
  }

  delete(member: Member): void {
    this.#members.delete(member);
  }

  /** The timer is left to run out when nobody is in: the next one may come at once. */
  #watch(delayMs: number): void {
    this.#isWatching = true;
    this.#clock.after(delayMs, () => this.#look());
  }

  #look(): void {
    this.#isWatching = false;
    const nowMs = this.#clock.nowMs();
    for (const [member, overAtMs] of this.#members) {
      if (overAtMs > nowMs) {
        this.#watch(overAtMs - nowMs);
        return;
      }
      this.#members.delete(member);
      this.#expired(member);
    }
  }
}
