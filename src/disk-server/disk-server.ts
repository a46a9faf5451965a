/**
 * The disk server's core: requests of the HTTP disk protocol in, outcomes out, without HTTP. Clock, disk and the kernel's timer come
 * in by constructor. It keeps the server's rules of the failover protocol (docs/failover.md): S1 to S3 in session-table.ts and
 * write-guard.ts, S4 in group-commit.ts, S5 and S6 in disk-keeper.ts, S7 here, S8 in fence.ts.
 *
 * Promise: every request has an outcome within the time limit, whatever the disk does; everything that waits is bounded;
 * nothing starts on a disk that is being closed.
 */
import { assert } from '../base/assert.js';
import { Channel } from '../base/channel.js';
import type { Clock } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import { type ByteRange, type Extent, isInside } from '../base/range.js';
import { TimeLimit } from '../base/time-limit.js';
import { within } from '../base/within.js';
import { RangeLock } from '../disk/range-lock.js';
import { extentsMax } from '../http-disk/map-codec.js';
import type {
  DiskAnswer,
  DiskDescription,
  DiskRequest,
  Feature,
  WriteRequest,
  WriteStamp,
} from '../http-disk/messages.js';
import type { DiskFacts } from '../http-disk/response-codec.js';
import { type ChangeContext, ChangeWork } from './change-work.js';
import { type DiskEvent, DiskKeeper, type DiskOpener, type KeeperLimits, type Stopped } from './disk-keeper.js';
import type { DiskLife } from './disk-life.js';
import { Fence, type KillTimer } from './fence.js';
import { LookWork } from './look-work.js';
import { Operation, type Work } from './operation.js';
import { type Outcome, plainAnswer } from './outcome.js';
import { SessionTable } from './session-table.js';
import { Slots } from './slots.js';
import { refuseArrival, refuseStart } from './write-guard.js';

export interface DiskServerLimits extends KeeperLimits {
  /** Disk operations at a time, each in a thread of the pool. A sync and an open or close come on top. */
  readonly slots: number;
  /** Operations that wait for a slot, or for older writes. */
  readonly waitingMax: number;
  /** After that a request is answered, though the disk may not have come back. */
  readonly operationMs: number;
  /** Dmax: the farthest deadline that is accepted, and how long a silent session is remembered. */
  readonly deadlineAheadMaxMs: number;
  readonly sessionsMax: number;
  /** How old may be what a probe is told, and how long it waits for news: the size, and that the disk is not suspended. */
  readonly newsAgeMaxMs: number;
  /** Longer reads are not tried without a thread: copying takes its time, too. */
  readonly readNowBytesMax: number;
}

const defaultLimits: DiskServerLimits = {
  slots: 16,
  waitingMax: 4096,
  operationMs: 30_000,
  deadlineAheadMaxMs: 60_000,
  sessionsMax: 4096,
  newsAgeMaxMs: 1000,
  readNowBytesMax: 128 * 1024,
  retryDelayMs: 1000,
  firstAttemptMs: 8000,
  slowOpenMs: 5000,
  stopWaitMs: 2000,
  closeWaitMs: 3000,
  suspension: { patienceMs: 250, pauseMsMax: 1000 },
};

export interface DiskServerOptions {
  /** Its time is what clients see as `Disk-Clock`: CLOCK_BOOTTIME, which goes on while the machine is suspended. */
  readonly clock: Clock;
  readonly openDisk: DiskOpener;
  /** In the time of `clock`. */
  readonly killTimer: KillTimer;
  /** A new id at each call: 1 to 64 characters of [A-Za-z0-9_-], never the same twice on any host. */
  readonly newInstance: () => string;
  readonly limits?: Partial<DiskServerLimits>;
}

/** A probe without what only the connection knows. */
export type CoreDescription = Omit<DiskDescription, 'endpoint'>;
/** A request that {@link DiskServer.execute} takes. */
export type CoreRequest = Exclude<DiskRequest, { op: 'probe' }>;

const noBytes = Buffer.alloc(0);

export class DiskServer {
  readonly events = new Channel<DiskEvent>();
  /** Since the start; requests that were refused count as failures. */
  readonly counters = { reads: 0, readBytes: 0, writes: 0, writtenBytes: 0, failures: 0 };
  readonly #clock: Clock;
  readonly #limits: DiskServerLimits;
  readonly #keeper: DiskKeeper;
  readonly #sessions: SessionTable;
  readonly #fence: Fence;
  readonly #slots: Slots;
  readonly #timeLimit: TimeLimit<Operation>;
  readonly #plainOrder = new RangeLock();
  /** Those that have not started. */
  readonly #waiting = new Set<Operation>();

  constructor({ clock, openDisk, killTimer, newInstance, limits }: DiskServerOptions) {
    this.#clock = clock;
    this.#limits = { ...defaultLimits, ...limits };
    this.#fence = new Fence(clock, killTimer);
    this.#slots = new Slots(this.#limits.slots);
    this.#timeLimit = new TimeLimit(clock, this.#limits.operationMs, (operation) => operation.expire());
    this.#sessions = new SessionTable({
      memoryMs: this.#limits.deadlineAheadMaxMs,
      sessionsMax: this.#limits.sessionsMax,
    });
    this.#keeper = new DiskKeeper({
      ...{ clock, openDisk, newInstance, limits: this.#limits, events: this.events },
      onUnavailable: () => this.#refuseWaiting(),
    });
  }

  /** Resolves when the first attempt to open the disk is over: not necessarily with success. */
  start(): Promise<void> {
    return this.#keeper.start();
  }

  /** S6: refuses everything new at once, lets what runs finish for a limited time, and closes the disk. Idempotent. */
  stop(): Promise<Stopped> {
    return this.#keeper.stop();
  }

  /** The disk as it is open now. Undefined: it is not, {@link refusal} says why. */
  get disk(): DiskFacts | undefined {
    return this.#keeper.life;
  }

  /** Disk operations in threads, and those that wait for a thread. */
  get load(): { readonly running: number; readonly waiting: number } {
    return this.#slots.load;
  }

  /** Why there is no disk: `unavailable`. */
  refusal(): Failure {
    return this.#keeper.refusal();
  }

  /** The instance and the clock, for an answer that names them. Without a disk there is no instance. */
  identify(): DiskAnswer {
    const life = this.#keeper.life;
    return life === undefined ? plainAnswer : this.#answer(life, life.instance);
  }

  /** The answer to HEAD. Looks again how the disk is, unless that was done just before. Rejects with a Failure. */
  async probe(): Promise<CoreDescription> {
    const life = this.#keeper.life;
    if (life === undefined) throw this.#keeper.refusal();
    if (this.#clock.nowMs() - life.checkedMs >= this.#limits.newsAgeMaxMs) await this.#refresh(life);
    if (this.#keeper.life !== life) throw this.#keeper.refusal();
    return this.#describe(life);
  }

  /**
   * Executes one request. `bytes`: the payload of a write; `into`: where a read's data goes; each exactly as long as the
   * request says. They belong to the server until the outcome is there (and beyond that, while it is `stillRunning`).
   * A read that needs no waiting has its outcome at once, without a promise. Never rejects.
   */
  execute(request: CoreRequest, bytes: Buffer | undefined, into: Buffer | undefined): Outcome | Promise<Outcome> {
    const life = this.#keeper.life;
    if (life === undefined) return this.#failed(this.#keeper.refusal(), plainAnswer);
    switch (request.op) {
      case 'read':
        assert(into !== undefined && into.length === request.length, 'a read needs room for its data');
        return this.#read(life, request, into);
      case 'write':
        assert(bytes !== undefined && bytes.length === request.length, 'a write needs its payload');
        return this.#change(life, request, bytes);
      case 'zero':
      case 'trim':
        return this.#change(life, request, noBytes);
      case 'flush':
        return this.#flush(life, request);
      case 'map':
        return this.#map(life, request);
    }
  }

  #read(life: DiskLife, request: Extract<CoreRequest, { op: 'read' }>, into: Buffer): Outcome | Promise<Outcome> {
    const { offset, length, instance } = request;
    const refusal = this.#refuseLook(life, instance) ?? this.#refuseRange(life, request);
    if (refusal !== undefined) return this.#failed(refusal, this.#answer(life, instance));
    this.counters.reads++;
    this.counters.readBytes += length;
    if (length <= this.#limits.readNowBytesMax && life.disk.readNow(offset, into)) {
      return { at: 'done', answer: this.#answer(life, instance) };
    }
    return this.#look(life, instance, () => life.disk.read(offset, into));
  }

  #map(life: DiskLife, request: Extract<CoreRequest, { op: 'map' }>): Outcome | Promise<Outcome> {
    const { offset, length, instance } = request;
    const refusal = this.#refuseLook(life, instance) ?? this.#refuseRange(life, request);
    if (refusal !== undefined) return this.#failed(refusal, this.#answer(life, instance));
    let extents: Extent[] = [];
    const look = async () => {
      extents = await life.disk.extents(offset, length, extentsMax);
    };
    return this.#look(life, instance, look, () => ({ ...this.#answer(life, instance), extents }));
  }

  /** A flush needs no slot: at most one sync is in progress, and it is shared. */
  #flush(life: DiskLife, { instance }: Extract<CoreRequest, { op: 'flush' }>): Outcome | Promise<Outcome> {
    const refusal = this.#refuseLook(life, instance);
    if (refusal !== undefined) return this.#failed(refusal, this.#answer(life, instance));
    const work = new LookWork({
      refuse: () => this.#refuseLook(life, instance),
      run: () => life.commit.durable(),
      answer: () => this.#answer(life, instance),
      lost: (failure) => this.#keeper.lost(life, failure),
    });
    return this.#perform(life, work, (operation) => {
      operation.start(() => {});
      return () => {};
    });
  }

  #look(
    life: DiskLife,
    instance: string | undefined,
    run: () => Promise<void>,
    answer = () => this.#answer(life, instance),
  ): Promise<Outcome> {
    const refuse = () => this.#refuseLook(life, instance);
    const lost = (failure: Failure) => this.#keeper.lost(life, failure);
    const work = new LookWork({ refuse, run, answer, lost });
    return this.#perform(life, work, (operation) => {
      this.#slots.enter(operation);
      return () => this.#slots.withdraw(operation);
    });
  }

  #change(life: DiskLife, request: WriteRequest, bytes: Buffer): Outcome | Promise<Outcome> {
    const { stamp } = request;
    const answer = () => this.#answer(life, stamp?.instance);
    const refusal = this.#refuseArrival(life, request);
    if (refusal !== undefined) return this.#failed(refusal, answer());
    this.counters.writes++;
    if (request.op === 'write') this.counters.writtenBytes += request.length;
    const context: ChangeContext = {
      life,
      sessions: this.#sessions,
      fence: this.#fence,
      answer,
      refuse: () => this.#refuseStart(life, stamp),
      lost: (failure) => this.#keeper.lost(life, failure),
    };
    const work = new ChangeWork(request, bytes, context);
    return this.#perform(life, work, (operation) =>
      stamp === undefined ? this.#enterAfterPlain(operation, request, work) : this.#enterInOrder(operation, stamp),
    );
  }

  /**
   * A plain client that has given a change up sends the next one over another connection, and nothing tells the two apart: the later one
   * starts when the disk has come back from the earlier one. Returns how to leave the queues.
   */
  #enterAfterPlain(operation: Operation, range: ByteRange, work: ChangeWork): () => void {
    let ended = () => {};
    const end = new Promise<void>((resolve) => {
      ended = resolve;
    });
    work.onEnded = ended;
    void this.#plainOrder.hold(range, () => {
      if (this.#waiting.has(operation)) this.#slots.enter(operation);
      return end;
    });
    return () => {
      this.#slots.withdraw(operation);
      ended();
    };
  }

  /** S2, then a slot. Returns how to leave the queues. */
  #enterInOrder(operation: Operation, stamp: WriteStamp): () => void {
    const enterSlots = () => this.#slots.enter(operation);
    const withdrawFromSlots = () => this.#slots.withdraw(operation);
    if (!this.#sessions.waitsForLower(stamp.session, stamp.epoch, enterSlots)) {
      enterSlots();
      return withdrawFromSlots;
    }
    return () => {
      this.#sessions.stopWaiting(stamp.session, enterSlots);
      withdrawFromSlots();
    };
  }

  /** Lets `work` wait as `enter` says (it returns how to give that up), and run, for a limited time in all. */
  #perform(life: DiskLife, work: Work, enter: (operation: Operation) => () => void): Promise<Outcome> {
    if (this.#waiting.size >= this.#limits.waitingMax) {
      return Promise.resolve(
        this.#failed(new Failure('unavailable', 'too many requests wait for the disk'), work.answer()),
      );
    }
    return new Promise((resolve) => {
      const operation: Operation = new Operation(life, work, {
        limit: this.#timeLimit,
        left: () => this.#waiting.delete(operation),
        settle: (outcome) => {
          if (outcome.at === 'failed') this.counters.failures++;
          resolve(outcome);
        },
      });
      this.#waiting.add(operation);
      operation.waitIn(enter(operation));
    });
  }

  /** The disk is not open any more: nothing that waits may start (S5, S6). */
  #refuseWaiting(): void {
    for (const operation of [...this.#waiting]) operation.refuse(this.#keeper.refusal());
  }

  /** S7. */
  #refuseLook(life: DiskLife, instance: string | undefined): Failure | undefined {
    if (this.#keeper.life !== life) return this.#keeper.refusal();
    if (instance === undefined || instance === life.instance) return undefined;
    return new Failure('other-instance', `this is instance ${life.instance}`);
  }

  #refuseArrival(life: DiskLife, request: WriteRequest): Failure | undefined {
    const { stamp } = request;
    const refusal = stamp === undefined ? undefined : this.#refuseStamp(life, stamp, refuseArrival);
    if (refusal !== undefined) return refusal;
    if (life.readOnly) return new Failure('read-only', 'the disk is read-only');
    if (request.op === 'zero' && request.fast && !life.disk.zeroesFast) {
      return new Failure('unsupported', 'zeroes would have to be written');
    }
    return this.#refuseRange(life, request);
  }

  /** S1, immediately before (a piece of) a write is applied. */
  #refuseStart(life: DiskLife, stamp: WriteStamp | undefined): Failure | undefined {
    return stamp === undefined ? undefined : this.#refuseStamp(life, stamp, refuseStart);
  }

  #refuseStamp(life: DiskLife, stamp: WriteStamp, refuse: typeof refuseStart): Failure | undefined {
    return refuse(this.#sessions, stamp, life.instance, this.#clock.nowMs(), this.#limits.deadlineAheadMaxMs);
  }

  #refuseRange(life: DiskLife, { offset, length }: ByteRange): Failure | undefined {
    if (isInside(offset, length, life.sizeBytes)) return undefined;
    return new Failure('out-of-range', `the range ends behind the disk's ${life.sizeBytes} bytes`);
  }

  /** Only a request that names an instance is told one: `named`. */
  #answer(life: DiskLife, named: string | undefined): DiskAnswer {
    return named === undefined ? plainAnswer : { instance: life.instance, clockMs: this.#clock.nowMs() };
  }

  #failed(failure: Failure, answer: DiskAnswer): Outcome {
    this.counters.failures++;
    return { at: 'failed', failure, answer };
  }

  /** Resolves in time: a disk that neither answers nor is known to be suspended keeps its old size. */
  async #refresh(life: DiskLife): Promise<void> {
    life.checkedMs = this.#clock.nowMs();
    const news = Promise.all([life.checkSuspension(), this.#refreshSize(life)]);
    await within(this.#clock, this.#limits.newsAgeMaxMs, news);
  }

  /** Resolves when the size is known, or it is known that it will not be. */
  #refreshSize(life: DiskLife): Promise<void> {
    return new Promise((resolve) => {
      const user = { abandon: () => resolve() };
      const ended = () => {
        life.end(user);
        resolve();
      };
      life.begin(user);
      life.disk.refreshSize().then(ended, (error: unknown) => {
        const failure = asFailure(error);
        ended();
        if (failure.code === 'unavailable') this.#keeper.lost(life, failure);
      });
    });
  }

  #describe(life: DiskLife): CoreDescription {
    return {
      sizeBytes: life.sizeBytes,
      readOnly: life.readOnly,
      features: featuresOf(life),
      instance: life.instance,
      clockMs: this.#clock.nowMs(),
      logicalBlockBytes: life.disk.logicalBlockBytes,
      physicalBlockBytes: life.disk.physicalBlockBytes,
    };
  }
}

function featuresOf(life: DiskLife): ReadonlySet<Feature> {
  if (life.readOnly) return new Set<Feature>(['flush', 'map', 'session']);
  const always: Feature[] = ['flush', 'trim', 'zero', 'map', 'session'];
  return new Set<Feature>(life.disk.zeroesFast ? [...always, 'fast-zero'] : always);
}
