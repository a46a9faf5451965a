/**
 * The transmission phase of one connection: requests in, replies out, in whatever order the volume answers.
 *
 *     serving ──DISC · end of input · stop()──▶ draining ──last reply written──▶ over
 *        └────────────── bad magic · broken socket ──────────────────────────────▲
 *
 * Promises: every request gets one reply; at most `requestsMax` are in flight; payload bytes are reserved before they are received or
 * asked for; while a bound is reached, nothing is read from the socket. Nothing that a client sends can do more than end its connection.
 */
import type { Socket } from 'node:net';
import { assert } from '../base/assert.js';
import type { BufferPool } from '../base/buffer-pool.js';
import { asFailure } from '../base/failure.js';
import type { Extent } from '../base/range.js';
import type { Volume } from '../base/volume.js';
import { command, commandFlag } from '../nbd/constants.js';
import { errorValue } from '../nbd/errno.js';
import type { Agreement } from '../nbd/negotiation.js';
import {
  blockStatusHeaderBytes,
  chunkHeaderBytes,
  descriptorBytes,
  describeExtents,
  encodeBlockStatus,
  encodeErrorChunk,
  encodeNone,
  encodeOffsetDataHeader,
  encodeSimpleReply,
  errorChunkBytes,
  offsetDataHeaderBytes,
  simpleReplyBytes,
} from '../nbd/reply.js';
import type { Request } from '../nbd/request.js';
import { RequestReader } from '../nbd/request-reader.js';
import type { ByteBudget } from './byte-budget.js';
import { copiedBytesMax, ReplyWriter } from './reply-writer.js';
import { type Refusal, refuse } from './request-check.js';

/** Requests of one connection that are being served. */
export const requestsMax = 256;
const descriptorsMax = 1024;
const messageBytesMax = 512;

const nothing = () => {};

export interface TransmissionOptions {
  readonly volume: Volume;
  /** Shared with the volume: payloads of writes become its own. */
  readonly buffers: BufferPool;
  readonly budget: ByteBudget;
  readonly agreement: Agreement;
  /** Starts and stops the flow of chunks into {@link Transmission.push}. */
  readonly flow: { readonly pause: () => void; readonly resume: () => void };
  /** Called once, when it is over: `fault` says what the client did wrong, if it did. */
  readonly onOver: (fault: string | undefined) => void;
}

type State =
  | { readonly at: 'serving' }
  | { readonly at: 'draining'; readonly drained: () => void }
  | { readonly at: 'over' };

export class Transmission {
  readonly #options: TransmissionOptions;
  readonly #reader = new RequestReader();
  readonly #writer: ReplyWriter;
  readonly #socket: Socket;
  #state: State = { at: 'serving' };
  #inFlight = 0;
  #paused = false;
  /** The request that waits for payload bytes. */
  #waiting: { readonly granted: () => void } | undefined;
  /** Why the payload that is being skipped was refused. */
  #refusal: Refusal | undefined;
  /** The payload that is being received. */
  #receiving: Buffer | undefined;

  constructor(socket: Socket, options: TransmissionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#writer = new ReplyWriter(socket, options.buffers);
    socket.on('drain', () => this.#advance());
  }

  /** The client is in the middle of a payload and has to send more. */
  get isReceiving(): boolean {
    return this.#reader.payloadBytesToCome > 0 && !this.#paused;
  }

  /** Takes a chunk; it must not change until it was consumed, which it is when the flow is not paused. */
  push(chunk: Buffer): void {
    if (this.#state.at !== 'serving') return;
    this.#reader.push(chunk);
    this.#advance();
  }

  /** The client sends nothing more: what is in flight is answered, then it is over. */
  end(): void {
    this.#drain(() => this.#finish(undefined));
  }

  /**
   * Stops reading, answers what is in flight, and resolves with the bytes that were received and not served: whoever takes the
   * connection over begins with them.
   */
  stop(): Promise<Buffer> {
    if (this.#state.at !== 'serving') return Promise.resolve(Buffer.alloc(0));
    return new Promise((resolve) => {
      this.#drain(() => {
        const rest = this.#reader.unparsed();
        this.#finish(undefined);
        resolve(rest);
      });
    });
  }

  /** The socket is gone: nothing more can be read or answered. */
  abort(): void {
    this.#finish(undefined);
  }

  // --- requests ---

  #advance(): void {
    while (this.#state.at === 'serving') {
      if (this.#waiting !== undefined || this.#inFlight >= requestsMax || this.#writer.isCongested)
        return this.#pause();
      const { value: item } = this.#reader.next();
      if (item === undefined) return this.#resume();
      if (item.kind === 'request') this.#begin(item.request);
      else if (item.kind === 'payload') this.#payload(item.request, item.bytes);
      else this.#finish('not an NBD request: the magic number is wrong');
    }
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
    const { volume, agreement } = this.#options;
    if (request.type === command.disconnect) return this.end();
    const refusal = refuse(request, volume, agreement);
    if (request.type === command.write) {
      if (refusal === undefined) return this.#reserve(request.length, () => this.#collect(request));
      this.#refusal = refusal;
      return this.#reader.skip();
    }
    if (refusal !== undefined) return this.#refuse(request, refusal);
    if (request.type === command.read) return this.#reserve(request.length, () => this.#read(request));
    if (request.type === command.blockStatus) return this.#blockStatus(request);
    this.#serve(request, this.#perform(request), () => this.#succeed(request), nothing);
  }

  /** Goes on with `then` when `bytes` are reserved; until then nothing is read. */
  #reserve(bytes: number, then: () => void): void {
    const { budget } = this.#options;
    const granted = () => {
      this.#waiting = undefined;
      then();
      this.#advance();
    };
    if (budget.reserve(bytes, granted)) then();
    else this.#waiting = { granted };
  }

  #collect(request: Request): void {
    this.#receiving = this.#options.buffers.take(request.length);
    this.#reader.collect(this.#receiving);
  }

  #payload(request: Request, bytes: Buffer | null): void {
    this.#receiving = undefined;
    if (bytes === null) {
      assert(this.#refusal !== undefined, 'only a refused payload is skipped');
      return this.#refuse(request, this.#refusal);
    }
    const fua = (request.flags & commandFlag.fua) !== 0;
    const { volume, budget } = this.#options;
    const written = volume.write(request.offset, bytes, fua);
    this.#serve(
      request,
      written,
      () => this.#succeed(request),
      () => budget.release(request.length),
    );
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
      case command.writeZeroes: {
        const mayTrim = (flags & commandFlag.noHole) === 0;
        const fast = (flags & commandFlag.fastZero) !== 0;
        return volume.zero(offset, length, { fua, mayTrim, fast });
      }
      default:
        throw new Error(`a command that passed the check is served: ${type}`);
    }
  }

  /** Answers with `reply` when `result` is there. `ended`: whether it succeeded or not. */
  #serve<T>(request: Request, result: Promise<T>, reply: (value: T) => void, ended: () => void): void {
    this.#inFlight += 1;
    result.then(
      (value) => {
        reply(value);
        ended();
        this.#answered();
      },
      (error: unknown) => {
        this.#fail(request, error);
        ended();
        this.#answered();
      },
    );
  }

  #read(request: Request): void {
    if (request.length === 0) {
      this.#succeed(request);
      return;
    }
    const { volume, buffers, budget } = this.#options;
    const into = buffers.take(request.length);
    const ended = () => {
      buffers.give(into);
      budget.release(request.length);
    };
    this.#inFlight += 1;
    volume.read(request.offset, into).then(
      () => {
        this.#sendData(request, into, ended);
        this.#answered();
      },
      (error: unknown) => {
        ended();
        this.#fail(request, error);
        this.#answered();
      },
    );
  }

  #blockStatus(request: Request): void {
    const { offset, length, flags, cookie } = request;
    const one = (flags & commandFlag.reqOne) !== 0;
    const extents = this.#options.volume.extents(offset, length);
    const reply = (found: Extent[]) => {
      if (this.#state.at === 'over') return;
      const descriptors = describeExtents(found, one ? 1 : descriptorsMax);
      const { batch, at } = this.#writer.room(blockStatusHeaderBytes + descriptorBytes * descriptors.length);
      encodeBlockStatus(batch, at, cookie, descriptors);
    };
    this.#serve(request, extents, reply, nothing);
  }

  #answered(): void {
    this.#inFlight -= 1;
    if (this.#state.at === 'draining') this.#checkDrained();
    else if (this.#paused) this.#advance();
  }

  // --- replies ---

  #succeed({ cookie }: Request): void {
    if (this.#state.at === 'over') return;
    if (this.#options.agreement.structuredReplies) {
      const { batch, at } = this.#writer.room(chunkHeaderBytes);
      encodeNone(batch, at, cookie);
    } else {
      const { batch, at } = this.#writer.room(simpleReplyBytes);
      encodeSimpleReply(batch, at, cookie, 0);
    }
  }

  #sendData({ cookie, offset }: Request, data: Buffer, written: () => void): void {
    if (this.#state.at === 'over') return written();
    const structured = this.#options.agreement.structuredReplies;
    const headerBytes = structured ? offsetDataHeaderBytes : simpleReplyBytes;
    const copied = data.length <= copiedBytesMax;
    const { batch, at } = this.#writer.room(headerBytes + (copied ? data.length : 0));
    const next = structured
      ? encodeOffsetDataHeader(batch, at, cookie, offset, data.length)
      : encodeSimpleReply(batch, at, cookie, 0);
    if (!copied) return this.#writer.large(data, written);
    data.copy(batch, next);
    written();
  }

  #refuse(request: Request, refusal: Refusal): void {
    this.#sendError(request, errorValue[refusal.errno], refusal.message);
  }

  #fail(request: Request, error: unknown): void {
    const failure = asFailure(error);
    this.#sendError(request, errorValue[failure.row.errno], failure.message);
  }

  #sendError({ cookie }: Request, error: number, text: string): void {
    if (this.#state.at === 'over') return;
    if (this.#options.agreement.structuredReplies) {
      const message = Buffer.from(text).subarray(0, messageBytesMax);
      const { batch, at } = this.#writer.room(errorChunkBytes(message));
      encodeErrorChunk(batch, at, cookie, error, message);
    } else {
      const { batch, at } = this.#writer.room(simpleReplyBytes);
      encodeSimpleReply(batch, at, cookie, error);
    }
  }

  // --- the end ---

  #drain(drained: () => void): void {
    if (this.#state.at !== 'serving') return;
    this.#state = { at: 'draining', drained };
    this.#pause();
    this.#checkDrained();
  }

  #checkDrained(): void {
    if (this.#state.at !== 'draining' || this.#inFlight > 0) return;
    const { drained } = this.#state;
    this.#writer.flush();
    // An empty write comes back when everything before it has been taken by the kernel.
    this.#socket.write('', () => {
      if (this.#state.at === 'draining') drained();
    });
  }

  #finish(fault: string | undefined): void {
    if (this.#state.at === 'over') return;
    this.#state = { at: 'over' };
    const { budget, buffers, onOver } = this.#options;
    if (this.#waiting !== undefined) budget.cancel(this.#waiting.granted);
    this.#waiting = undefined;
    if (this.#receiving !== undefined) {
      budget.release(this.#receiving.length);
      buffers.give(this.#receiving);
      this.#receiving = undefined;
    }
    onOver(fault);
  }
}
