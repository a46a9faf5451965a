/**
 * What the NBD front end serves: one volume of bytes. The gateway implements it; tests use a volume in memory.
 *
 * Every method expects a range inside the volume (the front end has checked it) and rejects with a `Failure` only.
 * Calls may overlap in time; a read sees every write that was answered before the read was issued.
 */
import type { Extent } from './range.js';

export interface Volume {
  readonly sizeBytes: number;
  readonly readOnly: boolean;

  /** Fills `into`. After the promise settles, nobody writes into it any more. */
  read(offset: number, into: Buffer): Promise<unknown>;

  /**
   * Writes `bytes`, which must come from the buffer pool that the two share: the volume owns them from now on, and gives
   * them back to the pool when it no longer needs them, which may be long after the promise settles.
   * With `fua` the bytes are durable when the promise resolves.
   */
  write(offset: number, bytes: Buffer, fua: boolean): Promise<void>;

  /** Makes the range read as zeroes. `fast`: rejects with `unsupported` rather than be slower than that. */
  zero(offset: number, length: number, options: ZeroOptions): Promise<void>;

  /** The content of the range is not needed any more; what it reads as afterwards is undefined. */
  trim(offset: number, length: number, fua: boolean): Promise<void>;

  /** Every write answered before this call is durable when the promise resolves. */
  flush(): Promise<void>;

  /** A hint: the range will be read soon. */
  cache(offset: number, length: number): Promise<void>;

  /** What is where: gapless from `offset` on, at least one extent, possibly ending before `offset + length`. */
  extents(offset: number, length: number): Promise<Extent[]>;
}

export interface ZeroOptions {
  readonly fua: boolean;
  /** Whether the range may become a hole (NBD: NO_HOLE not set). */
  readonly mayTrim: boolean;
  readonly fast: boolean;
}
