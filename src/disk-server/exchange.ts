/** One request and its response, in the order in which its connection's requests came. */
import type { RequestHead } from './request-head.js';

/** A read of several pieces: what is left after the piece at hand. */
export interface Rest {
  readonly offset: number;
  readonly end: number;
  /** All pieces come from the same instance. */
  readonly instance: string | undefined;
}

/** Either the first part of the response or, without `status`, a further piece of its data. */
export interface ReadyPart {
  readonly at: 'ready';
  readonly status: number | undefined;
  /** Header lines. */
  readonly fields: string;
  readonly body: string;
  readonly data: Buffer | undefined;
  readonly rest: Rest | undefined;
}

/**
 *     working ── the outcome is there ──▶ ready ── handed to the socket in its turn ──▶ (gone)
 *        ▲                                  │ there is a rest
 *        └──────────────────────────────────┘
 */
export type Reply =
  | { readonly at: 'working' }
  | ReadyPart
  /** What was announced cannot be had: the connection ends here. */
  | { readonly at: 'broken' };

export const working: Reply = { at: 'working' };

export class Exchange {
  /** Undefined: the request was not understood. */
  readonly request: RequestHead | undefined;
  /** No request of this connection is taken after this one. */
  closes: boolean;
  /** The client may be waiting for `100 Continue`, which it gets when all earlier requests are answered. */
  continueDue = false;
  /** Taken from the budget for responses, and not given back. */
  countedBytes = 0;
  reply: Reply = working;

  constructor(request: RequestHead | undefined, closes: boolean) {
    this.request = request;
    this.closes = closes;
  }
}
