/**
 * One disk request over HTTP: what is sent, which answer is accepted, and what it means.
 * Promise: a read is answered only with exactly the bytes that were asked for, in order and unencoded, of the file that is
 * expected; every other answer becomes a `Failure`.
 */
import { asFailure, Failure } from '../base/failure.js';
import type { Completion } from '../gateway/backend.js';
import type { DiskAnswer, DiskRequest } from '../http-disk/messages.js';
import { encodeRequest } from '../http-disk/request-codec.js';
import { decodeAnswer } from '../http-disk/response-codec.js';
import type { Exchange, LaneName } from './connection.js';
import { malformed, type ResponseHead } from './response-head.js';
import type { Destination, Method } from './response-parser.js';
import type { RequestStarts } from './route.js';
import type { IdentityGuard } from './validators.js';

export type SentRequest = Exclude<DiskRequest, { op: 'probe' }>;

/** What the answers of one server are judged by. */
export interface ServerView {
  readonly starts: RequestStarts;
  readonly guard: IdentityGuard;
  /** It has announced sessions: its answers are taken literally. */
  readonly isOurs: boolean;
  /** It answered the last probe in HTTP/1.x. Undefined: there was none. */
  readonly minorVersion: number | undefined;
  /** As the last probe had it. */
  readonly sizeBytes: number | undefined;
}

/** Bodies of refusals (a page of a proxy), and of answers that have nothing to say. Longer ones end the connection. */
const textBytesMax = 64 * 1024;
/** Longer reads would hold back shorter ones on the same connection. */
const smallReadBytesMax = 64 * 1024;
/** 4096 extents. */
const mapBytesMax = 1024 * 1024;

export class DiskExchange implements Exchange {
  readonly lane: LaneName;
  readonly method: Method;
  readonly head: string;
  readonly payload: Buffer | null;
  readonly isRepeatable: boolean;
  readonly weightBytes: number;
  isRefused = false;
  readonly #request: SentRequest;
  readonly #offset: number;
  /** The answer must say which instance it comes from. */
  readonly #isGuarded: boolean;
  readonly #changes: boolean;
  readonly #into: Buffer | null;
  readonly #server: ServerView;
  readonly #completion: Completion;
  /** What the answer comes to; undefined: its fields and body have to be decoded together. */
  #answer: DiskAnswer | undefined = undefined;
  #status = 0;
  #fields: Record<string, string> = {};

  constructor(
    request: SentRequest,
    bytes: Buffer | null,
    into: Buffer | null,
    server: ServerView,
    completion: Completion,
  ) {
    const { method, headers } = encodeRequest(request);
    this.#request = request;
    this.#offset = 'offset' in request ? request.offset : 0;
    this.#changes = 'stamp' in request || 'deferred' in request;
    this.#isGuarded = guardOf(request) !== undefined;
    this.#into = into;
    this.#server = server;
    this.#completion = completion;
    this.lane = laneOf(request);
    this.method = method;
    this.payload = bytes;
    this.isRepeatable = request.op === 'read' || request.op === 'map';
    this.weightBytes = 512 + (bytes?.length ?? into?.length ?? 0);
    const length = method === 'GET' ? server.guard.conditions : `Content-Length: ${bytes?.length ?? 0}\r\n`;
    this.head = `${server.starts[method]}${headers}${length}\r\n`;
  }

  begin(head: ResponseHead): Destination {
    this.#requireSameKind(head);
    if (head.status < 200 || head.status > 299) return this.#beginDecoded(head);
    return this.#into === null ? this.#beginDone(head) : this.#beginData(head, this.#into);
  }

  /**
   * Behind one address an old server (HTTP/1.0, and closes after each answer) and ours may take each other's place without that any
   * connection breaks. What one of them has been found to have is not asked of the other.
   */
  #requireSameKind({ minorVersion }: ResponseHead): void {
    const { isOurs, minorVersion: probed } = this.#server;
    if (minorVersion === probed || (!isOurs && probed !== 0)) return;
    throw new Failure('connection-lost', 'another kind of server answers there now');
  }

  /** Nothing is kept of the body of a read until its head has been found right. */
  #beginData(head: ResponseHead, into: Buffer): Destination {
    const { isOurs, guard } = this.#server;
    if (this.#isExactly(head, into.length) || this.#isWhole(head, into.length)) this.#answer = answerOf(head);
    else if (isOurs) throw malformed('the data is not labelled as what was asked for');
    else this.#answer = decodeAnswer(this.#request, head.status, head.fields());
    guard.check({ etag: head.etag, lastModified: head.lastModified, sizeBytes: head.rangeTotal });
    return into;
  }

  /** The common answer, judged without decoding its fields. What is not exactly so is judged by the codec. */
  #isExactly(head: ResponseHead, length: number): boolean {
    return (
      head.status === 206 &&
      (head.contentLength === length || head.contentLength < 0) &&
      head.rangeFirst === this.#offset &&
      head.rangeLast === this.#offset + length - 1 &&
      this.#isInOrder(head)
    );
  }

  /** 200 instead of 206 is right only when the range was the whole disk. */
  #isWhole(head: ResponseHead, length: number): boolean {
    const { isOurs, sizeBytes } = this.#server;
    return (
      head.status === 200 && head.contentLength === length && sizeBytes === length && !isOurs && this.#isInOrder(head)
    );
  }

  #isInOrder(head: ResponseHead): boolean {
    const saysInstance = head.instance !== undefined && head.clockMs >= 0;
    return !head.encoded && !head.oddDiskField && (saysInstance || !this.#isGuarded);
  }

  /** Success of anything but a read. */
  #beginDone(head: ResponseHead): Destination {
    if (this.#request.op === 'map' || head.status !== 200 || !this.#isInOrder(head)) return this.#beginDecoded(head);
    this.#answer = answerOf(head);
    return textBytesMax;
  }

  #beginDecoded(head: ResponseHead): Destination {
    this.#status = head.status;
    this.#fields = head.fields();
    this.isRefused = head.status < 200 || head.status > 299;
    if (this.#request.op === 'map' && !this.isRefused) return mapBytesMax;
    // A refusal holds also when its text is too long to be received: it is thrown from here, and the connection ends.
    if (this.isRefused && head.contentLength > textBytesMax) this.#decode('');
    return textBytesMax;
  }

  #decode(body: string): DiskAnswer {
    return decodeAnswer(this.#request, this.#status, this.#fields, body);
  }

  finish(body: Buffer): void {
    let answer: DiskAnswer;
    try {
      answer = this.#answer ?? this.#decode(body.toString());
    } catch (error) {
      this.#failLater(asFailure(error));
      return;
    }
    // What we write ourselves changes the validators of a plain server.
    if (this.#changes) this.#server.guard.forget();
    this.#completion.answered(answer);
  }

  fail(failure: Failure, isUnsent: boolean): void {
    const isCertain = !isUnsent || failure.row.outcome === 'not-applied';
    this.#failLater(
      isCertain ? failure : new Failure('unavailable', `not sent: ${failure.message}`, { cause: failure }),
    );
  }

  /** Failures come while connections are being closed, or before the request has left: whoever hears of one may do much. */
  #failLater(failure: Failure): void {
    queueMicrotask(() => this.#completion.failed(failure));
  }
}

function laneOf(request: SentRequest): LaneName {
  switch (request.op) {
    case 'read':
      return request.length <= smallReadBytesMax ? 'small-reads' : 'large-reads';
    case 'write':
      return 'writes';
    default:
      return 'slow';
  }
}

function answerOf({ instance, clockMs }: ResponseHead): DiskAnswer {
  return { instance, clockMs: clockMs < 0 ? undefined : clockMs };
}

/** What makes a server answer with its instance. */
function guardOf(request: SentRequest): unknown {
  return 'stamp' in request ? request.stamp : 'instance' in request ? request.instance : undefined;
}
