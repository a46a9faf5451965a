/**
 * One client's connection: requests are taken in, executed by the core, and answered in their order.
 *
 * Promises
 * - Requests of one connection run at the same time, except plain ones that change the disk: those run alone, as RFC 9112
 *   (section 9.3.2) asks. Those that name an instance are ordered by their client.
 * - What a client makes the server hold is bounded: it is taken from a budget before, and no further request is read while
 *   too much is outstanding.
 * - A write is executed only when its whole body is there and has the right length.
 */
import type { Socket } from 'node:net';
import { asFailure, Failure } from '../base/failure.js';
import { evaluateConditions } from '../http-disk/conditions.js';
import { encodeFailure } from '../http-disk/failure-codec.js';
import type { DiskRequest } from '../http-disk/messages.js';
import { bodyBytesMax, decodeRequest } from '../http-disk/request-codec.js';
import {
  type DiskFacts,
  type EncodedResponse,
  encodeAnswer,
  encodeDescription,
  encodeNotModified,
  entityTag,
} from '../http-disk/response-codec.js';
import { type Alone, type Intake, notAlone, takingHeads, type Upload } from './connection-state.js';
import { Exchange } from './exchange.js';
import type { Front, Pumped } from './front.js';
import { localEndpoint } from './net-address.js';
import { type Outcome, refused, whenFree } from './outcome.js';
import { Reading } from './reading.js';
import { ReplyQueue } from './reply-queue.js';
import { MalformedRequest, type RequestHead } from './request-head.js';
import { type RequestEvent, RequestReader } from './request-reader.js';
import { malformedResponse } from './response-head.js';
import { StallWatch } from './stall-watch.js';

type Executable = Extract<DiskRequest, { op: 'write' | 'zero' | 'trim' | 'flush' | 'map' }>;

export class Connection implements Pumped {
  readonly #socket: Socket;
  readonly #front: Front;
  readonly #onClosed: () => void;
  readonly #reader = new RequestReader();
  readonly #replies: ReplyQueue;
  readonly #reading: Reading;
  /** Bytes of bodies that come, bytes of answers that leave, heads that are complete, anything at all. */
  readonly #input: StallWatch;
  readonly #output: StallWatch;
  readonly #heads: StallWatch;
  readonly #quiet: StallWatch;
  #intake: Intake = takingHeads;
  #alone: Alone = notAlone;
  /** Requests that are being executed. */
  #running = 0;
  /** What has come was not all taken. */
  #isHeldBack = false;
  #halfClosed = false;
  #gone = false;

  constructor(socket: Socket, front: Front, onClosed: () => void) {
    this.#socket = socket;
    this.#front = front;
    this.#onClosed = onClosed;
    const nowMs = front.clock.nowMs();
    this.#input = new StallWatch(nowMs);
    this.#output = new StallWatch(nowMs);
    this.#heads = new StallWatch(nowMs);
    this.#quiet = new StallWatch(nowMs);
    this.#replies = new ReplyQueue(socket, front, {
      wantsRest: (exchange, rest) => this.#reading.continue(exchange, rest),
      written: () => this.#onWritten(),
    });
    this.#reading = new Reading(front, this.#replies, {
      isGone: () => this.#gone,
      settled: () => this.#settled(),
      changed: () => front.schedule(this),
    });
    socket.on('end', () => this.#onEnd());
    socket.on('close', () => this.#onClose());
    // 'close' follows; what a peer does to its connection is nobody else's concern.
    socket.on('error', () => {});
  }

  /** Whether nothing is being asked or answered. */
  get isIdle(): boolean {
    const { length, unsentBytes } = this.#replies;
    return this.#intake.at === 'heads' && !this.#reader.isInHead && length === 0 && unsentBytes === 0;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Takes in what has come, as far as it may, and sends what is due. */
  pump(): void {
    if (this.#gone) return;
    while (this.#mayTake()) {
      const event = this.#reader.next();
      if (event === undefined) break;
      this.#take(event);
    }
    this.#isHeldBack = !this.#mayTake();
    this.#replies.advance();
    this.#throttle();
  }

  /** Takes what has come; it may be overwritten afterwards. */
  receive(chunk: Buffer): void {
    this.#input.move();
    this.#quiet.move();
    if (this.#intake.at === 'closed') return;
    this.#reader.push(chunk);
    this.pump();
    this.#reader.keepRest();
  }

  /** The client sends nothing more: what it has asked for it gets, what it has begun to ask is void. */
  #onEnd(): void {
    this.#halfClosed = true;
    const { at } = this.#intake;
    if (this.#reader.isInHead || at === 'collecting' || at === 'discarding') this.destroy();
    else this.pump();
  }

  #onClose(): void {
    this.#gone = true;
    this.#closeIntake();
    if (this.#alone.at === 'waiting') {
      if (this.#alone.upload !== undefined) this.#releaseUpload(this.#alone.upload);
      this.#alone = notAlone;
    }
    this.#replies.close();
    this.#onClosed();
  }

  #onWritten(): void {
    this.#output.move();
    if (!this.#gone && (this.#isHeldBack || this.#replies.isHeldBack)) this.#front.schedule(this);
  }

  #mayTake(): boolean {
    switch (this.#intake.at) {
      case 'heads': {
        const { exchangesMax, unsentBytesMax } = this.#front.limits;
        const { length, heldBytes, unsentBytes } = this.#replies;
        if (this.#alone.at !== 'no' || length >= exchangesMax) return false;
        return heldBytes < unsentBytesMax && unsentBytes < unsentBytesMax;
      }
      case 'collecting':
      case 'discarding':
        return true;
      case 'waiting':
      case 'closed':
        return false;
    }
  }

  /** A client that asks for more than may be outstanding is held back by TCP. */
  #throttle(): void {
    const flows = this.#intake.at === 'closed' || this.#mayTake();
    if (flows === this.#socket.isPaused()) {
      if (flows) this.#socket.resume();
      else this.#socket.pause();
    }
    if (this.#halfClosed && flows && this.#replies.length === 0) this.#socket.end();
  }

  #take(event: RequestEvent): void {
    switch (event.at) {
      case 'head':
        this.#takeHead(event.head);
        return;
      case 'body':
        this.#takeBody(event.bytes);
        return;
      case 'end':
        this.#takeEnd();
        return;
      case 'malformed':
        this.#takeMalformed(event.problem);
        return;
    }
  }

  #takeHead(head: RequestHead): void {
    this.#heads.move();
    const asksToClose = /(?:^|,)[\t ]*close[\t ]*(?:,|$)/i;
    const connection = head.fields['connection'];
    const exchange = new Exchange(
      head,
      head.version === '1.0' || (connection !== undefined && asksToClose.test(connection)),
    );
    this.#replies.add(exchange);
    try {
      this.#dispatch(exchange, head);
    } catch (error) {
      this.#refuse(exchange, head, asFailure(error));
    }
    if (this.#intake.at === 'heads') this.#intake = this.#intakeAfter(exchange);
  }

  #intakeAfter(exchange: Exchange): Intake {
    return exchange.closes ? { at: 'closed' } : takingHeads;
  }

  /** Throws a Failure: the request is refused. */
  #dispatch(exchange: Exchange, head: RequestHead): void {
    const { core } = this.#front;
    const expect = head.fields['expect'];
    if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
      this.#answerAndClose(exchange, malformedResponse(new MalformedRequest(417, 'unknown expectation')));
      return;
    }
    const { disk } = core;
    if (disk === undefined) throw core.refusal();
    const condition = evaluateConditions(head.method, head.fields, entityTag(disk));
    if (condition === 'failed') throw new Failure('wrong-disk', 'a precondition failed');
    const fields = condition === 'ignore-range' ? { ...head.fields, range: undefined } : head.fields;
    const request = decodeRequest(head.method, fields, disk.sizeBytes);
    if (request.op === 'write') {
      this.#startUpload(exchange, head, request, disk);
    } else if (condition === 'not-modified') {
      this.#afterBody(exchange, head, () => this.#replies.answer(exchange, encodeNotModified(disk)));
    } else {
      this.#afterBody(exchange, head, () => this.#start(exchange, request, disk));
    }
  }

  /** Requests that are no writes have no use for a body. */
  #afterBody(exchange: Exchange, { body }: RequestHead, start: () => void): void {
    if (body.at === 'none') start();
    else this.#intake = { at: 'discarding', exchange, bytes: 0, done: start };
  }

  #start(exchange: Exchange, request: Exclude<DiskRequest, { op: 'write' }>, disk: DiskFacts): void {
    switch (request.op) {
      case 'probe':
        this.#run({ alone: false }, () => void this.#probe(exchange));
        return;
      case 'read':
        this.#withMemory(exchange, 'responses', this.#reading.neededBytes(request), (bytes) => {
          this.#replies.hold(exchange, bytes);
          if (this.#isStale(exchange, disk)) return;
          this.#running++;
          this.#reading.start(exchange, request, disk);
        });
        return;
      default:
        this.#run({ alone: mustRunAlone(request) }, () => void this.#execute(exchange, request, disk));
    }
  }

  /** What was asked of one life of the disk is not done in another: its conditions and its range were judged by the first. */
  #isStale(exchange: Exchange, disk: DiskFacts): boolean {
    const { core } = this.#front;
    if (core.disk === disk) return false;
    this.#replies.answer(exchange, encodeFailure(core.refusal()));
    return true;
  }

  // Execution, in order where the protocol asks for it.

  #run({ alone, upload }: { alone: boolean; upload?: Upload }, start: () => void): void {
    if (alone && this.#running > 0) {
      this.#alone = { at: 'waiting', start, upload };
      return;
    }
    if (alone) this.#alone = { at: 'running' };
    this.#running++;
    start();
  }

  #settled(): void {
    this.#running--;
    if (this.#running > 0) return;
    const alone = this.#alone;
    this.#alone = notAlone;
    if (alone.at === 'waiting') this.#run({ alone: true }, alone.start);
  }

  async #probe(exchange: Exchange): Promise<void> {
    const response = await this.#describe();
    if (!this.#gone) this.#replies.answer(exchange, response);
    this.#settled();
    this.#front.schedule(this);
  }

  async #describe(): Promise<EncodedResponse> {
    try {
      const description = await this.#front.core.probe();
      return encodeDescription({ ...description, endpoint: localEndpoint(this.#socket) });
    } catch (error) {
      return encodeFailure(asFailure(error), { endpoint: this.#endpointWithoutDisk });
    }
  }

  async #execute(exchange: Exchange, request: Executable, disk: DiskFacts, upload?: Upload): Promise<void> {
    const { core } = this.#front;
    const outcome =
      core.disk === disk ? await core.execute(request, upload?.buffer, undefined) : refused(core.refusal());
    if (upload !== undefined) this.#releaseUpload(upload, outcome);
    if (!this.#gone) {
      const { answer } = outcome;
      const response =
        outcome.at === 'done'
          ? encodeAnswer(request, answer, disk)
          : encodeFailure(outcome.failure, { sizeBytes: disk.sizeBytes, answer });
      this.#replies.answer(exchange, response);
    }
    this.#settled();
    this.#front.schedule(this);
  }

  /** Runs `start` when the memory is there; until then nothing more is read. */
  #withMemory(exchange: Exchange, from: 'uploads' | 'responses', bytes: number, start: (bytes: number) => void): void {
    const budget = this.#front[from];
    if (budget.tryTake(bytes)) {
      start(bytes);
      return;
    }
    const giveUp = budget.wait(bytes, () => {
      this.#intake = this.#intakeAfter(exchange);
      start(bytes);
      this.#front.schedule(this);
    });
    this.#intake = { at: 'waiting', exchange, giveUp, sinceMs: this.#front.clock.nowMs() };
  }

  // Bodies.

  #startUpload(exchange: Exchange, head: RequestHead, request: Upload['request'], disk: DiskFacts): void {
    if (disk.readOnly) throw new Failure('read-only', 'the disk is read-only');
    const { body, version, fields } = head;
    if (body.at === 'none' || (body.at === 'length' && body.bytes !== request.length)) throw wrongLength();
    this.#withMemory(exchange, 'uploads', request.length, () => {
      exchange.continueDue = fields['expect'] !== undefined && version === '1.1';
      const buffer = this.#front.pool.take(request.length);
      const sinceMs = this.#front.clock.nowMs();
      this.#intake = { at: 'collecting', upload: { exchange, request, disk, buffer, filledBytes: 0, sinceMs } };
    });
  }

  #takeBody(bytes: Buffer): void {
    const intake = this.#intake;
    if (intake.at === 'collecting') this.#collect(intake.upload, bytes);
    if (intake.at !== 'discarding') return;
    intake.bytes += bytes.length;
    if (intake.bytes <= bodyBytesMax) return;
    const failure = new Failure('too-large', `more than ${bodyBytesMax} bytes in one request`);
    this.#answerAndClose(intake.exchange, encodeFailure(failure));
  }

  #collect(upload: Upload, bytes: Buffer): void {
    const { buffer, filledBytes, exchange } = upload;
    if (bytes.length <= buffer.length - filledBytes) {
      upload.filledBytes += bytes.copy(buffer, filledBytes);
      return;
    }
    this.#releaseUpload(upload);
    const done = () => this.#replies.answer(exchange, encodeFailure(wrongLength()));
    this.#intake = { at: 'discarding', exchange, bytes: filledBytes + bytes.length, done };
  }

  #takeEnd(): void {
    const intake = this.#intake;
    if (intake.at !== 'collecting' && intake.at !== 'discarding') return;
    const { exchange } = intake.at === 'collecting' ? intake.upload : intake;
    exchange.continueDue = false;
    this.#intake = this.#intakeAfter(exchange);
    if (intake.at === 'discarding') intake.done();
    else this.#finishUpload(intake.upload);
  }

  #finishUpload(upload: Upload): void {
    const { exchange, request, disk, buffer, filledBytes } = upload;
    if (filledBytes === buffer.length) {
      const alone = mustRunAlone(request);
      this.#run({ alone, upload }, () => void this.#execute(exchange, request, disk, upload));
      return;
    }
    this.#releaseUpload(upload);
    this.#replies.answer(exchange, encodeFailure(wrongLength()));
  }

  /** `outcome`: of the write, if there was one. */
  #releaseUpload({ buffer }: Upload, outcome?: Outcome): void {
    whenFree(outcome, () => {
      this.#front.pool.give(buffer);
      this.#front.uploads.give(buffer.length);
    });
  }

  // Refusals.

  /** A body that is on its way is read to its end, so that the connection can be used again. */
  #refuse(exchange: Exchange, head: RequestHead, failure: Failure): void {
    const { core } = this.#front;
    const { fields, body, version } = head;
    const named = fields['disk-stamp'] !== undefined || fields['disk-if-instance'] !== undefined;
    const answer = named ? core.identify() : undefined;
    const endpoint = head.method === 'HEAD' ? this.#endpointWithoutDisk : undefined;
    const response = encodeFailure(failure, { sizeBytes: core.disk?.sizeBytes, answer, endpoint });
    const waits = fields['expect'] !== undefined && version === '1.1';
    if (body.at === 'none') {
      this.#replies.answer(exchange, response);
    } else if (waits || (body.at === 'length' && body.bytes > bodyBytesMax)) {
      this.#answerAndClose(exchange, response);
    } else {
      this.#intake = { at: 'discarding', exchange, bytes: 0, done: () => this.#replies.answer(exchange, response) };
    }
  }

  /** Tells a probe that no instance which it might look for is here any more (failover rule T5). */
  get #endpointWithoutDisk(): string | undefined {
    return this.#front.core.disk === undefined ? localEndpoint(this.#socket) : undefined;
  }

  #takeMalformed(problem: MalformedRequest): void {
    const intake = this.#intake;
    if (intake.at === 'collecting') this.#answerAndClose(intake.upload.exchange, malformedResponse(problem));
    else if (intake.at === 'discarding') this.#answerAndClose(intake.exchange, malformedResponse(problem));
    else this.#answerUnread(problem);
  }

  /** A request whose head could not be read. */
  #answerUnread(problem: MalformedRequest): void {
    const exchange = new Exchange(undefined, true);
    this.#replies.add(exchange);
    this.#answerAndClose(exchange, malformedResponse(problem));
  }

  /** `exchange` is the last one that was taken. */
  #answerAndClose(exchange: Exchange, response: EncodedResponse): void {
    this.#closeIntake();
    exchange.closes = true;
    exchange.continueDue = false;
    this.#replies.answer(exchange, response);
  }

  #closeIntake(): void {
    const intake = this.#intake;
    this.#intake = { at: 'closed' };
    if (intake.at === 'collecting') this.#releaseUpload(intake.upload);
    if (intake.at === 'waiting') intake.giveUp();
  }

  // Time limits.

  /** Called every now and then. */
  sweep(nowMs: number): void {
    const { limits, responses } = this.#front;
    const { unsentBytes } = this.#replies;
    const isQuiet = this.isIdle || (this.#replies.isOver && unsentBytes === 0);
    const quietMs = this.#quiet.measure(nowMs, !isQuiet);
    const unsentMs = this.#output.measure(nowMs, unsentBytes === 0);
    const unsentMsMax = Math.min(limits.responseStallMs, responses.isWanted ? this.#fairMs(unsentBytes) : Infinity);
    const quietMsMax = this.#replies.isOver ? limits.lingerMs : limits.keepAliveMs;
    if (quietMs > quietMsMax || unsentMs > unsentMsMax) this.destroy();
    else this.#sweepIntake(nowMs);
  }

  #sweepIntake(nowMs: number): void {
    const { limits, uploads } = this.#front;
    const intake = this.#intake;
    const headMs = this.#heads.measure(nowMs, !(this.#reader.isInHead && this.#mayTake()));
    const isBody = intake.at === 'collecting' || intake.at === 'discarding';
    const inputMs = this.#input.measure(nowMs, !isBody);
    if (intake.at === 'heads' && headMs > limits.headMs) {
      this.#answerUnread(new MalformedRequest(408, 'the request does not come'));
    } else if (isBody && inputMs > limits.bodyStallMs) {
      this.#takeMalformed(new MalformedRequest(408, 'the body does not come'));
    } else if (intake.at === 'waiting' && nowMs - intake.sinceMs > limits.budgetWaitMs) {
      this.#answerAndClose(intake.exchange, encodeFailure(new Failure('unavailable', 'no memory is free')));
    } else if (intake.at === 'collecting' && uploads.isWanted) {
      if (nowMs - intake.upload.sinceMs > this.#fairMs(intake.upload.filledBytes)) this.destroy();
      return;
    } else {
      return;
    }
    this.pump();
  }

  /** How long a client may take for so many bytes while others wait for the memory. */
  #fairMs(bytes: number): number {
    const { slowGraceMs, slowBytesPerSecond } = this.#front.limits;
    return slowGraceMs + (bytes / slowBytesPerSecond) * 1000;
  }
}

/** Plain requests that change the disk, or wait for what did. */
function mustRunAlone(request: Executable): boolean {
  if (request.op === 'map') return false;
  return (request.op === 'flush' ? request.instance : request.stamp) === undefined;
}

function wrongLength(): Failure {
  return new Failure('invalid-request', 'the body is not as long as the range');
}
