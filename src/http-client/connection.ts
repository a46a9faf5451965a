/**
 * One HTTP/1 connection with pipelining: requests go out in the order in which they come, answers come back in that order.
 * Promise: all that is due in one turn of the event loop goes out with one write; every exchange is told its end exactly
 * once; after that neither its payload nor its destination is touched any more; an answer that cannot be trusted ends the
 * connection.
 *
 *     connecting ──> open ──> retiring (takes no more, closes after the last answer) ──> closed      any ──> closed
 */
import type { Socket } from 'node:net';
import { bulkBuffer } from '../base/bulk-buffer.js';
import { assert } from '../base/assert.js';
import type { Clock } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import { discard, type Reception } from './dial.js';
import type { ResponseHead } from './response-head.js';
import { type Destination, type Method, ResponseParser } from './response-parser.js';

/** Requests of one class share connections, so that a slow class does not hold back a fast one. */
export type LaneName = 'small-reads' | 'large-reads' | 'writes' | 'slow';

/** One request and what becomes of its answer. */
export interface Exchange {
  readonly lane: LaneName;
  readonly method: Method;
  /** From the request line to the empty line. */
  readonly head: string;
  readonly payload: Buffer | null;
  /** Changes nothing on the server, so that it may be sent again when the server says that it has not looked at it. */
  readonly isRepeatable: boolean;
  /** What it moves, both ways together, about. */
  readonly weightBytes: number;
  /** The answer begins. Throws a `Failure` when it cannot be one: the connection ends, and the failure comes back by `fail`. */
  begin(head: ResponseHead): Destination;
  /** Whether what has begun is a refusal. */
  readonly isRefused: boolean;
  finish(body: Buffer): void;
  /** `isUnsent`: certainly no byte of the request has left this process. */
  fail(failure: Failure, isUnsent: boolean): void;
}

export interface ConnectionOwner {
  /** The first answer is complete: it is known whether the server keeps connections ({@link Connection.isPersistent}). */
  answered(connection: Connection): void;
  /** All that was sent is answered. */
  idle(connection: Connection): void;
  /**
   * It is over; `leftover` can be sent on another connection without a doubt. `dialFailure`: there never was one; all
   * exchanges have been told.
   */
  closed(connection: Connection, leftover: readonly Exchange[], dialFailure: Failure | undefined): void;
}

/** Makes the connection. Data goes to `reception`, or is emitted by the socket. Rejects with a `Failure`. */
export type Dial = (receive: Reception['receive'], signal: AbortSignal) => Promise<Socket>;

type State =
  | { readonly at: 'connecting'; readonly attempt: AbortController }
  | { readonly at: 'open'; readonly socket: Socket }
  | { readonly at: 'retiring'; readonly socket: Socket }
  | { readonly at: 'closed' };

/** Keep-alive time of a server that announces none: shorter than that of any that is in use. */
const keepAliveDefaultMs = 4000;
/** What one write takes, unless a single payload is longer. */
const batchBytesMax = 256 * 1024;
/** Payloads up to here are copied into the batch: cheaper than one more entry in the vector of a write. */
const copiedBytesMax = 16 * 1024;
/** A request line and header lines. */
const requestHeadBytesMax = 64 * 1024;

export class Connection {
  /** Who is told. The one that probes hands a good connection over. */
  owner: ConnectionOwner;
  readonly #clock: Clock;
  #state: State;
  readonly #parser: ResponseParser;
  readonly #unsent: Exchange[] = [];
  readonly #sent: Exchange[] = [];
  /** A write has been handed to the socket, and the socket has not finished with it. */
  #isWriting = false;
  #isScheduled = false;
  #batch: Buffer | undefined = undefined;
  /** The exchange whose payload the socket still holds, and its answer if that came before. */
  #flushing: { readonly exchange: Exchange; body: Buffer | undefined } | undefined = undefined;
  #answers = 0;
  #isLast = false;
  #idleSinceMs: number;
  #idleLimitMs = keepAliveDefaultMs / 2;
  #outstandingBytes = 0;

  constructor(dial: Dial, clock: Clock, owner: ConnectionOwner) {
    this.owner = owner;
    this.#clock = clock;
    this.#idleSinceMs = clock.nowMs();
    this.#parser = new ResponseParser({
      awaited: () => this.#sent[0]?.method,
      begin: (head) => this.#begin(head),
      finish: (body) => this.#finish(body),
    });
    const attempt = new AbortController();
    this.#state = { at: 'connecting', attempt };
    dial((bytes, end) => this.#receive(bytes, end), attempt.signal).then(
      (socket) => this.#opened(socket),
      (error: unknown) => this.#dialFailed(asFailure(error)),
    );
  }

  /** The server has answered, in HTTP/1.1, without announcing that it closes. */
  get isPersistent(): boolean {
    return this.#answers > 0 && !this.#isLast;
  }

  /** The weight of all exchanges that have not ended. */
  get outstandingBytes(): number {
    return this.#outstandingBytes;
  }

  get outstanding(): number {
    return this.#unsent.length + this.#sent.length + (this.#flushing?.body === undefined ? 0 : 1);
  }

  /** Whether a request can be sent on it: it takes more, and has not been idle for so long that the server may close it. */
  isUsable(nowMs: number): boolean {
    const { at } = this.#state;
    if (at === 'connecting') return true;
    if (at !== 'open' || this.#isLast) return false;
    return this.outstanding > 0 || nowMs - this.#idleSinceMs <= this.#idleLimitMs;
  }

  /** Only while it {@link isUsable}. */
  send(exchange: Exchange): void {
    assert(
      this.#state.at === 'connecting' || this.#state.at === 'open',
      'requests are sent on connections that take them',
    );
    assert(exchange.head.length <= requestHeadBytesMax, 'the head of a request is bounded by the length of its URL');
    this.#outstandingBytes += exchange.weightBytes;
    this.#unsent.push(exchange);
    this.#schedule();
  }

  /** Takes no more requests, and closes after the last answer: at once when it is idle, or not yet open. */
  retire(): void {
    if (this.#state.at === 'open') this.#state = { at: 'retiring', socket: this.#state.socket };
    if (this.#state.at === 'connecting' || this.outstanding === 0) this.#close(lost('not needed any more'), true);
  }

  /** Closes it now. What has not ended ends with `failure`. */
  destroy(failure: Failure): void {
    const exchanges = [...this.#sent.splice(0), ...this.#unsent.splice(0)];
    if (this.#flushing?.body !== undefined) exchanges.unshift(this.#flushing.exchange);
    this.#flushing = undefined;
    this.#close(failure, false);
    for (const exchange of exchanges) exchange.fail(failure, false);
  }

  #opened(socket: Socket): void {
    if (this.#state.at !== 'connecting') return discard(socket);
    this.#state = { at: 'open', socket };
    this.#idleSinceMs = this.#clock.nowMs();
    socket.on('data', (bytes) => this.#receive(bytes, bytes.length));
    socket.on('end', () => this.#ended());
    socket.on('error', (error) => this.#close(lost('code' in error ? String(error.code) : error.message), false));
    socket.on('close', () => this.#close(lost('closed'), false));
    this.#flush(socket);
  }

  #dialFailed(failure: Failure): void {
    if (this.#state.at !== 'connecting') return;
    this.#state = { at: 'closed' };
    for (const exchange of this.#unsent.splice(0)) exchange.fail(failure, true);
    this.owner.closed(this, [], failure);
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isWriting || this.#state.at === 'connecting') return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#state.at === 'open' || this.#state.at === 'retiring') this.#flush(this.#state.socket);
    });
  }

  /** Writes the next batch. One at a time: so it is known when the socket has finished with a payload. */
  #flush(socket: Socket): void {
    if (this.#isWriting || this.#unsent.length === 0) return;
    this.#isWriting = true;
    const written = (): void => this.#written(socket);
    const { text, filled, large } = this.#gather();
    const first = filled === 0 ? text : this.#batch?.subarray(0, filled);
    assert(first !== undefined, 'what is copied lies in the batch');
    if (large === undefined) {
      write(socket, first, written);
      return;
    }
    this.#flushing = { exchange: large.exchange, body: undefined };
    socket.cork();
    write(socket, first, undefined);
    socket.write(large.payload, written);
    socket.uncork();
  }

  /**
   * Moves the exchanges of the next batch from unsent to sent. The batch is `text`; or `filled` bytes in the batch buffer,
   * where a payload was copied; and behind it one large payload.
   */
  #gather(): { text: string; filled: number; large: { exchange: Exchange; payload: Buffer } | undefined } {
    let text = '';
    let filled = 0;
    let large: { exchange: Exchange; payload: Buffer } | undefined;
    for (let exchange = this.#unsent[0]; exchange !== undefined && large === undefined; exchange = this.#unsent[0]) {
      const { head, payload } = exchange;
      const copied = payload !== null && payload.length <= copiedBytesMax ? payload.length : 0;
      if (filled + text.length + head.length + copied > batchBytesMax) break;
      this.#unsent.shift();
      this.#sent.push(exchange);
      text += head;
      if (payload === null) continue;
      if (payload.length > copiedBytesMax) {
        large = { exchange, payload };
        continue;
      }
      this.#batch ??= bulkBuffer(batchBytesMax);
      filled += this.#batch.write(text, filled, 'latin1');
      filled += payload.copy(this.#batch, filled);
      text = '';
    }
    if (filled > 0 && this.#batch !== undefined) {
      filled += this.#batch.write(text, filled, 'latin1');
      text = '';
    }
    return { text, filled, large };
  }

  /** The socket has finished with what it was given (or has failed, which it reports beside). */
  #written(socket: Socket): void {
    if (this.#state.at === 'closed' || socket.destroyed) return;
    this.#isWriting = false;
    const flushed = this.#flushing;
    this.#flushing = undefined;
    if (flushed?.body !== undefined) this.#deliver(flushed.exchange, flushed.body);
    if (this.#unsent.length > 0) this.#schedule();
  }

  #receive(bytes: Buffer, end: number): void {
    if (this.#state.at !== 'open' && this.#state.at !== 'retiring') return;
    try {
      this.#parser.push(bytes, end);
    } catch (error) {
      this.#broken(asFailure(error));
    }
  }

  #ended(): void {
    if (this.#state.at !== 'open' && this.#state.at !== 'retiring') return;
    try {
      this.#parser.end();
    } catch (error) {
      this.#broken(asFailure(error));
    }
    this.#close(lost('closed by the server'), false);
  }

  #begin(head: ResponseHead): Destination {
    const exchange = this.#sent[0];
    assert(exchange !== undefined, 'the parser asks whether an answer is awaited');
    // An answer that neither has a length nor is chunked ends with the connection.
    const endless = head.contentLength < 0 && !head.chunked && exchange.method !== 'HEAD' && head.status !== 204;
    this.#isLast = head.close || head.minorVersion === 0 || endless;
    if (head.keepAliveSeconds >= 0) this.#idleLimitMs = head.keepAliveSeconds * 500;
    return exchange.begin(head);
  }

  #finish(body: Buffer): void {
    const exchange = this.#sent.shift();
    assert(exchange !== undefined, 'what finishes has begun');
    this.#answers += 1;
    if (this.#answers === 1) this.owner.answered(this);
    // The payload is the caller's again when the exchange has ended: an early answer waits for the socket.
    if (this.#flushing?.exchange === exchange) this.#flushing.body = body;
    else this.#deliver(exchange, body);
  }

  #deliver(exchange: Exchange, body: Buffer): void {
    this.#outstandingBytes -= exchange.weightBytes;
    exchange.finish(body);
    if (this.#isLast) this.#close(lost('closed as announced'), true);
    if (this.outstanding > 0 || this.#state.at === 'closed') return;
    this.#idleSinceMs = this.#clock.nowMs();
    if (this.#state.at === 'retiring') this.#close(lost('not needed any more'), false);
    else this.owner.idle(this);
  }

  /** The answer to the oldest request is none, or breaks off. What comes behind it cannot be told apart. */
  #broken(failure: Failure): void {
    if (this.#state.at === 'closed') return;
    this.#sent.shift()?.fail(failure, false);
    this.#close(lost('closed because of a malformed response'), false);
  }

  /** `isAnnounced`: the server said that it processes nothing behind its last answer (RFC 9112, section 9.6). */
  #close(failure: Failure, isAnnounced: boolean): void {
    const state = this.#state;
    if (state.at === 'closed') return;
    this.#state = { at: 'closed' };
    this.#parser.stop();
    if (state.at === 'connecting') state.attempt.abort();
    else discard(state.socket);
    this.#endFlushing(failure);
    const leftover: Exchange[] = [];
    for (const exchange of this.#sent.splice(0)) {
      if (isAnnounced && exchange.isRepeatable) leftover.push(exchange);
      else exchange.fail(failure, false);
    }
    for (const exchange of this.#unsent.splice(0)) {
      if (isAnnounced) leftover.push(exchange);
      else exchange.fail(failure, true);
    }
    this.#outstandingBytes = 0;
    this.owner.closed(this, leftover, undefined);
  }

  /** An early refusal holds although its request was cut; an early success of a request that was cut is none. */
  #endFlushing(failure: Failure): void {
    const flushing = this.#flushing;
    this.#flushing = undefined;
    if (flushing?.body === undefined) return;
    if (flushing.exchange.isRefused) flushing.exchange.finish(flushing.body);
    else flushing.exchange.fail(failure, false);
  }
}

function write(socket: Socket, data: string | Buffer, written: (() => void) | undefined): void {
  if (typeof data === 'string') socket.write(data, 'latin1', written);
  else socket.write(data, written);
}

function lost(why: string): Failure {
  return new Failure('connection-lost', `connection lost: ${why}`);
}
