/**
 * HTTP/1.x requests out of a stream of bytes (RFC 9112). No I/O: bytes are pushed in, events are pulled out, and what is not
 * pulled is not read, which is how its user holds a client back.
 *
 *     head ── Content-Length ──▶ length ── all there ──▶ head
 *       │ ── chunked ──▶ chunk-size ⇄ chunk-data ── last chunk ──▶ trailers ──▶ head
 *       └── malformed ──▶ broken: no further event
 *
 * Promise: any split of the bytes gives the same heads, bodies and ends; less than a head and one chunk of input is kept.
 */
import { FamiliarHead } from './familiar-head.js';
import { type BodyFraming, headBytesMax, MalformedRequest, parseHead, type RequestHead } from './request-head.js';

export type RequestEvent =
  | { readonly at: 'head'; readonly head: RequestHead }
  /** A part of the body, to be used before the next call: a view of what was pushed. */
  | { readonly at: 'body'; readonly bytes: Buffer }
  /** The body has ended. A request whose framing is `none` has no such event. */
  | { readonly at: 'end' }
  | { readonly at: 'malformed'; readonly problem: MalformedRequest };

type State =
  | { readonly at: 'head' }
  | { readonly at: 'length'; remaining: number }
  | { readonly at: 'chunk-size' }
  | { readonly at: 'chunk-data'; remaining: number }
  | { readonly at: 'chunk-end' }
  | { readonly at: 'trailers'; bytes: number }
  | { readonly at: 'broken' };

const end: RequestEvent = { at: 'end' };
const inHead: State = { at: 'head' };
const nothing: Buffer = Buffer.alloc(0);
const headEnd = Buffer.from('\r\n\r\n');
const lineEnd = Buffer.from('\r\n');
const [cr, lf] = [0x0d, 0x0a];
const chunkLineBytesMax = 1024;
const trailerBytesMax = 8 * 1024;
/** A size line: hexadecimal digits, then extensions, which are ignored. */
const chunkLine = /^([0-9A-Fa-f]{1,12})[\t ]*(?:;[\t -~\x80-\xff]*)?$/;

export class RequestReader {
  #input: Buffer = nothing;
  #at = 0;
  readonly #familiar = new FamiliarHead();
  #state: State = inHead;
  /** How much of the input has been searched for the end of the head. */
  #searched = 0;
  /** The input is the chunk itself, not a copy. */
  #isBorrowed = false;

  /** Takes a chunk, which must not change until {@link next} has found nothing more in it or {@link keepRest} was called. */
  push(chunk: Buffer): void {
    const rest = this.#input.length - this.#at;
    this.#isBorrowed = rest === 0;
    this.#input = rest === 0 ? chunk : Buffer.concat([this.#input.subarray(this.#at), chunk]);
    this.#searched = Math.max(0, this.#searched - this.#at);
    this.#at = 0;
  }

  /** Whether a request has begun and its head is not complete. */
  get isInHead(): boolean {
    return this.#state.at === 'head' && this.#at < this.#input.length;
  }

  /** Whether the body of a request has begun and is not complete. */
  get isInBody(): boolean {
    return this.#state.at !== 'head' && this.#state.at !== 'broken';
  }

  /** The next event; undefined: more bytes are needed. After `malformed` there is none. */
  next(): RequestEvent | undefined {
    const event = this.#step();
    if (event === undefined) this.keepRest();
    return event;
  }

  /** Copies what was pushed and has not been read: from now on the chunk may be overwritten. */
  keepRest(): void {
    if (!this.#isBorrowed) return;
    this.#isBorrowed = false;
    this.#input = this.#at === this.#input.length ? nothing : Buffer.from(this.#input.subarray(this.#at));
    this.#searched = Math.max(0, this.#searched - this.#at);
    this.#at = 0;
  }

  #step(): RequestEvent | undefined {
    for (;;) {
      switch (this.#state.at) {
        case 'head':
          return this.#readHead();
        case 'length':
        case 'chunk-data':
          return this.#readBody(this.#state);
        case 'broken':
          this.#at = this.#input.length;
          return undefined;
        default: {
          const line = this.#readLine();
          if (line === undefined) return undefined;
          const event = typeof line === 'string' ? this.#takeLine(line) : this.#broken(line);
          if (event !== undefined) return event;
        }
      }
    }
  }

  #readHead(): RequestEvent | undefined {
    this.#skipEmptyLines();
    const start = this.#at;
    const familiar = this.#familiar.match(this.#input, start);
    if (familiar !== undefined) {
      this.#at = this.#familiar.end;
      return this.#began(familiar);
    }
    const stop = this.#input.indexOf(headEnd, Math.max(start, this.#searched - 3));
    if (stop < 0 || stop - start > headBytesMax) return this.#judgePartialHead(start);
    this.#at = stop + headEnd.length;
    const head = parseHead(this.#input.toString('latin1', start, stop));
    if (head instanceof MalformedRequest) return this.#broken(head);
    this.#familiar.learn(head, this.#input, start, this.#at);
    return this.#began(head);
  }

  #began(head: RequestHead): RequestEvent {
    this.#state = stateFor(head.body);
    return { at: 'head', head };
  }

  /** RFC 9112, section 2.2: empty lines before a request are ignored. */
  #skipEmptyLines(): void {
    while (this.#input[this.#at] === cr && this.#input[this.#at + 1] === lf) this.#at += 2;
  }

  #judgePartialHead(start: number): RequestEvent | undefined {
    this.#searched = this.#input.length;
    if (this.#input.length - start > headBytesMax) {
      return this.#broken(new MalformedRequest(431, `more than ${headBytesMax} bytes of header fields`));
    }
    // A client that ends its lines with LF alone would wait for ever.
    for (let at = this.#input.indexOf(lf, start); at >= 0; at = this.#input.indexOf(lf, at + 1)) {
      if (at === start || this.#input[at - 1] !== cr)
        return this.#broken(new MalformedRequest(400, 'lines end with CRLF'));
    }
    return undefined;
  }

  #readBody(state: { readonly at: 'length' | 'chunk-data'; remaining: number }): RequestEvent | undefined {
    if (state.remaining === 0) {
      this.#state = state.at === 'length' ? inHead : { at: 'chunk-end' };
      return state.at === 'length' ? end : this.#step();
    }
    const count = Math.min(state.remaining, this.#input.length - this.#at);
    if (count === 0) return undefined;
    const bytes = this.#input.subarray(this.#at, this.#at + count);
    this.#at += count;
    state.remaining -= count;
    return { at: 'body', bytes };
  }

  /** The next line without its end; undefined: it is not complete. */
  #readLine(): string | MalformedRequest | undefined {
    const stop = this.#input.indexOf(lineEnd, this.#at);
    const length = (stop < 0 ? this.#input.length : stop) - this.#at;
    if (length > chunkLineBytesMax) return new MalformedRequest(400, 'a line of the body is too long');
    if (stop < 0) return undefined;
    const line = this.#input.toString('latin1', this.#at, stop);
    this.#at = stop + lineEnd.length;
    return line;
  }

  #takeLine(line: string): RequestEvent | undefined {
    switch (this.#state.at) {
      case 'chunk-size':
        return this.#takeChunkSize(line);
      case 'chunk-end':
        if (line !== '') return this.#broken(new MalformedRequest(400, 'a chunk is longer than its size'));
        this.#state = { at: 'chunk-size' };
        return undefined;
      case 'trailers':
        return this.#takeTrailer(this.#state, line);
      default:
        return undefined;
    }
  }

  #takeChunkSize(line: string): RequestEvent | undefined {
    const digits = chunkLine.exec(line)?.[1];
    if (digits === undefined) return this.#broken(new MalformedRequest(400, 'the size of a chunk is malformed'));
    const remaining = Number.parseInt(digits, 16);
    this.#state = remaining === 0 ? { at: 'trailers', bytes: 0 } : { at: 'chunk-data', remaining };
    return undefined;
  }

  #takeTrailer(state: { readonly at: 'trailers'; bytes: number }, line: string): RequestEvent | undefined {
    if (line === '') {
      this.#state = inHead;
      return end;
    }
    state.bytes += line.length;
    return state.bytes > trailerBytesMax ? this.#broken(new MalformedRequest(431, 'too many trailers')) : undefined;
  }

  #broken(problem: MalformedRequest): RequestEvent {
    this.#state = { at: 'broken' };
    return { at: 'malformed', problem };
  }
}

function stateFor(body: BodyFraming): State {
  switch (body.at) {
    case 'none':
      return inHead;
    case 'length':
      return { at: 'length', remaining: body.bytes };
    case 'chunked':
      return { at: 'chunk-size' };
  }
}
