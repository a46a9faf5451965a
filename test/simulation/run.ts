/** Runs one plan and judges it. */
import { asFailure } from '../../src/base/failure.js';
import type { Gateway } from '../../src/gateway/gateway.js';
import { type Circumstances, judgeBlock, judgeRemains, type Operation } from './checker.js';
import { inflict } from './faults.js';
import { GatewayLine } from './gateway-line.js';
import { Host } from './host.js';
import type { Plan, Step } from './plan.js';
import { blockBytes, Storage } from './storage.js';
import { World } from './world.js';

/** Everything must have been answered by then. */
const patienceMs = 3_600_000;
/** What a request may take beyond the configured time: a write that may still land (gateway/pool.ts), and what looks at the clock only now and then. */
const landingMs = 1000;
const slackMs = 250;
/** After so long nothing is on its way any more, and nothing needs to be waited for: Dmax of the failover protocol, and more than the margin. */
const calmMs = 75_000;

export interface Verdict {
  /** Undefined: every promise held. */
  readonly violation: string | undefined;
  /** Empty unless it was asked for. */
  readonly log: readonly string[];
  readonly events: number;
  readonly tally: ReadonlyMap<string, number>;
}

/** What the program under test threw where nobody waited for it: an assertion of ours that did not hold, for example. */
let thrown: string | undefined;
process.on('unhandledRejection', (error) => {
  thrown ??= describe(error);
});
process.on('uncaughtException', (error) => {
  thrown ??= describe(error);
});

function describe(error: unknown): string {
  return `the program failed: ${error instanceof Error ? error.stack : String(error)}`;
}

export async function runPlan(plan: Plan, { keepsLog = false } = {}): Promise<Verdict> {
  thrown = undefined;
  const log: string[] = [];
  const run = new Run(plan, keepsLog ? log : undefined);
  let violation: string | undefined;
  try {
    violation = await run.execute();
  } catch (error) {
    violation = describe(error);
  }
  violation = thrown ?? violation;
  return { violation, log, events: run.world.events, tally: run.world.tally };
}

class Run {
  readonly world: World;
  readonly #plan: Plan;
  readonly #storage: Storage;
  readonly #hosts: Host[];
  readonly #lines: GatewayLine[];
  readonly #history: Operation[] = [];
  #nextValue = 1;
  #clientsDone = 0;
  /** The first breach of a promise that is noticed at once. */
  #breach: string | undefined;
  #allFlushed = true;

  constructor(plan: Plan, log: string[] | undefined) {
    this.#plan = plan;
    this.world = new World(plan.seed, log);
    const { world } = this;
    this.#storage = new Storage(world, plan.storage, plan.blocks);
    this.#hosts = Array.from({ length: plan.hosts }, (_, index) => {
      const address = `10.0.0.${index + 1}:8000`;
      const clockRate = plan.clockRates[index] ?? 1;
      return new Host(world, { address, storage: this.#storage, clockRate, limits: plan.limits });
    });
    for (const host of this.#hosts) host.start();
    this.#lines = Array.from({ length: plan.gateways }, (_, index) => new GatewayLine(world, plan, index, this.#hosts));
    world.count(`runs: ${plan.storage} storage, ${plan.writeBack ? 'write-back' : 'write-through'}`);
    if (plan.gateways > 1) world.count('runs: several gateways on one disk');
  }

  async execute(): Promise<string | undefined> {
    const { world } = this;
    const { clients } = this.#plan;
    for (const [index, steps] of clients.entries()) void this.#client(index, steps);
    if (!(await this.#runUntil(() => this.#clientsDone === clients.length, patienceMs))) return this.#describeHang();
    this.#heal();
    world.note(() => 'all clients are done');
    let finished = false;
    void this.#finish().then(() => {
      finished = true;
    });
    if (!(await this.#runUntil(() => finished, world.nowMs + patienceMs))) return this.#describeHang();
    return this.#breach ?? this.#judge();
  }

  #runUntil(finished: () => boolean, limitMs: number): Promise<boolean> {
    return this.world.run(() => {
      for (const { breach } of this.#lines) this.#breach ??= breach;
      return thrown !== undefined || this.#breach !== undefined || finished();
    }, limitMs);
  }

  // --- clients ---

  async #client(index: number, steps: readonly Step[]): Promise<void> {
    const line = this.#lines[index % this.#lines.length];
    if (line === undefined) throw new RangeError('no such gateway');
    for (const [number, step] of steps.entries()) {
      await this.world.sleep(step.pauseMs);
      for (const fault of this.#plan.faults)
        if (fault.client === index && fault.step === number)
          this.world.after(fault.afterMs, () => this.#inflict(fault));
      await this.#step(line, step, `${index}.${number}`);
    }
    this.#clientsDone += 1;
  }

  /** Resolves with whether it succeeded. */
  async #step(line: GatewayLine, step: Step, name: string): Promise<boolean> {
    const { world } = this;
    if (step.op === 'flush') return this.#flush(line, name);
    const kind = step.op === 'read' ? 'read' : 'write';
    const operations = Array.from({ length: step.blocks }, (_, index) => this.#begin(kind, step, index, name));
    const values = operations.map((operation) => operation.value);
    world.note(
      () => `${name} ${step.op} ${step.block}+${step.blocks}${kind === 'write' ? ` = ${values.join(',')}` : ''}`,
    );
    try {
      const read = await this.#untilAnswered(line, step, operations, name);
      for (const [index, operation] of operations.entries()) {
        operation.outcome = 'ok';
        if (read !== undefined) operation.value = read[index] ?? Number.NaN;
      }
      if (kind === 'write' && (step.op === 'fua' || !this.#plan.writeBack)) this.#noteDurable(operations);
      world.note(() => `${name} ok${read === undefined ? '' : ` ${read.join(',')}`}`);
    } catch (error) {
      for (const operation of operations) operation.outcome = 'failed';
      const { message, code } = asFailure(error);
      world.note(() => `${name} failed: ${message}`);
      world.count(`client told ${code} of a ${kind}`);
    }
    for (const operation of operations) operation.endMs = world.nowMs;
    return operations.every(({ outcome }) => outcome === 'ok');
  }

  #begin(kind: Operation['kind'], step: Step, index: number, name: string): Operation {
    const isNew = step.op === 'write' || step.op === 'fua';
    const operation: Operation = {
      kind,
      block: step.block + index,
      value: isNew ? this.#nextValue++ : 0,
      startMs: this.world.nowMs,
      endMs: Number.POSITIVE_INFINITY,
      outcome: 'pending',
      durableMs: Number.POSITIVE_INFINITY,
      name: `${step.op} ${name}`,
    };
    this.#history.push(operation);
    return operation;
  }

  /** Resolves with what a read returned. As the kernel does, it takes only the last answer of a request that it has sent again. */
  async #untilAnswered(
    line: GatewayLine,
    step: Step,
    operations: readonly Operation[],
    name: string,
  ): Promise<number[] | undefined> {
    const { world } = this;
    const attempt = () => this.#attempt(line, step, operations, name);
    let answered = false;
    const answer = attempt().finally(() => {
      answered = true;
    });
    if (step.resendAfterMs === undefined) return answer;
    await Promise.race([answer.catch(asFailure), world.sleep(step.resendAfterMs)]);
    if (answered) return answer;
    world.note(() => `${name} is sent again`);
    world.count('request sent again by the client');
    noteSentAgain(operations);
    answer.catch(asFailure);
    return attempt();
  }

  #attempt(
    line: GatewayLine,
    step: Step,
    operations: readonly Operation[],
    name: string,
  ): Promise<number[] | undefined> {
    const payload = step.op === 'write' || step.op === 'fua' ? payloadOf(operations) : undefined;
    return this.#inTime(line, name, () =>
      line.perform(
        payload,
        (gateway, bytes) => perform(gateway, step, bytes),
        () => noteSentAgain(operations),
      ),
    );
  }

  async #flush(line: GatewayLine, name: string): Promise<boolean> {
    const covered = this.#history.filter((operation) => operation.kind === 'write' && operation.outcome === 'ok');
    this.world.note(() => `${name} flush`);
    try {
      await this.#inTime(line, name, () =>
        line.perform(
          undefined,
          (gateway) => gateway.flush(),
          () => {},
        ),
      );
      this.#noteDurable(covered);
      this.world.note(() => `${name} ok`);
      return true;
    } catch (error) {
      const { message, code } = asFailure(error);
      this.world.note(() => `${name} failed: ${message}`);
      this.world.count(`client told ${code} of a flush`);
      return false;
    }
  }

  /** Invariant 8: every request is answered in time, unless the gateway itself stood still or died meanwhile. */
  async #inTime<T>(line: GatewayLine, name: string, ask: () => Promise<T>): Promise<T> {
    const { world } = this;
    const { ioTimeoutMs, requestTimeoutMs } = this.#plan;
    const startMs = world.nowMs;
    try {
      return await ask();
    } finally {
      const tookMs = world.nowMs - startMs;
      const disturbed = line.disturbancesMs.some((atMs) => atMs >= startMs);
      if (!disturbed && tookMs > ioTimeoutMs + requestTimeoutMs + landingMs + slackMs)
        this.#breach ??= `${name} was answered only after ${(tookMs / 1000).toFixed(1)} s`;
    }
  }

  #noteDurable(operations: readonly Operation[]): void {
    for (const operation of operations) operation.durableMs = Math.min(operation.durableMs, this.world.nowMs);
  }

  // --- faults ---

  #inflict(fault: Plan['faults'][number]): void {
    const host = this.#hosts[fault.host];
    const line = this.#lines[fault.gateway];
    if (host === undefined || line === undefined || this.#clientsDone === this.#plan.clients.length) return;
    this.world.note(() => `fault: ${fault.what} ${host.address} ${line.name} for ${fault.lastsMs.toFixed(0)} ms`);
    inflict(this.world, fault, host, line);
  }

  #heal(): void {
    this.world.isCalm = true;
    this.#storage.heal();
    for (const host of this.#hosts) {
      host.cuts.clear();
      host.life?.process.resume();
      host.start();
    }
    for (const line of this.#lines) line.heal();
  }

  /** Reads everything, flushes, ends the gateways, and takes the power away. */
  async #finish(): Promise<void> {
    const { blocks } = this.#plan;
    await this.world.sleep(calmMs);
    for (const [index, line] of this.#lines.entries()) {
      for (let block = 0; block < blocks; block += 1) {
        const step: Step = { op: 'read', block, blocks: 1, pauseMs: 0, resendAfterMs: undefined };
        this.#mustWork(line, await this.#step(line, step, `final ${index}`));
      }
      const isFlushed = await this.#flush(line, `final ${index}`);
      this.#mustWork(line, isFlushed);
      this.#allFlushed &&= isFlushed;
    }
    for (const line of this.#lines) this.#breach ??= await line.end();
    for (const host of this.#hosts) host.crash();
  }

  /** Nothing is wrong any more: what is asked for is done, unless something was lost that nobody can bring back, and that is said. */
  #mustWork(line: GatewayLine, worked: boolean): void {
    if (!worked && !line.isLost) this.#breach ??= `${line.name} still fails when nothing is wrong any more`;
  }

  // --- verdict ---

  #judge(): string | undefined {
    const { blocks, writeBack, gateways } = this.#plan;
    for (let block = 0; block < blocks; block += 1) {
      const history = this.#history.filter((operation) => operation.block === block);
      const remains = this.#storage.durable[block] ?? 0;
      const circumstances: Circumstances = {
        crashesMs: this.#storage.crashesMs,
        replays: writeBack,
        severalGateways: gateways > 1,
        remains: this.#allFlushed ? remains : undefined,
      };
      const violation = judgeBlock(history, circumstances) ?? judgeRemains(history, remains);
      if (violation !== undefined) return `block ${block}: ${violation}`;
    }
    return undefined;
  }

  #describeHang(): string {
    const pending = this.#history
      .filter((operation) => operation.outcome === 'pending')
      .map((operation) => operation.name);
    return this.#breach ?? `never answered: ${pending.join(', ') || 'a flush or the end'}`;
  }
}

function noteSentAgain(operations: readonly Operation[]): void {
  for (const operation of operations) operation.sentAgain = true;
}

function payloadOf(operations: readonly Operation[]): Buffer {
  const bytes = Buffer.alloc(operations.length * blockBytes);
  for (const [index, { value }] of operations.entries()) bytes.writeDoubleBE(value, index * blockBytes);
  return bytes;
}

async function perform(gateway: Gateway, step: Step, bytes: Buffer): Promise<number[] | undefined> {
  const offset = step.block * blockBytes;
  const length = step.blocks * blockBytes;
  switch (step.op) {
    case 'read': {
      const into = Buffer.alloc(length);
      await gateway.read(offset, into);
      return Array.from({ length: step.blocks }, (_, index) => into.readDoubleBE(index * blockBytes));
    }
    case 'zero':
      await gateway.zero(offset, length, { fua: false, mayTrim: true, fast: false });
      return undefined;
    case 'trim':
      await gateway.trim(offset, length, false);
      return undefined;
    case 'flush':
      await gateway.flush();
      return undefined;
    default:
      await gateway.write(offset, bytes, step.op === 'fua');
      return undefined;
  }
}
