/**
 * Applies one write, zero or trim: the checks of the failover protocol, the disk operation, the sync.
 *
 * S1  checked again immediately before each system call is handed to a thread: of a long range piece by piece, and also when the
 *     disk itself let the write wait (for other writes to the same blocks, for a batch)
 * S2  counted as in progress from the first check to the end of the last piece
 * S4  the sync is asked for only after that
 * S8  fenced from each check on
 */
import { Failure } from '../base/failure.js';
import type { DiskAnswer, WriteRequest } from '../http-disk/messages.js';
import type { DiskLife } from './disk-life.js';
import type { Fence } from './fence.js';
import type { Work } from './operation.js';
import type { SessionTable } from './session-table.js';

/** A zero or trim of a longer range is applied in pieces of this length. */
const pieceBytesMax = 64 * 1024 * 1024;

export interface ChangeContext {
  readonly life: DiskLife;
  readonly sessions: SessionTable;
  readonly fence: Fence;
  /** Undefined: no objection to applying (a piece of) the request now. */
  readonly refuse: () => Failure | undefined;
  readonly answer: () => DiskAnswer;
  /** The disk has gone, as `failure` says. */
  readonly lost: (failure: Failure) => void;
}

export class ChangeWork implements Work {
  readonly late = 'timed-out';
  /** Called when the disk has come back: nothing of it can be applied any more. */
  onEnded: (() => void) | undefined;
  readonly commit: (() => Promise<void>) | undefined;
  readonly #request: WriteRequest;
  readonly #bytes: Buffer;
  readonly #context: ChangeContext;
  #piecesDone = 0;
  /** Pieces that passed their last check. */
  #handedOver = 0;
  #expired = false;
  #refusal: Failure | undefined;

  /** `bytes`: the payload of a write; anything for the others. */
  constructor(request: WriteRequest, bytes: Buffer, context: ChangeContext) {
    this.#request = request;
    this.#bytes = bytes;
    this.#context = context;
    this.commit = request.deferred ? undefined : () => context.life.commit.durable();
  }

  check(): Failure | undefined {
    return this.#context.refuse();
  }

  answer(): DiskAnswer {
    return this.#context.answer();
  }

  run(): Promise<void> {
    const { stamp, offset, op } = this.#request;
    if (stamp !== undefined) this.#context.sessions.begin(stamp.session, stamp.epoch);
    return op === 'write'
      ? this.#context.life.disk.write(offset, this.#bytes, this.#checkPiece)
      : this.#runInPieces(this.#request);
  }

  async #runInPieces({ offset, length }: WriteRequest): Promise<void> {
    for (let done = 0; done < length; done += pieceBytesMax) {
      await this.#applyPiece(offset + done, Math.min(pieceBytesMax, length - done));
      this.#piecesDone++;
    }
  }

  expire(): void {
    this.#expired = true;
  }

  ended(): void {
    const { stamp } = this.#request;
    if (stamp !== undefined) {
      this.#context.fence.leave(this);
      this.#context.sessions.end(stamp.session);
    }
    this.onEnded?.();
  }

  /** A disk that went away in the middle, or a part that was applied: the outcome is unknown, and said to be so. */
  explain(failure: Failure): Failure {
    if (failure.code === 'unavailable') this.#context.lost(failure);
    const begun = failure === this.#refusal ? this.#handedOver > 0 : this.#piecesDone > 0;
    const partly = begun && failure.row.outcome === 'not-applied';
    return partly || failure.code === 'unavailable' ? new Failure('server-error', failure.message) : failure;
  }

  /** S1 and S8, immediately before a system call. */
  readonly #checkPiece = (): void => {
    this.#throwRefusal();
    const { stamp } = this.#request;
    // The process may have been stopped after the check and before the timer was set.
    if (stamp !== undefined && this.#context.fence.enter(this, stamp.deadlineMs) === 'set') this.#throwRefusal();
    this.#handedOver++;
  };

  #throwRefusal(): void {
    this.#refusal = this.#expired
      ? new Failure('timed-out', 'the time was over before the end')
      : this.#context.refuse();
    if (this.#refusal !== undefined) throw this.#refusal;
  }

  #applyPiece(offset: number, length: number): Promise<void> {
    const { disk } = this.#context.life;
    if (this.#request.op !== 'zero') return disk.trim(offset, length, this.#checkPiece);
    return disk.zero(offset, length, this.#request.mayTrim, this.#checkPiece);
  }
}
