/**
 * A process of the simulation: it can be paused (its events wait) and killed (its events are dropped). Its clock has a rate and an
 * origin of its own.
 */
import type { Clock, Timer } from '../../src/base/clock.js';
import type { World } from './world.js';

export class Process implements Clock {
  readonly #world: World;
  readonly #rate: number;
  readonly #originMs: number;
  /** What came during a pause. */
  #timers: (() => void)[] = [];
  #messages: (() => void)[] = [];
  #state: 'running' | 'paused' | 'dead' = 'running';

  constructor(world: World, rate: number, originMs: number) {
    this.#world = world;
    this.#rate = rate;
    this.#originMs = originMs;
  }

  get state(): 'running' | 'paused' | 'dead' {
    return this.#state;
  }

  nowMs(): number {
    return this.#originMs + this.#world.nowMs * this.#rate;
  }

  after(delayMs: number, run: () => void): Timer {
    let cancelled = false;
    const expire = () => {
      if (!cancelled) run();
    };
    const timer = this.#world.after(delayMs / this.#rate, () => {
      if (this.#state === 'paused') this.#timers.push(expire);
      else this.do(expire);
    });
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  /** How much real time passes until this clock says `atMs`. */
  untilMs(atMs: number): number {
    return Math.max(0, (atMs - this.nowMs()) / this.#rate);
  }

  /** Runs `event` now, at the end of the pause, or never. */
  do(event: () => void): void {
    if (this.#state === 'running') event();
    else if (this.#state === 'paused') this.#messages.push(event);
  }

  pause(): void {
    if (this.#state === 'running') this.#state = 'paused';
  }

  /** What has come meanwhile happens now: timers before messages, or the other way round. */
  resume(): void {
    if (this.#state !== 'paused') return;
    this.#state = 'running';
    const timersFirst = this.#world.random.chance(0.5);
    const backlog = timersFirst ? [...this.#timers, ...this.#messages] : [...this.#messages, ...this.#timers];
    this.#timers = [];
    this.#messages = [];
    for (const event of backlog) this.#world.after(0, () => this.do(event));
  }

  kill(): void {
    this.#state = 'dead';
    this.#timers = [];
    this.#messages = [];
  }
}
