/**
 * Order among overlapping requests (failover rules G1, G2).
 * Promise: of two overlapping writes the later one starts when the earlier one has been answered; a read starts when every
 * earlier overlapping write has been answered. Whoever overlaps nothing starts at once. Ordered by the call, across all clients.
 */

/** One write that has not been answered. */
class Turn {
  readonly offset: number;
  readonly end: number;
  /** Run when this write has been answered. */
  readonly followers: (() => void)[] = [];

  constructor(offset: number, length: number) {
    this.offset = offset;
    this.end = offset + length;
  }
}

export class WriteOrder {
  readonly #unanswered = new Set<Turn>();

  /** No write has a place in the order. */
  get isEmpty(): boolean {
    return this.#unanswered.size === 0;
  }

  /** Undefined: no earlier write overlaps, start at once. */
  readTurn(offset: number, length: number): Promise<void> | undefined {
    return this.#unanswered.size === 0 ? undefined : this.#wait(offset, offset + length);
  }

  /** Takes a place in the order. Wait for `ready` if there is one; call `done` when the write has been answered. */
  writeTurn(offset: number, length: number): { ready: Promise<void> | undefined; done: () => void } {
    const ready = this.#wait(offset, offset + length);
    const turn = new Turn(offset, length);
    this.#unanswered.add(turn);
    const done = () => {
      this.#unanswered.delete(turn);
      for (const follower of turn.followers) follower();
    };
    return { ready, done };
  }

  #wait(offset: number, end: number): Promise<void> | undefined {
    let earlier = 0;
    let start: (() => void) | undefined;
    const oneLess = () => {
      earlier -= 1;
      if (earlier === 0) start?.();
    };
    for (const turn of this.#unanswered) {
      if (turn.offset >= end || offset >= turn.end) continue;
      earlier += 1;
      turn.followers.push(oneLess);
    }
    if (earlier === 0) return undefined;
    return new Promise((resolve) => {
      start = resolve;
    });
  }
}
