/**
 * Framing of HTTP/1 responses: bytes in, whole responses out. No I/O.
 * Promise: any split of the bytes gives the same responses; a body goes straight to where it is wanted, and a response is
 * reported as finished only when all of its body is there, no byte less or more; whatever else arrives throws a `Failure`.
 *
 *     status ──> fields ──> fixed │ until-close │ chunk-size ──> chunk-data ──> chunk-end ──┐
 *        ↑                    │                      ↑      └──> trailers                   │
 *        └────────────────────┴──────────────────────┴──────────────────────────────────────┘      any ──> stopped
 */
import { assert } from '../base/assert.js';
import { Failure } from '../base/failure.js';
import { headBytesMax, incomplete, malformed, ResponseHead, readText } from './response-head.js';

export type Method = 'HEAD' | 'GET' | 'PUT' | 'POST' | 'CONNECT';

/** Where a body goes. A buffer: it must fill it exactly. A number: it is collected, and has at most so many bytes. */
export type Destination = Buffer | number;

export interface ResponseHandler {
  /** The method that the next response answers. Undefined: none is awaited, so that any byte is one too many. */
  awaited(): Method | undefined;
  /** A final response begins. `head` is the parser's own: valid only now. Throws a `Failure` if it cannot be an answer. */
  begin(head: ResponseHead): Destination;
  /** It is complete. `body` is empty when the destination was a buffer. */
  finish(body: Buffer): void;
}

type State =
  | { readonly at: 'status' }
  | { readonly at: 'fields'; readonly method: Method }
  | { readonly at: 'fixed'; left: number }
  | { readonly at: 'until-close' }
  | { readonly at: 'chunk-size' }
  | { readonly at: 'chunk-data'; left: number }
  | { readonly at: 'chunk-end' }
  | { readonly at: 'trailers' }
  | { readonly at: 'stopped' };

const status: State = { at: 'status' };
const untilClose: State = { at: 'until-close' };
const chunkSize: State = { at: 'chunk-size' };
const chunkEnd: State = { at: 'chunk-end' };
const trailers: State = { at: 'trailers' };
const stopped: State = { at: 'stopped' };

const interimResponsesMax = 16;
const nothing = Buffer.alloc(0);
const tab = 0x09;
const carriageReturn = 0x0d;
const space = 0x20;
const semicolon = 0x3b;

export class ResponseParser {
  readonly #handler: ResponseHandler;
  readonly #head = new ResponseHead();
  #state: State = status;
  /** The lines of a head (or chunk size, or trailers) that has not arrived completely: `carry[0, carried)`. */
  #carry = nothing;
  #carried = 0;
  /** Up to where the lines are read; and where, from the start of the head, its field lines start. */
  #lineStart = 0;
  #fieldsOffset = 0;
  #interimResponses = 0;
  #trailerBytes = 0;
  #destination: Destination = 0;
  #filled = 0;
  #collected: Buffer[] = [];

  constructor(handler: ResponseHandler) {
    this.#handler = handler;
  }

  /** Nothing of a response has arrived that is not finished. */
  get isBetween(): boolean {
    return this.#state.at === 'status' && this.#carried === 0;
  }

  /** Whatever else arrives is ignored. */
  stop(): void {
    this.#state = stopped;
  }

  /**
   * Takes `bytes[0, end)`, of which nothing is kept: the caller may reuse them. Throws a `Failure` (`malformed-response`, or
   * what the handler threw), and is stopped then.
   */
  push(bytes: Buffer, end: number = bytes.length): void {
    let at = 0;
    try {
      while (at < end && this.#state.at !== 'stopped') at = this.#advance(this.#state, bytes, at, end);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /** The other side has closed. Throws `connection-lost` in the middle of a response. */
  end(): void {
    const state = this.#state;
    this.stop();
    if (state.at === 'stopped' || (state === status && this.#carried === 0)) return;
    if (state.at !== 'until-close') throw new Failure('connection-lost', 'closed in the middle of a response');
    this.#finishIfWhole();
  }

  /** Takes at least one byte of `bytes[at, end)`. Returns how far it came. */
  #advance(state: State, bytes: Buffer, at: number, end: number): number {
    switch (state.at) {
      case 'status':
      case 'fields':
      case 'chunk-size':
      case 'chunk-end':
      case 'trailers':
        return this.#carried > 0 ? this.#readCarried(bytes, at, end) : this.#readLines(bytes, at, end);
      case 'fixed': {
        const count = Math.min(state.left, end - at);
        this.#deliver(bytes, at, count);
        state.left -= count;
        if (state.left === 0) this.#finish();
        return at + count;
      }
      case 'chunk-data': {
        const count = Math.min(state.left, end - at);
        this.#deliver(bytes, at, count);
        state.left -= count;
        if (state.left === 0) this.#state = chunkEnd;
        return at + count;
      }
      case 'until-close':
        this.#deliver(bytes, at, end - at);
        return end;
      case 'stopped':
        return end;
    }
  }

  /** Reads lines straight from what has arrived, and carries what is left of a line or head. */
  #readLines(bytes: Buffer, at: number, end: number): number {
    if (this.#state.at === 'status') {
      const next = this.#head.readFamiliar(bytes, at, end);
      if (next !== incomplete) {
        this.#headComplete(bytes, at, this.#awaited());
        return next;
      }
    }
    this.#lineStart = at;
    if (this.#readTo(bytes, at, end)) return this.#lineStart;
    const rest = end - at;
    if (rest > headBytesMax) throw tooLong();
    this.#reserve(rest);
    bytes.copy(this.#carry, 0, at, end);
    this.#carried = rest;
    this.#lineStart -= at;
    return end;
  }

  /** Appends to what is carried, and reads on from there. */
  #readCarried(bytes: Buffer, at: number, end: number): number {
    const before = this.#carried;
    const count = Math.min(end - at, headBytesMax + 1 - before);
    this.#reserve(before + count);
    bytes.copy(this.#carry, before, at, at + count);
    if (this.#readTo(this.#carry, 0, before + count)) {
      this.#carried = 0;
      return at + this.#lineStart - before;
    }
    this.#carried = before + count;
    if (this.#carried > headBytesMax) throw tooLong();
    return at + count;
  }

  #reserve(length: number): void {
    if (this.#carry.length >= length) return;
    const larger = Buffer.allocUnsafeSlow(Math.min(headBytesMax + 1, Math.max(1024, 2 * length)));
    this.#carry.copy(larger, 0, 0, this.#carried);
    this.#carry = larger;
  }

  /**
   * Reads lines from `#lineStart` on, until the head (or chunk size, chunk end, trailers) that starts at `start` is
   * complete: true; or until the bytes end: false.
   */
  #readTo(bytes: Buffer, start: number, end: number): boolean {
    for (;;) {
      const state = this.#state;
      if (state.at === 'fields' && ResponseHead.isEnd(bytes, this.#lineStart, end)) {
        this.#lineStart += 2;
        if (this.#lineStart - start > headBytesMax) throw tooLong();
        this.#head.learn(bytes, start, this.#lineStart);
        this.#headComplete(bytes, start, state.method);
        return true;
      }
      const next = this.#readLine(state, bytes, start, end);
      if (next === incomplete) return false;
      this.#lineStart = next;
      if (next - start > headBytesMax) throw tooLong();
      if (this.#state.at !== 'fields') return true;
    }
  }

  #readLine(state: State, bytes: Buffer, start: number, end: number): number {
    switch (state.at) {
      case 'status':
        return this.#readStatus(bytes, start, end);
      case 'fields':
        return this.#head.readField(bytes, this.#lineStart, end);
      case 'chunk-size':
        return this.#readChunkSize(bytes, start, end);
      case 'chunk-end':
        return this.#readChunkEnd(bytes, start, end);
      default:
        assert(state.at === 'trailers', 'a body is not read by lines');
        return this.#readTrailer(bytes, start, end);
    }
  }

  #readStatus(bytes: Buffer, at: number, end: number): number {
    const method = this.#awaited();
    const next = this.#head.readStatusLine(bytes, at, end);
    if (next === incomplete) return incomplete;
    this.#fieldsOffset = next - at;
    this.#state = { at: 'fields', method };
    return next;
  }

  #awaited(): Method {
    const method = this.#handler.awaited();
    if (method === undefined) throw malformed('bytes that answer no request');
    return method;
  }

  #headComplete(bytes: Buffer, start: number, method: Method): void {
    const head = this.#head;
    this.#state = status;
    if (head.status < 200) {
      if (head.status === 101) throw malformed('status 101 without a request for it');
      if (++this.#interimResponses > interimResponsesMax) throw malformed('too many interim responses');
      return;
    }
    this.#interimResponses = 0;
    if (head.chunked && (head.contentLength >= 0 || head.minorVersion === 0)) {
      throw malformed('a Transfer-Encoding that contradicts the rest of the head');
    }
    head.locate(bytes, start + this.#fieldsOffset);
    this.#destination = this.#handler.begin(head);
    this.#filled = 0;
    if (this.#state.at !== 'stopped') this.#beginBody(head, method);
  }

  /** RFC 9112, section 6.3. */
  #beginBody(head: ResponseHead, method: Method): void {
    const bodiless =
      method === 'HEAD' || head.status === 204 || head.status === 304 || (method === 'CONNECT' && head.status < 300);
    if (bodiless) {
      if (typeof this.#destination !== 'number') throw malformed('a response without the body that is wanted');
      this.#finish();
    } else if (head.chunked) this.#state = chunkSize;
    else if (head.contentLength < 0) this.#state = untilClose;
    else this.#beginFixed(head.contentLength);
  }

  #beginFixed(length: number): void {
    const destination = this.#destination;
    if (typeof destination === 'number' ? length > destination : length !== destination.length) {
      throw malformed(`a body of ${length} bytes`);
    }
    if (length === 0) this.#finish();
    else this.#state = { at: 'fixed', left: length };
  }

  #deliver(bytes: Buffer, at: number, count: number): void {
    const destination = this.#destination;
    const filled = this.#filled + count;
    if (filled > (typeof destination === 'number' ? destination : destination.length)) {
      throw malformed('the body is too long');
    }
    if (typeof destination === 'number') this.#collected.push(Buffer.from(bytes.subarray(at, at + count)));
    else bytes.copy(destination, this.#filled, at, at + count);
    this.#filled = filled;
  }

  #finish(): void {
    const body = joined(this.#collected);
    if (body !== nothing) this.#collected = [];
    // Nothing of the caller's buffer is touched once the response is reported.
    this.#destination = 0;
    if (this.#state.at !== 'stopped') this.#state = status;
    this.#handler.finish(body);
  }

  /** chunk-size [ chunk-ext ] CRLF */
  #readChunkSize(bytes: Buffer, at: number, end: number): number {
    let size = 0;
    let index = at;
    for (; index < end; index++) {
      const digit = hexDigit(bytes[index] ?? 0);
      if (digit < 0) break;
      if (index - at === 12) throw malformed('a chunk size that is too long');
      size = size * 16 + digit;
    }
    if (index === end) return incomplete;
    const after = bytes[index];
    if (index === at || (after !== semicolon && after !== carriageReturn && after !== space && after !== tab)) {
      throw malformed('a chunk size that cannot be read');
    }
    const lineEnd = readText(bytes, index, end);
    if (lineEnd === incomplete) return incomplete;
    if (size > 0) this.#state = { at: 'chunk-data', left: size };
    else {
      this.#trailerBytes = 0;
      this.#state = trailers;
    }
    return lineEnd + 2;
  }

  #readChunkEnd(bytes: Buffer, at: number, end: number): number {
    const lineEnd = readText(bytes, at, end);
    if (lineEnd !== at && lineEnd !== incomplete) throw malformed('a chunk of another length');
    if (lineEnd === incomplete) {
      if (bytes[at] !== carriageReturn) throw malformed('a chunk of another length');
      return incomplete;
    }
    this.#state = chunkSize;
    return lineEnd + 2;
  }

  /** Trailers tell nothing that is needed: they are only skipped. */
  #readTrailer(bytes: Buffer, at: number, end: number): number {
    const lineEnd = readText(bytes, at, end);
    if (lineEnd === incomplete) return incomplete;
    this.#trailerBytes += lineEnd + 2 - at;
    if (this.#trailerBytes > headBytesMax) throw tooLong();
    if (lineEnd === at) this.#finishIfWhole();
    return lineEnd + 2;
  }

  /** At the end of a body whose length was not announced. */
  #finishIfWhole(): void {
    const destination = this.#destination;
    if (typeof destination !== 'number' && this.#filled !== destination.length) {
      throw malformed(`the body ends after ${this.#filled} of ${destination.length} bytes`);
    }
    this.#finish();
  }
}

function joined(chunks: readonly Buffer[]): Buffer {
  return chunks.length > 1 ? Buffer.concat(chunks) : (chunks[0] ?? nothing);
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

function tooLong(): Failure {
  return malformed(`more than ${headBytesMax} bytes of header lines`);
}
