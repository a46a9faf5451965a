/**
 * The gateway: one volume over many servers. It cuts requests into pieces, keeps overlapping ones in order, keeps copies of what is not
 * durable, and leaves the way to the servers to the pool.
 * Promises (ARCHITECTURE.md, invariants): a write-through write, and a flush, is answered when it is durable; no acknowledged write is
 * lost; a read returns every write acknowledged before it; every request is answered.
 */
import { assert } from '../base/assert.js';
import type { BufferPool } from '../base/buffer-pool.js';
import { Channel } from '../base/channel.js';
import { type Clock, sleep } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import type { Extent } from '../base/range.js';
import type { Volume, ZeroOptions } from '../base/volume.js';
import type { Attachment } from './attachment.js';
import type { Backend, Probe } from './backend.js';
import type { GatewayEvent } from './events.js';
import { type Task, zeroBytesMax } from './job.js';
import type { Inheritance } from './inheritance.js';
import type { Ledger } from './ledger.js';
import { Payload } from './payload.js';
import { landingMarginMs, Pool } from './pool.js';
import { Retention, type RoomRequest } from './retention.js';
import type { Verdict } from './search.js';
import type { Session } from './session.js';
import { WriteOrder } from './write-order.js';

export interface GatewayOptions {
  readonly clock: Clock;
  readonly session: Session;
  readonly ledger: Ledger;
  /** Shared with whoever calls `write`. */
  readonly buffers: BufferPool;
  /** Writes are refused whatever the server allows. */
  readonly readOnly: boolean;
  /** The size of the volume. Undefined: the size of the first server that is found. */
  readonly sizeBytes: number | undefined;
  /** How long one attempt may take, milliseconds. */
  readonly requestTimeoutMs: number;
  /** How long a request is tried before it fails, milliseconds. */
  readonly ioTimeoutMs: number;
  /** Undefined: write-through. */
  readonly writeBack: { readonly budgetBytes: number } | undefined;
  readonly refusalProvesDeath: boolean;
  /** Of a predecessor with the same session (failover rules T3, T5). Undefined: there was none. */
  readonly inherited?: Inheritance | undefined;
}

type WriteTask = Extract<Task, { deferrable: boolean }>;

/** One HTTP request carries no more than this. */
const pieceBytesMax = 1024 * 1024;
const trimBytesMax = 256 * 1024 * 1024;
/** How soon a commit that failed is tried again while writes wait for the room that it would make. */
const commitRetryMs = 1000;
const cacheBytesInFlight = pieceBytesMax;

export class Gateway implements Volume {
  readonly events = new Channel<GatewayEvent>();
  readonly readOnly: boolean;
  readonly #options: GatewayOptions;
  readonly #order = new WriteOrder();
  readonly #retention: Retention | undefined;
  readonly #pool: Pool;
  #sizeBytes: number | undefined;
  #sizeFound: ((sizeBytes: number) => void) | undefined;
  /** Writes that a predecessor had sent when it died have landed by then, or never will. */
  readonly #predecessorLandsByMs: number;
  #commitRunning: Promise<void> | undefined;
  #commitNext: Promise<void> | undefined;

  constructor(servers: readonly Backend[], options: GatewayOptions) {
    this.#options = options;
    this.readOnly = options.readOnly;
    this.#sizeBytes = options.sizeBytes;
    this.#predecessorLandsByMs =
      options.inherited === undefined ? 0 : options.clock.nowMs() + options.requestTimeoutMs + landingMarginMs;
    this.#retention = options.writeBack === undefined ? undefined : new Retention(options.writeBack.budgetBytes);
    this.#pool = new Pool(servers, {
      ...options,
      events: this.events,
      retention: this.#retention,
      judge: (probe) => this.#judge(probe),
      adopt: (attachment) => this.#adopt(attachment),
    });
  }

  /** Begins to look for a server. */
  start(): void {
    this.#pool.start();
  }

  get sizeBytes(): number {
    assert(this.#sizeBytes !== undefined, 'nobody asks for the size before it is known');
    return this.#sizeBytes;
  }

  get isSizeKnown(): boolean {
    return this.#sizeBytes !== undefined;
  }

  /** Resolves when the size is known: at once if it was given, otherwise when the first server has been found. */
  whenSizeKnown(): Promise<number> {
    if (this.#sizeBytes !== undefined) return Promise.resolve(this.#sizeBytes);
    return new Promise((resolve) => {
      this.#sizeFound = resolve;
    });
  }

  read(offset: number, into: Buffer): Promise<unknown> {
    const turn = this.#order.readTurn(offset, into.length);
    const giveUpAtMs = this.#giveUpAtMs();
    return turn === undefined
      ? this.#read(offset, into, giveUpAtMs)
      : turn.then(() => {
          this.#refuseLate(giveUpAtMs);
          return this.#read(offset, into, giveUpAtMs);
        });
  }

  write(offset: number, bytes: Buffer, fua: boolean): Promise<void> {
    const payload = new Payload(bytes, this.#options.buffers);
    return this.#inTurn(offset, bytes.length, pieceBytesMax, payload, (start, length) => {
      const from = start - offset;
      const piece = length === bytes.length ? bytes : bytes.subarray(from, from + length);
      return { op: 'write', offset: start, length, bytes: piece, deferrable: !fua };
    });
  }

  zero(offset: number, length: number, { fua, mayTrim, fast }: ZeroOptions): Promise<void> {
    return this.#inTurn(offset, length, zeroBytesMax, undefined, (start, size) => {
      return { op: 'zero', offset: start, length: size, mayTrim, fast, deferrable: !fua };
    });
  }

  trim(offset: number, length: number, fua: boolean): Promise<void> {
    return this.#inTurn(offset, length, trimBytesMax, undefined, (start, size) => {
      return { op: 'trim', offset: start, length: size, deferrable: !fua };
    });
  }

  /**
   * Rule G10. In write-through mode every answered write is durable already, except those that a predecessor in write-back mode has
   * left behind (rule T5).
   */
  async flush(): Promise<void> {
    const { isEmpty = true } = this.#retention ?? {};
    if (isEmpty && !this.#pool.owesCommit) return;
    // Behind a commit that is under way it could take twice the time.
    const waits = this.#commitRunning !== undefined;
    const commit = this.#commit();
    await (waits ? this.#inTime(commit, this.#giveUpAtMs(), 'no commit in time') : commit);
  }

  /** Reads the range and throws the data away: it is warm in the server's cache then. */
  async cache(offset: number, length: number): Promise<void> {
    const { buffers } = this.#options;
    for (let done = 0; done < length; done += cacheBytesInFlight) {
      const into = buffers.take(Math.min(cacheBytesInFlight, length - done));
      await this.read(offset + done, into).finally(() => buffers.give(into));
    }
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    const giveUpAtMs = this.#giveUpAtMs();
    const turn = this.#order.readTurn(offset, length);
    if (turn !== undefined) {
      await turn;
      this.#refuseLate(giveUpAtMs);
    }
    const { answer } = await this.#pool.perform({ op: 'map', offset, length }, giveUpAtMs);
    assert(answer.extents !== undefined, 'a map is answered by extents');
    return answer.extents;
  }

  /**
   * Ends everything. In write-back mode after one last commit, for at most one request time-out.
   * Resolves with the number of acknowledged bytes that may not be durable; `quiet`: no request was unanswered, so that none can
   * still land.
   */
  async close(): Promise<{ undurableBytes: number; quiet: boolean }> {
    const retention = this.#retention;
    if (retention !== undefined && !retention.isEmpty) {
      const { clock, requestTimeoutMs } = this.#options;
      const limit = new Promise<void>((resolve) => void clock.after(requestTimeoutMs, resolve));
      await Promise.race([this.#commit().catch(asFailure), limit]);
    }
    const quiet = this.isIdle;
    this.#pool.close();
    return { undurableBytes: retention?.retainedBytes ?? 0, quiet };
  }

  /**
   * Asks the server in use how large its disk is now. Undefined: no server is in use or it does not say; only servers with sessions are
   * asked, an old one may have to end something else for it.
   */
  async measure(): Promise<number | undefined> {
    const before = this.#pool.current;
    if (before?.instance === undefined) return undefined;
    const probe = await before.backend.probe().catch(asFailure);
    if (probe instanceof Failure) return undefined;
    if (probe.description.instance !== before.instance) {
      this.#pool.leave(before, 'another server answers there now');
      return undefined;
    }
    return this.#pool.current === before ? probe.description.sizeBytes : undefined;
  }

  /** The volume is this large from now on. Servers with smaller disks are not used any more. */
  grow(sizeBytes: number): void {
    assert(sizeBytes >= this.sizeBytes, 'a volume does not shrink');
    this.#sizeBytes = sizeBytes;
  }

  /** No request is unanswered, also none that waits for its turn or for room: nothing that was sent can still land (rule G4). */
  get isIdle(): boolean {
    return this.#pool.pending === 0 && this.#order.isEmpty;
  }

  /** Writes of a predecessor that died may still land: the server must not be changed without regard to them (rule T3). */
  get awaitsPredecessor(): boolean {
    return this.#pool.awaitsPredecessor;
  }

  #giveUpAtMs(): number {
    return this.#options.clock.nowMs() + this.#options.ioTimeoutMs;
  }

  /** The time went by in a queue: a write that is sent now could take one more request time-out, and who waits for it another one. */
  #refuseLate(giveUpAtMs: number): void {
    if (this.#options.clock.nowMs() >= giveUpAtMs) throw new Failure('gave-up', 'its turn did not come in time');
  }

  // --- reads and writes ---

  #read(offset: number, into: Buffer, giveUpAtMs: number): Promise<unknown> {
    if (into.length === 0) return Promise.resolve();
    if (into.length <= pieceBytesMax) {
      return this.#pool.perform({ op: 'read', offset, length: into.length, into }, giveUpAtMs);
    }
    return allDone(pieces(offset, into.length, pieceBytesMax), (start, length) => {
      const from = start - offset;
      return this.#pool.perform(
        { op: 'read', offset: start, length, into: into.subarray(from, from + length) },
        giveUpAtMs,
      );
    });
  }

  /** Does a write in its turn among overlapping ones (rule G1), in pieces of at most `pieceMax` bytes. Lets go of `payload` in the end. */
  async #inTurn(
    offset: number,
    length: number,
    pieceMax: number,
    payload: Payload | undefined,
    task: (start: number, length: number) => WriteTask,
  ): Promise<void> {
    if (this.readOnly || length === 0) {
      payload?.release();
      if (this.readOnly) throw new Failure('read-only');
      return;
    }
    const giveUpAtMs = this.#giveUpAtMs();
    const turn = this.#order.writeTurn(offset, length);
    try {
      if (turn.ready !== undefined) {
        await turn.ready;
        this.#refuseLate(giveUpAtMs);
      }
      if (length <= pieceMax) await this.#writePiece(task(offset, length), payload, giveUpAtMs);
      else
        await allDone(pieces(offset, length, pieceMax), (...part) =>
          this.#writePiece(task(...part), payload, giveUpAtMs),
        );
    } catch (error) {
      if (asFailure(error).code !== 'shutting-down') await this.#untilPredecessorLanded();
      throw error;
    } finally {
      turn.done();
      payload?.release();
    }
  }

  /** Rule G4: what fails here may be on its way by a predecessor that died. */
  async #untilPredecessorLanded(): Promise<void> {
    const { clock } = this.#options;
    const leftMs = this.#predecessorLandsByMs - clock.nowMs();
    if (leftMs > 0) await sleep(clock, leftMs);
  }

  async #writePiece(task: WriteTask, payload: Payload | undefined, giveUpAtMs: number): Promise<void> {
    const retention = this.#retention;
    if (retention === undefined) {
      await this.#pool.perform(task, giveUpAtMs);
      return;
    }
    const payloadBytes = task.op === 'write' && task.deferrable ? task.length : 0;
    const request = retention.promise(payloadBytes);
    if (request !== undefined) await this.#waitForRoom(request, giveUpAtMs);
    try {
      const { outcome } = await this.#pool.perform(task, giveUpAtMs);
      if (outcome === 'deferred') retention.keep(task, payload);
      else if (outcome === 'durable') retention.dropOverlapped(task.offset, task.length); // rule G11
    } finally {
      retention.settle(payloadBytes);
    }
    if (retention.wantsCommit) this.#commitInBackground();
  }

  /** Push-back: at the budget, writes wait until a commit has made room. */
  async #waitForRoom(request: RoomRequest, giveUpAtMs: number): Promise<void> {
    this.#commitInBackground();
    try {
      await this.#inTime(request.admitted, giveUpAtMs, 'no room for another copy in time');
    } catch (error) {
      request.cancel();
      throw error;
    }
  }

  /** Waits for `promise`, but not for longer than a request may take. */
  async #inTime(promise: Promise<void>, giveUpAtMs: number, why: string): Promise<void> {
    const { clock } = this.#options;
    let giveUp: (failure: Failure) => void = () => {};
    const limit = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    const timer = clock.after(giveUpAtMs - clock.nowMs(), () => giveUp(new Failure('gave-up', why)));
    try {
      await Promise.race([promise, limit]);
    } finally {
      timer.cancel();
    }
  }

  // --- commits ---

  /** Resolves when every copy that exists now is durable. Calls during a commit share the next one. */
  #commit(): Promise<void> {
    if (this.#commitRunning === undefined) {
      this.#commitRunning = this.#commitOnce().finally(() => {
        this.#commitRunning = undefined;
      });
      return this.#commitRunning;
    }
    this.#commitNext ??= this.#commitRunning.then(
      () => this.#startNextCommit(),
      () => this.#startNextCommit(),
    );
    return this.#commitNext;
  }

  #startNextCommit(): Promise<void> {
    this.#commitNext = undefined;
    return this.#commit();
  }

  async #commitOnce(): Promise<void> {
    await this.#pool.perform({ op: 'flush', offset: 0, length: 0 }, this.#giveUpAtMs());
  }

  #commitInBackground(): void {
    if (this.#commitRunning !== undefined) return;
    this.#commit().catch((error: unknown) => {
      const { message, code } = asFailure(error);
      const { retainedBytes = 0, isAwaited = false } = this.#retention ?? {};
      this.events.publish({ type: 'commit-failed', reason: message, retainedBytes });
      if (isAwaited && code !== 'shutting-down') this.#options.clock.after(commitRetryMs, () => this.#commitForRoom());
    });
  }

  /** Nobody else might: all who write may be waiting. */
  #commitForRoom(): void {
    if (this.#retention?.isAwaited === true) this.#commitInBackground();
  }

  // --- servers ---

  #judge({ description }: Probe): Verdict {
    const { sizeBytes, readOnly } = description;
    if (sizeBytes === 0) return { use: 'no', reason: 'its disk is empty' };
    if (this.#sizeBytes !== undefined && sizeBytes < this.#sizeBytes) {
      return { use: 'no', reason: `its disk has ${sizeBytes} bytes, the device has ${this.#sizeBytes}` };
    }
    return { use: readOnly && !this.readOnly ? 'second-best' : 'yes' };
  }

  #adopt(attachment: Attachment): void {
    if (this.#sizeBytes !== undefined) return;
    this.#sizeBytes = attachment.description.sizeBytes;
    this.events.publish({ type: 'size', sizeBytes: this.#sizeBytes });
    this.#sizeFound?.(this.#sizeBytes);
  }
}

function* pieces(offset: number, length: number, pieceMax: number): Generator<[start: number, length: number]> {
  for (let done = 0; done < length; done += pieceMax) yield [offset + done, Math.min(pieceMax, length - done)];
}

/** Waits for all, then rejects with the first failure: nothing is in flight any more when it settles. */
async function allDone(
  parts: Iterable<[start: number, length: number]>,
  perform: (start: number, length: number) => Promise<unknown>,
): Promise<void> {
  const outcomes = await Promise.allSettled(Array.from(parts, ([start, length]) => perform(start, length)));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw asFailure(outcome.reason);
}
