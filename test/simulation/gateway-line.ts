/**
 * The gateways that serve one volume, one after the other: a process that can be killed, and the successor that takes over what
 * is on record (failover rules T1 to T5). The record is a plain object here; cli/lineage.ts keeps the same in a file.
 */
import { BufferPool } from '../../src/base/buffer-pool.js';
import { Gateway } from '../../src/gateway/gateway.js';
import type { Inheritance } from '../../src/gateway/inheritance.js';
import type { LedgerEntry } from '../../src/gateway/ledger.js';
import { Session } from '../../src/gateway/session.js';
import { type Host, SimulatedBackend } from './network.js';
import type { Plan } from './plan.js';
import { blockBytes } from './storage.js';
import { Process, type World } from './world.js';

const requestTimeoutMs = 3000;
/** As cli/lineage.ts: longer than any write can be on its way. */
const writeFlightMsMax = 62_000;

interface UsedServer {
  readonly server: string;
  readonly endpoint: string | undefined;
  readonly instance: string | undefined;
  /** In simulated time. Undefined: in use. */
  readonly leftAtMs: number | undefined;
}

/** One process of the line. */
interface Life {
  readonly process: Process;
  readonly gateway: Gateway;
  readonly died: Promise<void>;
  readonly die: () => void;
}

export class GatewayLine {
  readonly name: string;
  readonly #world: World;
  readonly #plan: Plan;
  readonly #hosts: readonly Host[];
  readonly #rate: number;
  #generation = 0;
  #servers: UsedServer[] = [];
  #unflushed: LedgerEntry['unflushed'] = 'none';
  #life: Life | undefined;
  #waiting: ((life: Life) => void)[] = [];

  constructor(world: World, plan: Plan, index: number, hosts: readonly Host[]) {
    this.name = `gateway-${index}`;
    this.#world = world;
    this.#plan = plan;
    this.#hosts = hosts;
    this.#rate = plan.clockRates[2 + index] ?? 1;
    this.start();
  }

  /** The gateway of the moment, or the next one. */
  async current(): Promise<{ gateway: Gateway; died: Promise<void> }> {
    return this.#life ?? new Promise((resolve) => void this.#waiting.push(resolve));
  }

  start(): void {
    if (this.#life !== undefined) return;
    const inherited = this.#generation === 0 ? undefined : this.#inheritance();
    this.#generation += 1; // rule T2: on record before anything is sent
    const process = new Process(this.#world, this.#rate, this.#world.random.whole(1, 1e6));
    const gateway = this.#newGateway(process, inherited);
    let die = () => {};
    const died = new Promise<void>((resolve) => {
      die = resolve;
    });
    this.#life = { process, gateway, died, die };
    for (const resolve of this.#waiting.splice(0)) resolve(this.#life);
    gateway.start();
  }

  /** kill -9. */
  kill(): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#world.note(`${this.name} killed`);
    this.#life = undefined;
    life.process.kill(); // rule T1: dead, before a successor starts
    life.die();
  }

  #newGateway(process: Process, inherited: Inheritance | undefined): Gateway {
    const { name } = this;
    const plan = this.#plan;
    const backends = this.#hosts.map((host) => new SimulatedBackend(this.#world, { name, process }, host, this.#hosts));
    const gateway = new Gateway(backends, {
      clock: process,
      session: new Session(name, this.#generation),
      ledger: { record: (entry) => this.#record(process, entry) },
      buffers: new BufferPool(1 << 20),
      readOnly: false,
      sizeBytes: plan.blocks * blockBytes,
      requestTimeoutMs,
      ioTimeoutMs: plan.ioTimeoutMs,
      writeBack: plan.writeBack ? { budgetBytes: plan.budgetBlocks * (blockBytes + 256) } : undefined,
      refusalProvesDeath: true,
      inherited,
    });
    gateway.events.subscribe((event) => this.#world.note(`${name}.${this.#generation} ${JSON.stringify(event)}`));
    return gateway;
  }

  #record(process: Process, entry: LedgerEntry): Promise<void> {
    return new Promise((resolve) => {
      process.after(this.#world.random.between(0.01, 0.5), () => {
        const nowMs = this.#world.nowMs;
        const before = this.#servers
          .filter((used) => used.instance !== undefined && used.instance !== entry.instance)
          .map((used) => ({ ...used, leftAtMs: used.leftAtMs ?? nowMs }))
          .filter((used) => nowMs - used.leftAtMs < writeFlightMsMax);
        const { server, endpoint, instance, unflushed } = entry;
        this.#servers = [{ server, endpoint, instance, leftAtMs: undefined }, ...before];
        this.#unflushed = unflushed;
        resolve();
      });
    });
  }

  #inheritance(): Inheritance {
    const nowMs = this.#world.nowMs;
    const servers = this.#servers.map(({ leftAtMs, ...used }) => ({ ...used, leftMsAgo: nowMs - (leftAtMs ?? nowMs) }));
    this.#servers = this.#servers.map((used) => ({ ...used, leftAtMs: used.leftAtMs ?? nowMs }));
    return { servers, unflushed: this.#unflushed };
  }
}
