/** A disk server's core over a simulated disk, on a clock that the test moves. */
import assert from 'node:assert/strict';
import type { FailureCode } from '../../../src/base/failure.js';
import type { DiskEvent } from '../../../src/disk-server/disk-keeper.js';
import { type CoreRequest, DiskServer, type DiskServerLimits } from '../../../src/disk-server/disk-server.js';
import type { Done, Failed, Outcome } from '../../../src/disk-server/outcome.js';
import type { WriteStamp } from '../../../src/http-disk/messages.js';
import { FakeClock } from '../../support/fake-clock.js';
import { Gate } from '../../support/gate.js';
import { SimulatedMedium, type SimulatedOperation } from '../../support/simulated-disk.js';

export class Bench {
  readonly clock = new FakeClock();
  readonly medium: SimulatedMedium;
  readonly server: DiskServer;
  readonly events: DiskEvent[] = [];
  /** When the kernel would kill the process, as it was told last. */
  killAtMs: number | undefined;
  /** How often it was told. */
  killTimerCalls = 0;
  /** Runs when it is told. */
  whenKillTimerIsSet: () => void = () => {};

  constructor(limits: Partial<DiskServerLimits> = {}, medium = new SimulatedMedium(65_536)) {
    let instances = 0;
    this.medium = medium;
    this.server = new DiskServer({
      clock: this.clock,
      openDisk: () => medium.open(),
      killTimer: {
        set: (atMs) => {
          this.killAtMs = atMs;
          this.killTimerCalls++;
          this.whenKillTimerIsSet();
        },
      },
      newInstance: () => `i${++instances}`,
      limits,
    });
    this.server.events.subscribe((event) => this.events.push(event));
  }

  static async started(limits: Partial<DiskServerLimits> = {}, medium?: SimulatedMedium): Promise<Bench> {
    const bench = new Bench(limits, medium);
    await bench.server.start();
    return bench;
  }

  get instance(): string | undefined {
    return this.server.disk?.instance;
  }

  stamp(counter: number, fields: Partial<WriteStamp> = {}): WriteStamp {
    const deadlineMs = this.clock.nowMs() + 10_000;
    return {
      session: 's',
      epoch: { generation: 1, counter },
      instance: this.instance ?? 'none',
      deadlineMs,
      ...fields,
    };
  }

  /** Writes `byte` over `length` bytes from `offset` on. */
  write(
    offset: number,
    byte: number,
    how: { stamp?: WriteStamp; deferred?: boolean; length?: number } = {},
  ): Promise<Outcome> {
    const { stamp, deferred = false, length = 512 } = how;
    return this.run({ op: 'write', offset, length, deferred, stamp }, Buffer.alloc(length, byte));
  }

  async read(offset: number, length = 512, instance?: string): Promise<{ outcome: Outcome; data: Buffer }> {
    const data = Buffer.alloc(length);
    return { outcome: await this.run({ op: 'read', offset, length, instance }, undefined, data), data };
  }

  async run(request: CoreRequest, bytes?: Buffer, into?: Buffer): Promise<Outcome> {
    return this.server.execute(request, bytes, into);
  }

  /** Holds every operation that `which` names until the gate opens; the others go on. */
  hold(which: (operation: SimulatedOperation) => boolean): Gate {
    const gate = new Gate();
    const before = this.medium.before;
    this.medium.before = (operation) => (which(operation) ? gate.passed : before(operation));
    return gate;
  }

  /** The next operation of this kind fails. */
  failNext(op: SimulatedOperation['op'], failure: Error): void {
    const before = this.medium.before;
    this.medium.before = (operation) => {
      if (operation.op !== op) return before(operation);
      this.medium.before = before;
      return Promise.reject(failure);
    };
  }
}

export function assertDone(outcome: Outcome): asserts outcome is Done {
  assert.equal(outcome.at, 'done', outcome.at === 'failed' ? outcome.failure.message : '');
}

export function assertFailed(outcome: Outcome, code: FailureCode): asserts outcome is Failed {
  assert.equal(outcome.at === 'failed' ? outcome.failure.code : outcome.at, code);
}

/** Whether the promise has settled, once everything that can happen by itself has happened. */
export async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let pending = true;
  void promise.then(() => (pending = false));
  await new Promise((resolve) => void setImmediate(resolve));
  return pending;
}
