/** How long nothing has moved, as far as the sweep knows that asks: moving costs no look at the clock. */
export class StallWatch {
  #sinceMs: number;
  #moved = false;

  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  move(): void {
    this.#moved = true;
  }

  /** Milliseconds without a move; none while there is nothing that could (`excused`). */
  measure(nowMs: number, excused: boolean): number {
    if (this.#moved || excused) this.#sinceMs = nowMs;
    this.#moved = false;
    return nowMs - this.#sinceMs;
  }
}
