/**
 * Reads for one connection. A long one is read and sent piece by piece, the next one while the last one is on its way, so
 * that the whole of a large disk takes no more memory than two pieces.
 */
import { encodeFailure } from '../http-disk/failure-codec.js';
import type { DiskRequest } from '../http-disk/messages.js';
import type { WholeRead } from '../http-disk/request-codec.js';
import { type DiskFacts, encodeAnswer } from '../http-disk/response-codec.js';
import type { Exchange, Rest } from './exchange.js';
import type { Front } from './front.js';
import { type Outcome, whenFree } from './outcome.js';
import type { ReplyQueue } from './reply-queue.js';

export type ReadRequest = Extract<DiskRequest, { op: 'read' }> | WholeRead;

export interface ReadingEvents {
  readonly isGone: () => boolean;
  /** The request runs no longer. */
  readonly settled: () => void;
  /** Something is due that was not before. */
  readonly changed: () => void;
}

export class Reading {
  readonly #front: Front;
  readonly #replies: ReplyQueue;
  readonly #events: ReadingEvents;

  constructor(front: Front, replies: ReplyQueue, events: ReadingEvents) {
    this.#front = front;
    this.#replies = replies;
    this.#events = events;
  }

  /** How much memory a read takes until it is answered. */
  neededBytes(request: ReadRequest): number {
    const { pieceBytesMax } = this.#front.limits;
    return request.length <= pieceBytesMax ? request.length : 2 * pieceBytesMax;
  }

  start(exchange: Exchange, request: ReadRequest, disk: DiskFacts): void {
    const { offset, instance } = request;
    const length = Math.min(request.length, this.#front.limits.pieceBytesMax);
    const rest = restAfter(offset + length, offset + request.length, disk.instance);
    this.#read({ op: 'read', offset, length, instance }, exchange, rest, (outcome, data) => {
      if (outcome.at === 'done') {
        this.#replies.answer(exchange, encodeAnswer(request, outcome.answer, disk), data, rest);
        return;
      }
      const { failure, answer } = outcome;
      this.#replies.answer(exchange, encodeFailure(failure, { sizeBytes: disk.sizeBytes, answer }));
    });
  }

  continue(exchange: Exchange, { offset, end, instance }: Rest): void {
    const length = Math.min(end - offset, this.#front.limits.pieceBytesMax);
    const rest = restAfter(offset + length, end, instance);
    this.#read({ op: 'read', offset, length, instance }, exchange, rest, (outcome, data) => {
      if (outcome.at === 'done') this.#replies.continue(exchange, data, rest);
      else this.#replies.break(exchange);
    });
  }

  /** `done` takes over the data, unless the outcome is a failure. */
  #read(
    request: Extract<DiskRequest, { op: 'read' }>,
    exchange: Exchange,
    rest: Rest | undefined,
    done: (outcome: Outcome, data: Buffer) => void,
  ): void {
    const { core, pool } = this.#front;
    const data = pool.take(request.length);
    const finish = (outcome: Outcome) => {
      const isGone = this.#events.isGone();
      if (isGone || outcome.at === 'failed') whenFree(outcome, () => pool.give(data));
      if (isGone) this.#replies.abandon(exchange);
      else done(outcome, data);
      if (outcome.at === 'failed' || rest === undefined) this.#events.settled();
    };
    const outcome = core.execute(request, undefined, data);
    if (!(outcome instanceof Promise)) {
      finish(outcome);
      return;
    }
    void outcome.then((later) => {
      finish(later);
      this.#events.changed();
    });
  }
}

function restAfter(offset: number, end: number, instance: string | undefined): Rest | undefined {
  return offset < end ? { offset, end, instance } : undefined;
}
