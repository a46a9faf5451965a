/** The states of a connection that are not those of its reader or of its answers. */
import type { WriteRequest } from '../http-disk/messages.js';
import type { DiskFacts } from '../http-disk/response-codec.js';
import type { Exchange } from './exchange.js';

/** A body that is being collected, and then written. */
export interface Upload {
  readonly exchange: Exchange;
  readonly request: Extract<WriteRequest, { op: 'write' }>;
  readonly disk: DiskFacts;
  /** As long as the request says. */
  readonly buffer: Buffer;
  filledBytes: number;
  readonly sinceMs: number;
}

/**
 * What happens to the bytes that come in.
 *
 *     heads ── a write ──▶ waiting ── granted ──▶ collecting ── end of the body ──▶ heads
 *       │ ── a useless body ──▶ discarding ── end of the body ──▶ heads
 *       └── the last request, malformed, timed out ──▶ closed
 */
export type Intake =
  | { readonly at: 'heads' }
  /** Nothing is read until the request at hand is granted the memory that it needs. */
  | { readonly at: 'waiting'; readonly exchange: Exchange; readonly giveUp: () => void; readonly sinceMs: number }
  | { readonly at: 'collecting'; readonly upload: Upload }
  /** A body that is of no use; `done` runs at its end. */
  | { readonly at: 'discarding'; readonly exchange: Exchange; bytes: number; readonly done: () => void }
  /** No further request is taken; what comes in is thrown away. */
  | { readonly at: 'closed' };

export const takingHeads: Intake = { at: 'heads' };

/** Whether a request runs that must run alone, or waits for those before it. No further request is taken meanwhile. */
export type Alone =
  | { readonly at: 'no' }
  | { readonly at: 'waiting'; readonly start: () => void; readonly upload: Upload | undefined }
  | { readonly at: 'running' };

export const notAlone: Alone = { at: 'no' };
