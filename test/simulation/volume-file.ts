/**
 * What the gateways of one line leave to each other (failover rules T2 to T5): as kernel-device/volume-record.ts, with a plain object in the
 * place of the file, and as cli/lineage.ts.
 */
import type { Inheritance } from '../../src/gateway/inheritance.js';
import type { Ledger, LedgerEntry } from '../../src/gateway/ledger.js';
import type { Process } from './process.js';
import type { World } from './world.js';

/** Longer than any write can be on its way. */
const writeFlightMsMax = 62_000;

interface UsedServer {
  readonly server: string;
  readonly endpoint: string | undefined;
  readonly instance: string | undefined;
  /** In simulated time. Undefined: in use. */
  readonly leftAtMs: number | undefined;
}

interface VolumeRecord {
  readonly generation: number;
  readonly servers: readonly UsedServer[];
  readonly unflushed: LedgerEntry['unflushed'];
}

export class VolumeFile {
  record: VolumeRecord = { generation: 0, servers: [], unflushed: 'none' };
}

/** The record of one process. It is on file from {@link SimulatedLedger.keep} on. */
export class SimulatedLedger implements Ledger {
  readonly generation: number;
  /** What its predecessor left. Undefined: it is the first. */
  readonly inherited: Inheritance | undefined;
  readonly #world: World;
  readonly #process: Process;
  readonly #file: VolumeFile;
  #record: VolumeRecord;
  #kept = false;

  /** `planned`: the predecessor is alive and hands over; it leaves nothing on its way to the server that it uses (rule T6). */
  constructor(world: World, process: Process, file: VolumeFile, planned: boolean) {
    const { generation, servers, unflushed } = file.record;
    const nowMs = world.nowMs;
    this.#world = world;
    this.#process = process;
    this.#file = file;
    const left = planned ? servers.filter(({ leftAtMs }) => leftAtMs !== undefined) : servers;
    this.inherited =
      generation === 0
        ? undefined
        : {
            servers: left.map(({ leftAtMs, ...used }) => ({ ...used, leftMsAgo: nowMs - (leftAtMs ?? nowMs) })),
            unflushed: planned ? 'none' : unflushed,
          };
    this.generation = generation + 1; // rule T2
    this.#record = {
      generation: this.generation,
      servers: servers.map((used) => ({ ...used, leftAtMs: used.leftAtMs ?? nowMs })),
      unflushed,
    };
    if (!planned) this.keep(); // rule T2: before anything is sent
  }

  keep(): void {
    this.#kept = true;
    this.#save();
  }

  record(entry: LedgerEntry): Promise<void> {
    return new Promise((resolve) => {
      this.#process.after(this.#world.random.between(0.01, 0.5), () => {
        const nowMs = this.#world.nowMs;
        const before = this.#record.servers
          .filter((used) => used.instance !== undefined && used.instance !== entry.instance)
          .map((used) => ({ ...used, leftAtMs: used.leftAtMs ?? nowMs }))
          .filter((used) => nowMs - used.leftAtMs < writeFlightMsMax);
        const { server, endpoint, instance, unflushed } = entry;
        this.#record = {
          generation: this.generation,
          servers: [{ server, endpoint, instance, leftAtMs: undefined }, ...before],
          unflushed,
        };
        this.#save();
        resolve();
      });
    });
  }

  #save(): void {
    if (this.#kept) this.#file.record = this.#record;
  }
}
