/**
 * Frames of the transmission phase, client to server: requests, and the payloads of WRITEs.
 *
 *     for (const item of reader.push(chunk)) { … }
 *
 * Promise: a payload never leaves the reader out of step, whether it is wanted or not, and whatever its length is;
 * nothing is kept but one header, and what the consumer left when it stopped iterating.
 * After a `request` of type WRITE the consumer says {@link RequestReader.collect} or {@link RequestReader.skip} before
 * it asks for the next item; it may stop in between, and go on later (`for (const item of reader)`).
 * What is left belongs to the last chunk: until it is consumed, no other chunk may be pushed, nor that one be overwritten.
 *
 *     header ──WRITE──▶ undecided ──collect──▶ collecting ──▶ header
 *       │                  └───────skip──────▶ skipping ────▶ header
 *       └──wrong magic──▶ broken
 */
import { assert } from '../base/assert.js';
import { command } from './constants.js';
import { decodeRequest, encodeRequest, type Request, requestBytes } from './request.js';

export type RequestItem =
  | { readonly kind: 'request'; readonly request: Request }
  /** The payload of `request` has passed: `bytes` is the buffer given to `collect`, or null if it was skipped. */
  | { readonly kind: 'payload'; readonly request: Request; readonly bytes: Buffer | null }
  /** The client does not speak NBD, or is out of step. Nothing more comes. */
  | { readonly kind: 'bad-magic' };

type ReaderState =
  | { readonly at: 'header' }
  | { readonly at: 'undecided'; readonly request: Request }
  | { readonly at: 'collecting'; readonly request: Request; readonly into: Buffer; filledBytes: number }
  | { readonly at: 'skipping'; readonly request: Request; leftBytes: number }
  | { readonly at: 'broken' };

const empty = Buffer.alloc(0);
const atHeader: ReaderState = { at: 'header' };
const end = { done: true, value: undefined } as const;

export class RequestReader implements IterableIterator<RequestItem> {
  #state: ReaderState = atHeader;
  #chunk: Buffer = empty;
  #at = 0;
  /** A header that chunks have cut in pieces. */
  readonly #header = Buffer.alloc(requestBytes);
  #headerBytes = 0;

  /** Takes the next bytes, after the ones before were consumed; iterate over the result. */
  push(chunk: Buffer): this {
    assert(this.#at === this.#chunk.length, 'a chunk is consumed before the next one is pushed');
    this.#chunk = chunk;
    this.#at = 0;
    return this;
  }

  [Symbol.iterator](): this {
    return this;
  }

  next(): IteratorResult<RequestItem, undefined> {
    const state = this.#state;
    switch (state.at) {
      case 'header':
        return this.#nextRequest();
      case 'collecting':
        return this.#nextCollected(state);
      case 'skipping':
        return this.#nextSkipped(state);
      case 'undecided':
        throw new Error('collect or skip is said before the next item is asked for');
      case 'broken':
        this.#at = this.#chunk.length;
        return end;
    }
  }

  /** The payload of the last request goes into `into`, which has exactly its length. */
  collect(into: Buffer): void {
    const state = this.#state;
    assert(state.at === 'undecided' && into.length === state.request.length, 'collect answers to a WRITE');
    this.#state = { at: 'collecting', request: state.request, into, filledBytes: 0 };
  }

  /** The payload of the last request is not wanted. */
  skip(): void {
    const state = this.#state;
    assert(state.at === 'undecided', 'skip answers to a WRITE');
    this.#state = { at: 'skipping', request: state.request, leftBytes: state.request.length };
  }

  /** The payload that passes is not wanted. */
  get isSkipping(): boolean {
    return this.#state.at === 'skipping';
  }

  /** How much of a payload is still to come; 0 between messages. */
  get payloadBytesToCome(): number {
    const state = this.#state;
    if (state.at === 'collecting') return state.into.length - state.filledBytes;
    return state.at === 'skipping' ? state.leftBytes : 0;
  }

  /**
   * Everything that was received and not completely yielded, as it came: a reader that is fed with it goes on where
   * this one stopped. This one is of no use afterwards. Not while a payload is being skipped: its start is gone.
   */
  unparsed(): Buffer {
    const state = this.#state;
    assert(!this.isSkipping, 'a message that is being skipped cannot be handed over');
    this.#state = { at: 'broken' };
    const rest = this.#chunk.subarray(this.#at);
    if (state.at === 'undecided') return Buffer.concat([encodeRequest(state.request), rest]);
    if (state.at === 'collecting') {
      return Buffer.concat([encodeRequest(state.request), state.into.subarray(0, state.filledBytes), rest]);
    }
    return Buffer.concat([this.#header.subarray(0, this.#headerBytes), rest]);
  }

  #nextRequest(): IteratorResult<RequestItem, undefined> {
    const left = this.#chunk.length - this.#at;
    let request: Request | null;
    if (this.#headerBytes === 0 && left >= requestBytes) {
      request = decodeRequest(this.#chunk, this.#at);
      this.#at += requestBytes;
    } else {
      const taken = Math.min(requestBytes - this.#headerBytes, left);
      this.#chunk.copy(this.#header, this.#headerBytes, this.#at, this.#at + taken);
      this.#at += taken;
      this.#headerBytes += taken;
      if (this.#headerBytes < requestBytes) return end;
      this.#headerBytes = 0;
      request = decodeRequest(this.#header, 0);
    }
    if (request === null) {
      this.#state = { at: 'broken' };
      return { done: false, value: { kind: 'bad-magic' } };
    }
    if (request.type === command.write) this.#state = { at: 'undecided', request };
    return { done: false, value: { kind: 'request', request } };
  }

  #nextCollected(state: Extract<ReaderState, { at: 'collecting' }>): IteratorResult<RequestItem, undefined> {
    const { into } = state;
    const taken = Math.min(into.length - state.filledBytes, this.#chunk.length - this.#at);
    this.#chunk.copy(into, state.filledBytes, this.#at, this.#at + taken);
    this.#at += taken;
    state.filledBytes += taken;
    if (state.filledBytes < into.length) return end;
    this.#state = atHeader;
    return { done: false, value: { kind: 'payload', request: state.request, bytes: into } };
  }

  #nextSkipped(state: Extract<ReaderState, { at: 'skipping' }>): IteratorResult<RequestItem, undefined> {
    const taken = Math.min(state.leftBytes, this.#chunk.length - this.#at);
    this.#at += taken;
    state.leftBytes -= taken;
    if (state.leftBytes > 0) return end;
    this.#state = atHeader;
    return { done: false, value: { kind: 'payload', request: state.request, bytes: null } };
  }
}
