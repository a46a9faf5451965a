/**
 * A write's bytes, shared by those who still need them: the pieces in flight, and the copies kept until they are durable.
 * Promise: the buffer goes back to the pool exactly once, when the last holder has let go.
 */
import { assert } from '../base/assert.js';
import type { BufferPool } from '../base/buffer-pool.js';

export class Payload {
  readonly bytes: Buffer;
  readonly #pool: BufferPool;
  #holders = 1;
  /** How many copies of it, or of parts of it, are kept (retention.ts). */
  copies = 0;

  /** The creator is the first holder. `bytes` must come from `pool`. */
  constructor(bytes: Buffer, pool: BufferPool) {
    this.bytes = bytes;
    this.#pool = pool;
  }

  hold(): this {
    assert(this.#holders > 0, 'a payload that was given back is not held again');
    this.#holders += 1;
    return this;
  }

  release(): void {
    assert(this.#holders > 0, 'a payload is released by its holders only');
    this.#holders -= 1;
    if (this.#holders === 0) this.#pool.give(this.bytes);
  }
}
