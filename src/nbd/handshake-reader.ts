/**
 * Frames of the handshake, client to server: the client flags, then options. Promise: keeps at most one option of
 * `optionDataBytesMax` bytes; a longer one is consumed to its end without being kept, and then reported.
 * After the last option that matters, `rest` has the bytes that belong to the transmission phase.
 */
import { clientFlagsBytes, decodeClientFlags, decodeOptionHeader, optionHeaderBytes } from './handshake.js';

/** Room for every option that makes sense: a few strings of 4096 bytes each. @public */
export const optionDataBytesMax = 64 * 1024;

export type ClientMessage =
  | { readonly kind: 'client-flags'; readonly flags: number }
  | { readonly kind: 'option'; readonly option: number; readonly data: Buffer }
  | { readonly kind: 'oversized-option'; readonly option: number; readonly length: number }
  /** The client does not speak NBD, or is out of step. Nothing more comes. */
  | { readonly kind: 'bad-magic' };

type ReaderState =
  | { readonly at: 'flags' }
  | { readonly at: 'header' }
  | { readonly at: 'data'; readonly option: number; readonly length: number }
  | { readonly at: 'skipping'; readonly option: number; readonly length: number; leftBytes: number }
  | { readonly at: 'broken' };

export class HandshakeReader implements IterableIterator<ClientMessage> {
  #state: ReaderState = { at: 'flags' };
  #held: Buffer = Buffer.alloc(0);

  /** Takes the next bytes; iterate over the result. A consumer that stops early finds what is left in {@link rest}. */
  push(chunk: Buffer): this {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    return this;
  }

  [Symbol.iterator](): this {
    return this;
  }

  next(): IteratorResult<ClientMessage, undefined> {
    for (;;) {
      const state = this.#state;
      const message = this.#step(state);
      if (message !== null) return { done: false, value: message };
      if (this.#state === state) {
        // Chunks belong to whoever reads the socket: what is kept over turns is a copy.
        this.#held = Buffer.from(this.#held);
        return { done: true, value: undefined };
      }
    }
  }

  /** Hands out what was received and not consumed. */
  rest(): Buffer {
    return this.#take(this.#held.length);
  }

  /** One step: a message, or null; null with the same state as before means that more bytes are needed. */
  #step(state: ReaderState): ClientMessage | null {
    switch (state.at) {
      case 'flags': {
        if (this.#held.length < clientFlagsBytes) return null;
        this.#state = { at: 'header' };
        return { kind: 'client-flags', flags: decodeClientFlags(this.#take(clientFlagsBytes)) };
      }
      case 'header':
        return this.#header();
      case 'data': {
        if (this.#held.length < state.length) return null;
        this.#state = { at: 'header' };
        return { kind: 'option', option: state.option, data: this.#take(state.length) };
      }
      case 'skipping': {
        state.leftBytes -= this.#take(Math.min(state.leftBytes, this.#held.length)).length;
        if (state.leftBytes > 0) return null;
        this.#state = { at: 'header' };
        return { kind: 'oversized-option', option: state.option, length: state.length };
      }
      case 'broken':
        this.#take(this.#held.length);
        return null;
    }
  }

  #header(): ClientMessage | null {
    if (this.#held.length < optionHeaderBytes) return null;
    const header = decodeOptionHeader(this.#take(optionHeaderBytes));
    if (header === null) {
      this.#state = { at: 'broken' };
      return { kind: 'bad-magic' };
    }
    this.#state =
      header.length <= optionDataBytesMax
        ? { at: 'data', ...header }
        : { at: 'skipping', ...header, leftBytes: header.length };
    return null;
  }

  #take(bytes: number): Buffer {
    const taken = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    return taken;
  }
}
