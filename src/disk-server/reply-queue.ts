/**
 * The responses of one connection, handed to its socket in the order of the requests.
 * Promise: data of a read counts against the budget until the kernel has taken it or the connection is gone.
 */
import type { Socket } from 'node:net';
import { assert } from '../base/assert.js';
import type { EncodedResponse } from '../http-disk/response-codec.js';
import type { Exchange, ReadyPart, Rest } from './exchange.js';
import { working } from './exchange.js';
import type { Front } from './front.js';
import { plainAddress } from './net-address.js';
import { continueHead, formatHead } from './response-head.js';
import { ResponseOutput } from './response-output.js';

export interface ReplyQueueEvents {
  /** The piece before `rest` has been handed over. */
  readonly wantsRest: (exchange: Exchange, rest: Rest) => void;
  /** Bytes have left: there may be room for more. */
  readonly written: () => void;
}

export class ReplyQueue {
  readonly #socket: Socket;
  readonly #front: Front;
  readonly #events: ReplyQueueEvents;
  readonly #remoteAddress: string;
  readonly #output: ResponseOutput;
  readonly #exchanges: Exchange[] = [];
  #persistence: string;
  #heldBytes = 0;
  /** `over`: the last answer is on its way, nothing follows. */
  #state: 'open' | 'over' | 'gone' = 'open';

  constructor(socket: Socket, front: Front, events: ReplyQueueEvents) {
    this.#socket = socket;
    this.#front = front;
    this.#events = events;
    this.#remoteAddress = plainAddress(socket.remoteAddress ?? '-');
    this.#persistence = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(front.limits.keepAliveMs / 1000)}\r\n`;
    this.#output = new ResponseOutput(socket, front.pool, (countedBytes) => this.#written(countedBytes));
  }

  /** Requests that are not answered. */
  get length(): number {
    return this.#exchanges.length;
  }

  /** Bytes that the client has not taken. */
  get unsentBytes(): number {
    return this.#socket.writableLength + this.#output.pendingBytes;
  }

  /** Taken from the budget for responses, and not given back. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** `bytes` were taken from the budget for the data of `exchange`. */
  hold(exchange: Exchange, bytes: number): void {
    exchange.countedBytes = bytes;
    this.#heldBytes += bytes;
  }

  /** A piece of an answer waits until the client has taken more of what came before. */
  get isHeldBack(): boolean {
    const reply = this.#exchanges[0]?.reply;
    return reply?.at === 'ready' && reply.status === undefined;
  }

  /** Whether the last answer has been handed over. */
  get isOver(): boolean {
    return this.#state !== 'open';
  }

  add(exchange: Exchange): void {
    this.#exchanges.push(exchange);
  }

  /** The answer to `exchange`. Without data, what it had taken from the budget is given back. */
  answer(exchange: Exchange, response: EncodedResponse, data?: Buffer, rest?: Rest): void {
    const { status, headers: fields, body } = response;
    this.#ready(exchange, { at: 'ready', status, fields, body, data, rest });
  }

  /** A further piece of the data. */
  continue(exchange: Exchange, data: Buffer, rest: Rest | undefined): void {
    this.#ready(exchange, { at: 'ready', status: undefined, fields: '', body: '', data, rest });
  }

  /** There is no further piece: the connection breaks, so that the client does not take the data for whole. */
  break(exchange: Exchange): void {
    this.#giveBack(exchange);
    exchange.reply = { at: 'broken' };
  }

  /** Hands over everything whose turn has come. */
  advance(): void {
    if (this.#state !== 'open') return;
    for (let first = this.#exchanges[0]; first !== undefined && this.#handOver(first); ) first = this.#exchanges[0];
    this.#output.flush();
    if (this.isOver) this.#socket.end();
  }

  /** The connection is gone. What is still being worked on is given back by {@link abandon}. */
  close(): void {
    this.#state = 'gone';
    this.#output.discard();
    for (const exchange of this.#exchanges) this.#discard(exchange);
    this.#exchanges.length = 0;
  }

  /** The outcome of an exchange has come after {@link close}. */
  abandon(exchange: Exchange): void {
    this.#giveBack(exchange);
  }

  #ready(exchange: Exchange, part: ReadyPart): void {
    assert(exchange.reply.at === 'working', 'one answer for each request');
    assert(this.#state !== 'gone', 'no answers for a connection that is gone');
    if (part.data === undefined) this.#giveBack(exchange);
    exchange.reply = part;
  }

  /** Whether there may be more to hand over. */
  #handOver(exchange: Exchange): boolean {
    const { reply } = exchange;
    switch (reply.at) {
      case 'working':
        this.#sendContinue(exchange);
        return false;
      case 'broken':
        this.#socket.destroy();
        return false;
      case 'ready':
        if (reply.status === undefined && this.unsentBytes > this.#front.limits.pieceBytesMax) return false;
        this.#emit(exchange, reply);
        return true;
    }
  }

  #sendContinue(exchange: Exchange): void {
    if (!exchange.continueDue) return;
    exchange.continueDue = false;
    this.#output.head(continueHead);
  }

  #emit(exchange: Exchange, part: ReadyPart): void {
    if (part.status !== undefined) this.#emitHead(exchange, part.status, part);
    if (part.body !== '' && exchange.request?.method !== 'HEAD') this.#output.body(part.body);
    if (part.rest !== undefined) {
      if (part.data !== undefined) this.#output.data(part.data, 0);
      exchange.reply = working;
      this.#events.wantsRest(exchange, part.rest);
      return;
    }
    if (part.data !== undefined) this.#output.data(part.data, exchange.countedBytes);
    exchange.countedBytes = 0;
    this.#exchanges.shift();
    if (!exchange.closes) return;
    assert(this.#exchanges.length === 0, 'no request is taken after the last one');
    this.#state = 'over';
  }

  #emitHead(exchange: Exchange, status: number, part: ReadyPart): void {
    const persistence = exchange.closes ? 'Connection: close\r\n' : this.#persistence;
    // Once is enough: HTTP/1.1 connections persist.
    this.#persistence = '';
    this.#output.head(formatHead(status, part.fields, this.#front.commonLines() + persistence));
    const { accesses } = this.#front;
    if (!accesses.isHeard) return;
    const { method, target, version } = exchange.request ?? { method: '-', target: '-', version: '1.1' };
    accesses.publish({ remoteAddress: this.#remoteAddress, method, target, version, status });
  }

  #discard(exchange: Exchange): void {
    const { reply } = exchange;
    if (reply.at !== 'ready') return;
    if (reply.data !== undefined) this.#front.pool.give(reply.data);
    this.#giveBack(exchange);
  }

  #giveBack(exchange: Exchange): void {
    this.#release(exchange.countedBytes);
    exchange.countedBytes = 0;
  }

  #written(countedBytes: number): void {
    this.#release(countedBytes);
    this.#events.written();
  }

  #release(bytes: number): void {
    if (bytes === 0) return;
    this.#heldBytes -= bytes;
    this.#front.responses.give(bytes);
  }
}
