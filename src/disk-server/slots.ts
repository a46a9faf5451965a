/**
 * A limited number of disk operations at a time; the others wait in the order of their arrival.
 * The thread pool has more threads than there are slots, so an operation that starts really runs: what was checked when
 * it started still holds when the system call is made.
 */
import { assert } from '../base/assert.js';

export interface SlotTask {
  /** Starts, and calls `freed` later, at its end; false: it has decided not to run, and never calls it. */
  start(freed: () => void): boolean;
}

export class Slots {
  readonly #slots: number;
  readonly #waiting = new Set<SlotTask>();
  #running = 0;

  constructor(slots: number) {
    assert(slots >= 1, 'at least one slot');
    this.#slots = slots;
  }

  /** Tasks that occupy a slot, and tasks that wait for one. */
  get load(): { readonly running: number; readonly waiting: number } {
    return { running: this.#running, waiting: this.#waiting.size };
  }

  /** Starts the task now if a slot is free, and otherwise when its turn comes. */
  enter(task: SlotTask): void {
    if (this.#running < this.#slots) this.#start(task);
    else this.#waiting.add(task);
  }

  /** The task is not started any more. */
  withdraw(task: SlotTask): void {
    this.#waiting.delete(task);
  }

  #start(task: SlotTask): void {
    this.#running++;
    if (!task.start(this.#freed)) this.#running--;
  }

  readonly #freed = (): void => {
    this.#running--;
    this.#startWaiting();
  };

  #startWaiting(): void {
    for (const task of this.#waiting) {
      if (this.#running >= this.#slots) return;
      this.#waiting.delete(task);
      this.#start(task);
    }
  }
}
