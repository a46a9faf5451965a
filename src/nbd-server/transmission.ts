/**
 * The transmission phase of one connection: requests in, replies out, in whatever order the volume answers.
 *
 *     serving ──DISC · end of input · bad magic──▶ ending ──last answer──▶ over
 *        │ └────stop()────▶ stopping ──last answer taken by the kernel────▲ ▲
 *        └──────────────────── the socket is gone ──────────────────────────┘
 *
 * Promises: every request that was received gets one reply, unless the socket breaks; at most `requestsMax` are in flight; payload
 * bytes are reserved before they are received or asked for, and held until the volume or the kernel has taken them; while a bound is
 * reached, nothing is read from the socket. Nothing that a client sends can do more than end its connection.
 */
import type { Socket } from 'node:net';
import { assert } from '../base/assert.js';
import type { BufferPool } from '../base/buffer-pool.js';
import { asFailure } from '../base/failure.js';
import type { Volume } from '../base/volume.js';
import { command, commandFlag } from '../nbd/constants.js';
import type { Agreement } from '../nbd/negotiation.js';
import { describeExtents } from '../nbd/reply.js';
import type { Request } from '../nbd/request.js';
import { RequestReader } from '../nbd/request-reader.js';
import type { ByteBudget } from '../base/byte-budget.js';
import { Replies } from './replies.js';
import { ReplyWriter } from './reply-writer.js';
import { type Refusal, refuse } from './request-check.js';

/** Requests of one connection that are being served. @public */
export const requestsMax = 256;
/** Payload bytes that one connection holds before it has to wait, so that it cannot take the whole budget; one request more at most. */
const heldBytesMax = 32 * 1024 * 1024;
const descriptorsMax = 1024;

export interface TransmissionOptions {
  readonly volume: Volume;
  /** Shared with the volume: payloads of writes become its own. */
  readonly buffers: BufferPool;
  readonly budget: ByteBudget;
  readonly agreement: Agreement;
  /** Starts and stops the flow of chunks into {@link Transmission.push}. */
  readonly flow: { readonly pause: () => void; readonly resume: () => void };
  /** Called once, when the connection is to be closed: `fault` says what the client did wrong, if it did. Not after a hand-over. */
  readonly onOver: (fault: string | undefined) => void;
}

type State =
  /** `inputEnded`: what was received is served, nothing more comes. */
  | { readonly at: 'serving'; readonly inputEnded: boolean }
  | { readonly at: 'ending'; readonly fault: string | undefined }
  | { readonly at: 'stopping'; readonly stopped: (rest: Buffer | null) => void }
  | { readonly at: 'over' };

export class Transmission {
  readonly #options: TransmissionOptions;
  readonly #reader = new RequestReader();
  readonly #writer: ReplyWriter;
  readonly #replies: Replies;
  readonly #socket: Socket;
  #state: State = { at: 'serving', inputEnded: false };
  /** Requests that have been received whole and not been answered. */
  #inFlight = 0;
  /** Of the budget's bytes. */
  #heldBytes = 0;
  #receivedBytes = 0;
  #paused = false;
  /** What a request that waits for payload bytes is told when it has them. */
  #waiting: (() => void) | undefined;
  /** Why the payload that is being skipped was refused; undefined: it is empty. */
  #refusal: Refusal | undefined;
  /** The payload that is being received. */
  #receiving: Buffer | undefined;

  constructor(socket: Socket, options: TransmissionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#writer = new ReplyWriter(socket, options.buffers, (payloadBytes) => this.#written(payloadBytes));
    this.#replies = new Replies(this.#writer, options.agreement.structuredReplies);
  }

  /** The client is in the middle of a payload and has to send more. */
  get isReceiving(): boolean {
    return this.#reader.payloadBytesToCome > 0;
  }

  /** Nothing goes on until the client sends the rest of a payload, or reads its replies. */
  get awaitsClient(): boolean {
    return this.isReceiving || this.#writer.isBlocked;
  }

  /** Bytes of both directions so far. */
  get movedBytes(): number {
    return this.#receivedBytes + this.#writer.writtenBytes;
  }

  /** Takes a chunk; it must not change until it was consumed, which it is when the flow is not paused. */
  push(chunk: Buffer): void {
    this.#receivedBytes += chunk.length;
    // After the last request, what comes is read and thrown away: unread, it would make the kernel reset the connection
    // before the client has its last replies.
    if (!this.#isReading) return;
    this.#reader.push(chunk);
    this.#advance();
  }

  /** The client sends nothing more: what was received is answered, then it is over. */
  end(): void {
    if (this.#state.at === 'serving') {
      if (this.#paused) this.#state = { at: 'serving', inputEnded: true };
      else this.#endInput(undefined);
    } else if (this.#state.at === 'stopping' && this.#reader.isSkipping) {
      this.#finish(undefined); // what would have to come first does not come
    }
  }

  /**
   * Stops reading, answers what is in flight, and resolves with the bytes that were received and not served: whoever takes the
   * connection over begins with them. What the socket itself has read ahead and not yet pushed is the caller's to add.
   * Null: the connection is over, or has ended meanwhile; there is nothing to take over.
   */
  stop(): Promise<Buffer | null> {
    if (this.#state.at !== 'serving') return Promise.resolve(null);
    return new Promise((stopped) => {
      this.#state = { at: 'stopping', stopped };
      this.#advance();
    });
  }

  /** The socket is gone: nothing more can be read or answered. */
  abort(): void {
    this.#finish(undefined);
  }

  // --- requests ---

  /** A payload that is being skipped cannot be handed over, so that much is still read after {@link stop}. */
  get #isReading(): boolean {
    return this.#state.at === 'serving' || (this.#state.at === 'stopping' && this.#reader.isSkipping);
  }

  /** No further request may begin. One that has begun goes on: what it needs is reserved. */
  get #isFull(): boolean {
    return (
      this.#waiting !== undefined ||
      this.#inFlight >= requestsMax ||
      this.#heldBytes >= heldBytesMax ||
      this.#writer.isCongested
    );
  }

  /** Does all that can be done now. */
  #advance(): void {
    while (this.#isReading) {
      if (this.#isFull && !this.isReceiving) return this.#pause();
      const { value: item } = this.#reader.next();
      if (item === undefined) return this.#allConsumed();
      if (item.kind === 'request') this.#begin(item.request);
      else if (item.kind === 'payload') this.#payload(item.request, item.bytes);
      else this.#endInput('not an NBD request: the magic number is wrong');
    }
    if (this.#state.at === 'stopping') this.#pause();
    this.#checkEnd();
  }

  #allConsumed(): void {
    if (this.#state.at === 'serving' && this.#state.inputEnded) this.#endInput(undefined);
    else this.#resume();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#options.flow.pause();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#options.flow.resume();
  }

  #begin(request: Request): void {
    const { type, length } = request;
    if (type === command.disconnect) return this.#endInput(undefined);
    const refusal = refuse(request, this.#options.volume, this.#options.agreement);
    if (type === command.write) {
      if (refusal === undefined && length > 0) return this.#reserve(request);
      this.#refusal = refusal;
      return this.#reader.skip();
    }
    if (refusal !== undefined) return this.#replies.failure(request, refusal.errno, refusal.message);
    // Nothing to be done with no bytes, whose effect the specification leaves open.
    if (length === 0 && type !== command.flush) return this.#replies.success(request);
    this.#inFlight += 1;
    if (type === command.read) this.#reserve(request);
    else if (type === command.blockStatus) this.#blockStatus(request);
    else this.#serve(request, this.#perform(request));
  }

  /** Goes on with a READ or WRITE when its bytes are reserved; until then no other request begins. */
  #reserve(request: Request): void {
    const { budget } = this.#options;
    if (budget.tryTake(request.length)) return this.#reserved(request);
    this.#waiting = budget.wait(request.length, () => {
      this.#waiting = undefined;
      this.#reserved(request);
      this.#advance();
    });
  }

  #reserved(request: Request): void {
    this.#heldBytes += request.length;
    if (request.type === command.read) this.#read(request);
    else this.#collect(request.length);
  }

  #release(bytes: number): void {
    this.#heldBytes -= bytes;
    this.#options.budget.give(bytes);
  }

  #collect(length: number): void {
    this.#receiving = this.#options.buffers.take(length);
    this.#reader.collect(this.#receiving);
  }

  /** A payload has passed: `bytes`, or null if it was skipped. */
  #payload(request: Request, bytes: Buffer | null): void {
    if (bytes === null) {
      if (this.#refusal === undefined) this.#replies.success(request);
      else this.#replies.failure(request, this.#refusal.errno, this.#refusal.message);
      return;
    }
    this.#receiving = undefined;
    this.#inFlight += 1;
    const written = this.#options.volume.write(request.offset, bytes, (request.flags & commandFlag.fua) !== 0);
    this.#serve(request, written, request.length);
  }

  #perform({ type, flags, offset, length }: Request): Promise<void> {
    const { volume } = this.#options;
    const fua = (flags & commandFlag.fua) !== 0;
    switch (type) {
      case command.flush:
        return volume.flush();
      case command.trim:
        return volume.trim(offset, length, fua);
      case command.cache:
        return volume.cache(offset, length);
      default: {
        assert(type === command.writeZeroes, 'a command that passed the check is known');
        const mayTrim = (flags & commandFlag.noHole) === 0;
        const fast = (flags & commandFlag.fastZero) !== 0;
        return volume.zero(offset, length, { fua, mayTrim, fast });
      }
    }
  }

  /** Answers when `done` settles. `heldBytes`: what it holds until then. */
  #serve(request: Request, done: Promise<void>, heldBytes = 0): void {
    done.then(
      () => {
        this.#replies.success(request);
        this.#answered(heldBytes);
      },
      (error: unknown) => this.#failed(request, error, heldBytes),
    );
  }

  #read(request: Request): void {
    const { volume, buffers } = this.#options;
    const into = buffers.take(request.length);
    volume.read(request.offset, into).then(
      () => {
        this.#replies.data(request, into);
        this.#answered(0);
      },
      (error: unknown) => {
        buffers.give(into);
        this.#failed(request, error, request.length);
      },
    );
  }

  #blockStatus(request: Request): void {
    const { offset, length, flags } = request;
    const max = (flags & commandFlag.reqOne) === 0 ? descriptorsMax : 1;
    this.#options.volume.extents(offset, length).then(
      (extents) => {
        this.#replies.blockStatus(request, describeExtents(extents, max));
        this.#answered(0);
      },
      (error: unknown) => this.#failed(request, error, 0),
    );
  }

  #failed(request: Request, error: unknown, heldBytes: number): void {
    const failure = asFailure(error);
    this.#replies.failure(request, failure.row.errno, failure.message);
    this.#answered(heldBytes);
  }

  #answered(heldBytes: number): void {
    if (heldBytes > 0) this.#release(heldBytes);
    this.#inFlight -= 1;
    this.#roomAgain();
  }

  /** The kernel has taken replies with this much data, or the socket is gone. */
  #written(payloadBytes: number): void {
    if (payloadBytes > 0) this.#release(payloadBytes);
    this.#roomAgain();
  }

  #roomAgain(): void {
    if (this.#paused) this.#advance();
    else this.#checkEnd();
  }

  // --- the end ---

  /** There are no more requests. */
  #endInput(fault: string | undefined): void {
    this.#state = { at: 'ending', fault };
    this.#resume();
    this.#checkEnd();
  }

  #checkEnd(): void {
    if (this.#inFlight > 0) return;
    const state = this.#state;
    if (state.at === 'ending') {
      this.#writer.flush();
      this.#finish(state.fault);
    } else if (state.at === 'stopping' && !this.#reader.isSkipping) {
      this.#writer.flush();
      // An empty write comes back when everything before it has been taken by the kernel.
      this.#socket.write('', () => this.#handOver());
    }
  }

  #handOver(): void {
    if (this.#state.at !== 'stopping') return;
    const { stopped } = this.#state;
    const rest = this.#reader.unparsed();
    this.#state = { at: 'over' };
    this.#letGo();
    stopped(rest);
  }

  #finish(fault: string | undefined): void {
    const state = this.#state;
    if (state.at === 'over') return;
    this.#state = { at: 'over' };
    this.#letGo();
    this.#options.onOver(fault);
    if (state.at === 'stopping') state.stopped(null);
  }

  /** Gives back what a request holds that is not in flight. */
  #letGo(): void {
    this.#waiting?.();
    this.#waiting = undefined;
    if (this.#receiving === undefined) return;
    this.#release(this.#receiving.length);
    this.#options.buffers.give(this.#receiving);
    this.#receiving = undefined;
  }
}
