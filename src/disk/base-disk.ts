/**
 * What regular files and block devices have in common.
 * Promise: nothing outside the disk is ever touched, nothing is changed on a read-only disk, and zeroes are written
 * from one shared buffer, in bounded pieces.
 */
import { Failure } from '../base/failure.js';
import { type Extent, isInside } from '../base/range.js';
import type { Descriptor } from './descriptor.js';
import type { ChangeCheck, Disk } from './disk.js';

const zeroPieceBytesMax = 1024 * 1024;
const zeroes = Buffer.alloc(zeroPieceBytesMax);
const noCheck: ChangeCheck = () => {};

export interface Geometry {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
}

export abstract class BaseDisk implements Disk {
  readonly readOnly: boolean;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  protected readonly descriptor: Descriptor;
  #sizeBytes: number;

  constructor(descriptor: Descriptor, geometry: Geometry) {
    this.descriptor = descriptor;
    this.readOnly = geometry.readOnly;
    this.logicalBlockBytes = geometry.logicalBlockBytes;
    this.physicalBlockBytes = geometry.physicalBlockBytes;
    this.#sizeBytes = geometry.sizeBytes;
  }

  abstract get zeroesFast(): boolean;
  protected abstract zeroInside(offset: number, length: number, mayTrim: boolean, check: ChangeCheck): Promise<void>;
  protected abstract trimInside(offset: number, length: number, check: ChangeCheck): Promise<void>;
  protected abstract extentsInside(offset: number, length: number, extentsMax: number): Promise<Extent[]>;
  protected abstract measure(): Promise<number>;
  /** Rejects with `unavailable` when the disk is no longer as large as it was: asked with each sync. */
  protected abstract checkWhole(): Promise<void>;

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  readNow(offset: number, into: Buffer): boolean {
    return isInside(offset, into.length, this.#sizeBytes) && this.descriptor.readNow(offset, into);
  }

  async read(offset: number, into: Buffer): Promise<void> {
    this.#checkRange(offset, into.length);
    await this.descriptor.read(offset, into);
  }

  write(offset: number, bytes: Buffer, check = noCheck): Promise<void> {
    const refusal = this.#refuseChange(offset, bytes.length);
    return refusal === undefined ? this.descriptor.write(offset, bytes, check) : Promise.reject(refusal);
  }

  async zero(offset: number, length: number, mayTrim: boolean, check = noCheck): Promise<void> {
    this.#checkChange(offset, length);
    if (length > 0) await this.zeroInside(offset, length, mayTrim, check);
  }

  async trim(offset: number, length: number, check = noCheck): Promise<void> {
    this.#checkChange(offset, length);
    if (length > 0) await this.trimInside(offset, length, check);
  }

  async sync(): Promise<void> {
    if (this.readOnly) return;
    // At the same time, to spare a trip through the thread pool: what is to be made durable has been written by now.
    const outcomes = await Promise.allSettled([this.descriptor.sync(), this.checkWhole()]);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  async extents(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    this.#checkRange(offset, length);
    return this.extentsInside(offset, length, extentsMax);
  }

  async refreshSize(): Promise<number> {
    this.#sizeBytes = await this.measure();
    return this.#sizeBytes;
  }

  close(): Promise<void> {
    return this.descriptor.close();
  }

  protected async writeZeroes(offset: number, length: number, check: ChangeCheck): Promise<void> {
    for (let done = 0; done < length; done += zeroPieceBytesMax) {
      const piece = zeroes.subarray(0, Math.min(zeroPieceBytesMax, length - done));
      await this.descriptor.write(offset + done, piece, check);
    }
  }

  #checkRange(offset: number, length: number): void {
    const refusal = this.#refuseRange(offset, length);
    if (refusal !== undefined) throw refusal;
  }

  #checkChange(offset: number, length: number): void {
    const refusal = this.#refuseChange(offset, length);
    if (refusal !== undefined) throw refusal;
  }

  #refuseChange(offset: number, length: number): Failure | undefined {
    return this.readOnly ? new Failure('read-only', 'the disk is read-only') : this.#refuseRange(offset, length);
  }

  #refuseRange(offset: number, length: number): Failure | undefined {
    if (isInside(offset, length, this.#sizeBytes)) return undefined;
    return new Failure('out-of-range', `${length} bytes at ${offset}: the disk has ${this.#sizeBytes}`);
  }
}
