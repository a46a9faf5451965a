/**
 * The gateways that serve one volume, one after the other: a process that can be killed, and the successor that takes over what
 * is on record (failover rules T1 to T5); or one that hands over to its successor while both live (T6), as cli/nbd-server-program.ts does.
 */
import { BufferPool } from '../../src/base/buffer-pool.js';
import { sleep } from '../../src/base/clock.js';
import type { Failure } from '../../src/base/failure.js';
import { Gateway } from '../../src/gateway/gateway.js';
import { Session } from '../../src/gateway/session.js';
import type { Host } from './host.js';
import { SimulatedBackend } from './network.js';
import { hostsMax, type Plan } from './plan.js';
import { Process } from './process.js';
import { blockBytes } from './storage.js';
import { SimulatedLedger, VolumeFile } from './volume-file.js';
import type { World } from './world.js';

const readyWaitMs = 60_000;
const quietCheckPeriodMs = 2;
/** What a copy counts against the budget besides its payload (gateway/retention.ts). */
const copyBytes = 256;

/** The pool of one gateway's payloads: counts what the gateway holds. */
class PayloadPool extends BufferPool {
  /** Bytes of what was lent and has not come back, each counted as a copy is. */
  heldBytes = 0;

  lend(payload: Buffer): Buffer {
    this.heldBytes += payload.length + copyBytes;
    return payload;
  }

  override give(payload: Buffer): void {
    this.heldBytes -= payload.length + copyBytes;
  }
}

const noBytes = Buffer.alloc(0);

/** One process of the line. */
interface Life {
  readonly process: Process;
  readonly gateway: Gateway;
  readonly ledger: SimulatedLedger;
  readonly buffers: PayloadPool;
  /** A server has been found and brought up to date. */
  readonly selected: Promise<void>;
  /** It has said that what its predecessor acknowledged is lost, and serves nothing. */
  saysLost: boolean;
  /** Resolves when it is killed: what it has not answered it never will. */
  readonly died: Promise<void>;
  readonly die: () => void;
  /** Requests of clients that it has not answered, and their payloads. */
  unanswered: number;
  unansweredBytes: number;
}

export class GatewayLine {
  readonly name: string;
  /** When a process of this line stood still, died or handed over: what waits then waits for longer. */
  readonly disturbancesMs: number[] = [];
  readonly #world: World;
  readonly #plan: Plan;
  readonly #hosts: readonly Host[];
  readonly #rate: number;
  /** For copies. */
  readonly #budgetBytes: number;
  readonly #file = new VolumeFile();
  /** The one that serves. */
  #life: Life | undefined;
  /** It hands over: it answers what it has been asked. */
  #leaving: Life | undefined;
  /** It gets ready to take over from the one that serves. */
  #candidate: Life | undefined;
  #waiting: (() => void)[] = [];
  #falseLoss: string | undefined;

  constructor(world: World, plan: Plan, index: number, hosts: readonly Host[]) {
    this.name = `gateway-${index}`;
    this.#world = world;
    this.#plan = plan;
    this.#hosts = hosts;
    this.#rate = plan.clockRates[hostsMax + index] ?? 1;
    this.#budgetBytes = plan.writeBack ? plan.budgetBlocks * (blockBytes + copyBytes) : 0;
    this.start();
  }

  /** As the kernel does: what a gateway that died has not answered is sent to its successor again. */
  async perform<T>(
    payload: Buffer | undefined,
    ask: (gateway: Gateway, payload: Buffer) => Promise<T>,
    sentAgain: () => void,
  ): Promise<T> {
    for (;;) {
      while (this.#life === undefined) await new Promise<void>((resolve) => void this.#waiting.push(resolve));
      const life = this.#life;
      const lent = payload === undefined ? noBytes : life.buffers.lend(Buffer.from(payload));
      const counted = payload === undefined ? 0 : lent.length + copyBytes;
      life.unanswered += 1;
      life.unansweredBytes += counted;
      const answer = new Promise<{ value: T } | undefined>((resolve, reject) => {
        const fail = (failure: Failure) => {
          // It has handed over meanwhile, without having read this.
          if (failure.code === 'shutting-down') resolve(undefined);
          else reject(failure);
        };
        life.process.do(() => void ask(life.gateway, lent).then((value) => resolve({ value }), fail));
      }).finally(() => {
        life.unanswered -= 1;
        life.unansweredBytes -= counted;
      });
      answer.catch(() => {});
      const outcome = await Promise.race([answer, life.died]);
      if (outcome !== undefined) return outcome.value;
      this.#world.count('request sent to the successor again');
      sentAgain();
    }
  }

  /** What is wrong with what the gateways hold (invariant 7), or have said. Undefined: nothing. */
  get breach(): string | undefined {
    for (const life of [this.#life, this.#leaving]) {
      if (life === undefined) continue;
      const copiesBytes = life.buffers.heldBytes - life.unansweredBytes;
      if (copiesBytes > this.#budgetBytes)
        return `${this.name} holds copies of ${copiesBytes} bytes, its budget is ${this.#budgetBytes}`;
    }
    return this.#falseLoss;
  }

  /** Rule T5: what a predecessor had acknowledged is gone with its instance, so that nothing is served any more. */
  get isLost(): boolean {
    return this.#life?.saysLost === true;
  }

  #saysLost(life: Life): void {
    life.saysLost = true;
    const { servers: [holder] = [], unflushed } = life.ledger.inherited ?? {};
    const isThere = this.#hosts.some((host) => host.life?.server.disk?.instance === holder?.instance);
    if (unflushed !== 'nobody' && isThere) this.#falseLoss ??= `${this.name} says that ${holder?.instance} is over`;
  }

  /** Ends the line: the last gateway has nothing to do. What is wrong with what it still holds; undefined: nothing. */
  async end(): Promise<string | undefined> {
    const life = this.#life;
    if (life === undefined) return `${this.name} is gone`;
    const { undurableBytes } = await life.gateway.close();
    const { heldBytes } = life.buffers;
    return heldBytes === 0 || undurableBytes > 0
      ? undefined
      : `${this.name} ends and holds ${heldBytes} bytes of payloads`;
  }

  /** A successor, if there is nobody. */
  start(): void {
    if (this.#life !== undefined || this.#leaving !== undefined) return;
    this.#serve(this.#begin(false));
  }

  /** kill -9. */
  kill(): void {
    const life = this.#life ?? this.#leaving;
    if (life === undefined) return;
    this.#world.note(() => `${this.name} killed`);
    this.#world.count(this.#leaving === undefined ? 'gateway killed' : 'gateway killed while it handed over');
    this.#disturbed();
    this.#life = undefined;
    this.#leaving = undefined;
    this.#dismiss(); // a successor ends when the one that it was to succeed is gone
    life.process.kill(); // rule T1: dead, before a successor starts
    life.die();
  }

  pause(lastsMs: number): void {
    const life = this.#life ?? this.#leaving;
    if (life === undefined) return;
    this.#world.note(() => `${this.name} stands still`);
    this.#world.count('gateway paused');
    this.#disturbed();
    life.process.pause();
    this.#world.after(lastsMs, () => {
      this.#disturbed();
      life.process.resume();
    });
  }

  /** After all faults. */
  heal(): void {
    for (const life of [this.#life, this.#leaving, this.#candidate]) life?.process.resume();
    this.start();
  }

  /** SIGUSR2. */
  async handOver(): Promise<void> {
    const life = this.#life;
    if (life === undefined || this.#candidate !== undefined || life.process.state !== 'running') return;
    this.#world.note(() => `${this.name} is to hand over`);
    const successor = this.#begin(true);
    this.#candidate = successor;
    const isReady = await Promise.race([
      successor.selected.then(() => true),
      sleep(life.process, readyWaitMs).then(() => false),
    ]);
    const isFlushed = isReady && (await flushed(life.gateway));
    if (this.#candidate !== successor) return;
    if (isFlushed) await this.#leaveTo(successor, life);
    else this.#dismiss();
  }

  /** Rule T6: everything that was sent is answered, and nothing more is sent. */
  async #leaveTo(successor: Life, life: Life): Promise<void> {
    const beganMs = this.#world.nowMs;
    this.#life = undefined;
    this.#leaving = life;
    this.#disturbed();
    const { gateway } = life;
    const busy = life.unanswered > 0;
    while (!gateway.isIdle) await sleep(life.process, quietCheckPeriodMs);
    while (!(await flushed(gateway)));
    await gateway.close();
    if (this.#candidate !== successor || life.process.state === 'dead') return;
    life.process.kill();
    life.die(); // what it has not read its successor is asked
    this.#candidate = undefined;
    this.#leaving = undefined;
    successor.ledger.keep();
    this.#world.note(() => `${this.name} has handed over within ${(this.#world.nowMs - beganMs).toFixed(1)} ms`);
    this.#world.count(busy ? 'handed over, with requests in progress' : 'handed over, idle');
    this.#serve(successor);
  }

  #dismiss(): void {
    const candidate = this.#candidate;
    if (candidate === undefined) return;
    this.#world.note(() => `${this.name} does not hand over`);
    this.#world.count('not handed over');
    this.#candidate = undefined;
    candidate.process.kill();
  }

  #serve(life: Life): void {
    this.#life = life;
    this.#disturbed();
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #disturbed(): void {
    this.disturbancesMs.push(this.#world.nowMs);
  }

  #begin(planned: boolean): Life {
    const process = new Process(this.#world, this.#rate, this.#world.random.whole(1, 1e6));
    const ledger = new SimulatedLedger(this.#world, process, this.#file, planned);
    const buffers = new PayloadPool(0);
    const gateway = this.#newGateway(process, ledger, buffers);
    let die = () => {};
    const died = new Promise<void>((resolve) => {
      die = resolve;
    });
    let select = () => {};
    const selected = new Promise<void>((resolve) => {
      select = resolve;
    });
    const life: Life = {
      ...{ process, gateway, ledger, buffers, selected, died, die },
      ...{ saysLost: false, unanswered: 0, unansweredBytes: 0 },
    };
    gateway.events.subscribe(({ type }) => {
      if (type === 'selected') select();
      if (type === 'inheritance-lost') this.#saysLost(life);
    });
    gateway.start();
    return life;
  }

  #newGateway(process: Process, ledger: SimulatedLedger, buffers: BufferPool): Gateway {
    const { name } = this;
    const plan = this.#plan;
    const { generation, inherited } = ledger;
    const backends = this.#hosts.map(
      (host) => new SimulatedBackend(this.#world, plan.network, { name, process }, host, this.#hosts),
    );
    const gateway = new Gateway(backends, {
      clock: process,
      session: new Session(name, generation),
      ledger,
      buffers,
      readOnly: false,
      sizeBytes: plan.blocks * blockBytes,
      requestTimeoutMs: plan.requestTimeoutMs,
      ioTimeoutMs: plan.ioTimeoutMs,
      writeBack: plan.writeBack ? { budgetBytes: this.#budgetBytes } : undefined,
      refusalProvesDeath: true,
      inherited,
    });
    gateway.events.subscribe((event) => {
      this.#world.note(() => `${name}.${generation} ${JSON.stringify(event)}`);
      const isEmpty = event.type === 'replaying' && event.writes === 0;
      this.#world.count(`gateway ${event.type}${isEmpty ? ' nothing' : ''}`);
    });
    return gateway;
  }
}

function flushed(gateway: Gateway): Promise<boolean> {
  return gateway.flush().then(
    () => true,
    () => false,
  );
}
