/**
 * The HTTP disk protocol's messages, as both sides see them. docs/http-disk-protocol.md is the specification;
 * request-codec.ts and response-codec.ts translate to and from HTTP.
 */
import type { Extent } from '../base/range.js';

/** (generation, counter), compared in that order. Both are whole numbers from 0 to 2^53 - 1. */
export interface Epoch {
  readonly generation: number;
  readonly counter: number;
}

/** What every write of a gateway with session support carries, so that a late one can be told and refused. */
export interface WriteStamp {
  /** 1 to 64 characters of [A-Za-z0-9_-]: one gateway lineage × one volume. */
  readonly session: string;
  readonly epoch: Epoch;
  /** The instance that the write is for. */
  readonly instance: string;
  /** In that instance's clock, milliseconds. */
  readonly deadlineMs: number;
}

/** Without `stamp`: a plain client. `deferred`: may be answered before it is durable; needs an instance in the answer. */
interface WriteLike {
  readonly offset: number;
  readonly length: number;
  readonly deferred: boolean;
  readonly stamp?: WriteStamp | undefined;
}

/** `instance` (reads, flushes, maps): refused by any other instance than this one. */
export type DiskRequest =
  | { readonly op: 'probe' }
  | { readonly op: 'read'; readonly offset: number; readonly length: number; readonly instance?: string | undefined }
  | ({ readonly op: 'write' } & WriteLike)
  | ({ readonly op: 'zero'; readonly mayTrim: boolean; readonly fast: boolean } & WriteLike)
  | ({ readonly op: 'trim' } & WriteLike)
  | { readonly op: 'flush'; readonly instance?: string | undefined }
  | { readonly op: 'map'; readonly offset: number; readonly length: number; readonly instance?: string | undefined };

/** One disk operation that changes the disk. */
export type WriteRequest = Extract<DiskRequest, { op: 'write' | 'zero' | 'trim' }>;

/**
 * What a server announces in its answer to HEAD.
 *
 * flush    POST flush: everything answered before is durable
 * trim     POST trim (discard)
 * zero     POST zero without a body, without sending zeroes
 * fast-zero  zero is never slower than writing zeroes would be (`fast` is accepted)
 * map      POST map: the allocation map
 * session  writes may carry a stamp, reads and flushes an instance (failover-safe writes, deferred writes)
 */
export const features = ['flush', 'trim', 'zero', 'fast-zero', 'map', 'session'] as const;
export type Feature = (typeof features)[number];

/** What a probe (HEAD) tells. */
export interface DiskDescription {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly features: ReadonlySet<Feature>;
  /** Absent: a server without the extended protocol. Present whenever `features` has `session`. */
  readonly instance: string | undefined;
  /** The server's clock when it answered, milliseconds. */
  readonly clockMs: number | undefined;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  /** `ADDRESS:PORT` (`[ADDRESS]:PORT` for IPv6) that the server process itself listens on, as it saw this connection. */
  readonly endpoint: string | undefined;
}

/** The answer to anything but a probe. Fields that the server did not send are undefined. */
export interface DiskAnswer {
  /** The instance that executed the request; for a write: the instance that checked it. */
  readonly instance: string | undefined;
  readonly clockMs: number | undefined;
  /** Only for `map`. */
  readonly extents?: Extent[];
}
