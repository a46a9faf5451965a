/**
 * The gateway's identity towards the servers: one session for the lineage of processes that serve one volume, and the epoch
 * that tells the transmissions of today from those that were given up (failover rules G3, T2).
 */
import type { Epoch } from '../http-disk/messages.js';

export class Session {
  readonly id: string;
  readonly #generation: number;
  #counter = 0;

  /** `generation`: on stable storage, and higher than that of every earlier process of the lineage. */
  constructor(id: string, generation: number) {
    this.id = id;
    this.#generation = generation;
  }

  get epoch(): Epoch {
    return { generation: this.#generation, counter: this.#counter };
  }

  /** Rule G3: before anything is sent again that was on a connection which is given up. */
  raise(): void {
    this.#counter += 1;
  }
}
