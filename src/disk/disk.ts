/**
 * A disk: bytes that can be read and written by range. Implemented by regular files and block devices (and by a simulated
 * disk in the tests).
 *
 * Every method expects a range inside `sizeBytes` and rejects with a `Failure` only: `disk-error` (EIO), `no-space`,
 * `read-only`, `unsupported`, or `unavailable` when the disk itself has gone (ENODEV, ENXIO, EMEDIUMTYPE …).
 */
import type { Extent } from '../base/range.js';

/**
 * Runs immediately before each system call that changes the disk is handed to a free thread, however long the change has waited for
 * others until then, and in however many pieces it is done. Throws the Failure if nothing (more) may be changed.
 */
export type ChangeCheck = () => void;

export interface Disk {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  /** Whether `zero` is cheap here (no zeroes are written). */
  readonly zeroesFast: boolean;
  /**
   * Why nothing that was given to the disk comes back before somebody decides, in words; undefined: it does, as far as anybody tells.
   * Never rejects; may take seconds. Absent: this disk has no such state.
   */
  readonly suspension?: (() => Promise<string | undefined>) | undefined;

  /** Fills `into` without blocking and returns true, or returns false: then use {@link read}. */
  readNow(offset: number, into: Buffer): boolean;
  read(offset: number, into: Buffer): Promise<void>;
  write(offset: number, bytes: Buffer, check?: ChangeCheck): Promise<void>;
  zero(offset: number, length: number, mayTrim: boolean, check?: ChangeCheck): Promise<void>;
  /** A hint; succeeds without effect where the disk cannot. */
  trim(offset: number, length: number, check?: ChangeCheck): Promise<void>;
  /** What was written before this call (its promise had resolved) is durable when this resolves. */
  sync(): Promise<void>;
  /** Gapless from `offset`, at least one extent, at most `extentsMax`, possibly ending before `offset + length`. */
  extents(offset: number, length: number, extentsMax: number): Promise<Extent[]>;
  /** Looks again how large the disk is, and updates `sizeBytes`. */
  refreshSize(): Promise<number>;
  close(): Promise<void>;
}
