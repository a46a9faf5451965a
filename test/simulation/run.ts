/** Runs one plan and judges it. */
import { asFailure } from '../../src/base/failure.js';
import type { Gateway } from '../../src/gateway/gateway.js';
import { judgeBlock, judgeRemains, type Operation } from './checker.js';
import { GatewayLine } from './gateway-line.js';
import { Host } from './network.js';
import type { Fault, Plan, Step } from './plan.js';
import { blockBytes, Storage } from './storage.js';
import { World } from './world.js';

/** Everything must have been answered by then. */
const patienceMs = 3_600_000;

export interface Verdict {
  /** Undefined: every promise held. */
  readonly violation: string | undefined;
  readonly log: readonly string[];
  readonly events: number;
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

export async function runPlan(plan: Plan): Promise<Verdict> {
  thrown = undefined;
  const run = new Run(plan);
  let violation: string | undefined;
  try {
    violation = await run.execute();
  } catch (error) {
    violation = describe(error);
  }
  violation = thrown ?? violation;
  return { violation, log: run.world.log, events: run.world.events };
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

  constructor(plan: Plan) {
    this.#plan = plan;
    this.world = new World(plan.seed);
    this.world.heldBack = plan.heldBack;
    this.#storage = new Storage(this.world, plan.storage, plan.blocks);
    this.#hosts = Array.from(
      { length: plan.hosts },
      (_, index) => new Host(this.world, `10.0.0.${index + 1}:8000`, this.#storage, plan.clockRates[index] ?? 1),
    );
    for (const host of this.#hosts) host.start();
    this.#lines = Array.from(
      { length: plan.gateways },
      (_, index) => new GatewayLine(this.world, plan, index, this.#hosts),
    );
  }

  async execute(): Promise<string | undefined> {
    const { world } = this;
    const { clients, faults } = this.#plan;
    for (const fault of faults) world.after(fault.atMs, () => this.#inflict(fault));
    for (const [index, steps] of clients.entries()) void this.#client(index, steps);
    if (!(await world.run(() => thrown !== undefined || this.#clientsDone === clients.length, patienceMs)))
      return this.#describeHang();
    this.#heal();
    world.note('all clients are done');
    let finished = false;
    void this.#finish().then(() => {
      finished = true;
    });
    if (!(await world.run(() => thrown !== undefined || finished, world.nowMs + patienceMs)))
      return this.#describeHang();
    return this.#judge();
  }

  // --- clients ---

  async #client(index: number, steps: readonly Step[]): Promise<void> {
    const line = this.#lines[index % this.#lines.length];
    if (line === undefined) throw new RangeError('no such gateway');
    for (const [number, step] of steps.entries()) {
      await this.world.sleep(step.pauseMs);
      await this.#step(line, step, `${index}.${number}`);
    }
    this.#clientsDone += 1;
  }

  async #step(line: GatewayLine, step: Step, name: string): Promise<void> {
    const { world } = this;
    if (step.op === 'flush') return this.#flush(line, name);
    const kind = step.op === 'read' ? 'read' : 'write';
    const operations = Array.from({ length: step.blocks }, (_, index) => this.#begin(kind, step, index, name));
    const values = operations.map((operation) => operation.value);
    world.note(`${name} ${step.op} ${step.block}+${step.blocks}${kind === 'write' ? ` = ${values.join(',')}` : ''}`);
    let answered = false;
    const answer = this.#attempt(line, step, values).finally(() => {
      answered = true;
    });
    let last = answer;
    if (step.resendAfterMs !== undefined) {
      await Promise.race([answer.catch(asFailure), world.sleep(step.resendAfterMs)]);
      if (!answered) {
        world.note(`${name} is sent again`);
        answer.catch(asFailure);
        last = this.#attempt(line, step, values);
      }
    }
    try {
      const read = await last;
      for (const [index, operation] of operations.entries()) {
        operation.outcome = 'ok';
        if (read !== undefined) operation.value = read[index] ?? Number.NaN;
      }
      if (kind === 'write' && (step.op === 'fua' || !this.#plan.writeBack)) this.#noteDurable(operations);
      world.note(`${name} ok${read === undefined ? '' : ` ${read.join(',')}`}`);
    } catch (error) {
      for (const operation of operations) operation.outcome = 'failed';
      world.note(`${name} failed: ${asFailure(error).message}`);
    }
    for (const operation of operations) operation.endMs = world.nowMs;
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

  /** Resolves with what a read returned. */
  #attempt(line: GatewayLine, step: Step, values: readonly number[]): Promise<number[] | undefined> {
    return this.#untilAnswered(line, (gateway) => this.#perform(gateway, step, values));
  }

  /** As the kernel does: what a gateway that died has not answered is sent to its successor again. */
  async #untilAnswered<T>(line: GatewayLine, ask: (gateway: Gateway) => Promise<T>): Promise<T> {
    for (;;) {
      const { gateway, died } = await line.current();
      const answer = ask(gateway).then((value) => ({ value }));
      answer.catch(() => {});
      const outcome = await Promise.race([answer, died]);
      if (outcome !== undefined) return outcome.value;
    }
  }

  async #perform(gateway: Gateway, step: Step, values: readonly number[]): Promise<number[] | undefined> {
    const offset = step.block * blockBytes;
    const length = step.blocks * blockBytes;
    switch (step.op) {
      case 'read': {
        const into = Buffer.alloc(length);
        await gateway.read(offset, into);
        return values.map((_, index) => into.readDoubleBE(index * blockBytes));
      }
      case 'zero':
        await gateway.zero(offset, length, { fua: false, mayTrim: true, fast: false });
        return undefined;
      case 'trim':
        await gateway.trim(offset, length, false);
        return undefined;
      default: {
        const bytes = Buffer.alloc(length);
        for (const [index, value] of values.entries()) bytes.writeDoubleBE(value, index * blockBytes);
        await gateway.write(offset, bytes, step.op === 'fua');
        return undefined;
      }
    }
  }

  async #flush(line: GatewayLine, name: string): Promise<void> {
    const covered = this.#history.filter((operation) => operation.kind === 'write' && operation.outcome === 'ok');
    this.world.note(`${name} flush`);
    try {
      await this.#untilAnswered(line, (gateway) => gateway.flush());
      this.#noteDurable(covered);
      this.world.note(`${name} ok`);
    } catch (error) {
      this.world.note(`${name} failed: ${asFailure(error).message}`);
    }
  }

  #noteDurable(operations: readonly Operation[]): void {
    for (const operation of operations) operation.durableMs = Math.min(operation.durableMs, this.world.nowMs);
  }

  // --- faults ---

  #inflict(fault: Fault): void {
    const { world } = this;
    const host = this.#hosts[fault.host];
    const line = this.#lines[fault.gateway];
    if (host === undefined || line === undefined || this.#clientsDone === this.#plan.clients.length) return;
    world.note(`fault: ${fault.what} ${host.address} for ${fault.lastsMs.toFixed(0)} ms`);
    const restart = () => world.after(fault.lastsMs, () => host.start());
    switch (fault.what) {
      case 'kill':
        host.kill();
        restart();
        return;
      case 'crash':
        host.crash();
        restart();
        return;
      case 'stop':
        host.stop();
        restart();
        return;
      case 'gateway-kill':
        this.#killGateway(line, host, fault);
        return;
      case 'pause': {
        const { life } = host;
        const pause = () => {
          life?.process.pause();
          world.after(fault.lastsMs, () => life?.process.resume());
        };
        if (life?.disk !== undefined && world.random.chance(0.5)) life.disk.afterNextCheck = pause;
        else pause();
        return;
      }
      case 'cut': {
        const name = `gateway-${fault.gateway}`;
        host.cutOff.add(name);
        if (world.random.chance(0.5)) world.after(world.random.between(0, 3000), () => host.reset());
        world.after(fault.lastsMs, () => host.cutOff.delete(name));
        return;
      }
      case 'reset':
        host.reset();
        return;
      case 'take-over':
        this.#storage.owner = undefined;
        return;
      case 'sync-error':
        this.#storage.failNextSync = true;
        return;
      case 'write-error':
        this.#storage.failNextWrite = 'disk-error';
        return;
      case 'full':
        this.#storage.failNextWrite = 'no-space';
    }
  }

  /** Often it is cut off from a server just before: then its last writes are on their way while its successor uses another. */
  #killGateway(line: GatewayLine, host: Host, fault: Fault): void {
    const { world } = this;
    const cutMs = world.random.chance(0.5) ? world.random.between(0, 2500) : 0;
    if (cutMs > 0) {
      host.cutOff.add(line.name);
      world.after(cutMs, () => host.cutOff.delete(line.name));
    }
    world.after(cutMs > 0 ? world.random.between(0, 200) : 0, () => {
      line.kill();
      const soonMs = world.random.between(1, 50);
      world.after(world.random.chance(0.5) ? soonMs : fault.lastsMs, () => line.start());
    });
  }

  #heal(): void {
    this.#storage.failNextSync = false;
    this.#storage.failNextWrite = undefined;
    for (const line of this.#lines) line.start();
    for (const host of this.#hosts) {
      host.cutOff.clear();
      host.life?.process.resume();
      host.start();
    }
  }

  /** Reads everything, flushes, ends the gateways, and takes the power away. */
  async #finish(): Promise<void> {
    const { blocks } = this.#plan;
    for (const [index, line] of this.#lines.entries()) {
      for (let block = 0; block < blocks; block += 1) {
        const step: Step = { op: 'read', block, blocks: 1, pauseMs: 0, resendAfterMs: undefined };
        await this.#step(line, step, `final ${index}`);
      }
      await this.#flush(line, `final ${index}`);
    }
    for (const line of this.#lines) await (await line.current()).gateway.close();
    for (const host of this.#hosts) host.crash();
  }

  // --- verdict ---

  #judge(): string | undefined {
    for (let block = 0; block < this.#plan.blocks; block += 1) {
      const history = this.#history.filter((operation) => operation.block === block);
      const violation = judgeBlock(history) ?? judgeRemains(history, this.#storage.durable[block] ?? 0);
      if (violation !== undefined) return `block ${block}: ${violation}`;
    }
    return undefined;
  }

  #describeHang(): string {
    const pending = this.#history
      .filter((operation) => operation.outcome === 'pending')
      .map((operation) => operation.name);
    return `never answered: ${pending.join(', ') || 'a flush or the end'}`;
  }
}
