/**
 * A disk in memory with a volatile cache, for tests and for the simulation. No real time, no randomness: what happens is
 * decided by whoever sets {@link SimulatedMedium.before}.
 *
 * The medium outlives its handles, as a device outlives the process that has it open. A write goes to the cache; a sync
 * makes durable what was in the cache when it started; a crash loses the rest.
 */
import { Failure } from '../../src/base/failure.js';
import { type Extent, isInside } from '../../src/base/range.js';
import type { ChangeCheck, Disk } from '../../src/disk/disk.js';

export interface SimulatedOperation {
  readonly op: 'open' | 'read' | 'write' | 'zero' | 'trim' | 'sync' | 'extents' | 'size' | 'close';
  readonly offset: number;
  readonly length: number;
}

interface CachedWrite {
  readonly offset: number;
  readonly bytes: Buffer;
}

export interface MediumOptions {
  readonly readOnly?: boolean;
  readonly zeroesFast?: boolean;
  /** Whether reads may be answered without waiting. */
  readonly readsNow?: boolean;
  readonly suspension?: Disk['suspension'];
}

export class SimulatedMedium {
  /** What is seen through the cache, and what a crash leaves. */
  cached: Buffer;
  durable: Buffer;
  readonly options: MediumOptions;
  /**
   * Runs before each operation takes effect, which waits for the promise. A Failure that it rejects with is the operation's;
   * a sync that fails so has lost what it was to make durable.
   */
  before: (operation: SimulatedOperation) => Promise<void> | undefined = () => undefined;
  /** What a change waits for before it is checked: other changes of the same blocks, a batch. */
  beforeCheck: (operation: SimulatedOperation) => Promise<void> | undefined = () => undefined;
  /** Of every kind of operation, how many have begun. */
  readonly begun: Record<SimulatedOperation['op'], number>;
  #unsynced: CachedWrite[] = [];
  #boot = 0;

  constructor(sizeBytes: number, options: MediumOptions = {}) {
    this.cached = Buffer.alloc(sizeBytes);
    this.durable = Buffer.alloc(sizeBytes);
    this.options = options;
    this.begun = { open: 0, read: 0, write: 0, zero: 0, trim: 0, sync: 0, extents: 0, size: 0, close: 0 };
  }

  /** Writes that a crash would lose. */
  get unsyncedWrites(): number {
    return this.#unsynced.length;
  }

  async open(): Promise<Disk> {
    await this.perform({ op: 'open', offset: 0, length: 0 });
    return new SimulatedDisk(this);
  }

  /** The machine dies. Of the writes in its cache, in order, those that `survives` names had reached the disk. */
  crash(survives: (index: number) => boolean = () => false): void {
    this.#boot++;
    for (const [index, write] of this.#unsynced.entries()) {
      if (survives(index)) write.bytes.copy(this.durable, write.offset);
    }
    this.#unsynced = [];
    this.cached = Buffer.from(this.durable);
  }

  /** The disk gets larger or smaller. */
  resize(sizeBytes: number): void {
    const resized = (bytes: Buffer) => Buffer.concat([bytes.subarray(0, sizeBytes)], sizeBytes);
    [this.cached, this.durable] = [resized(this.cached), resized(this.durable)];
  }

  apply(offset: number, bytes: Buffer): void {
    const copy = Buffer.from(bytes);
    copy.copy(this.cached, offset);
    this.#unsynced.push({ offset, bytes: copy });
  }

  async sync(): Promise<void> {
    const covered = [...this.#unsynced];
    try {
      await this.perform({ op: 'sync', offset: 0, length: 0 });
    } catch (error) {
      this.#unsynced = this.#unsynced.filter((write) => !covered.includes(write));
      throw error;
    }
    for (const write of covered) write.bytes.copy(this.durable, write.offset);
    this.#unsynced = this.#unsynced.filter((write) => !covered.includes(write));
  }

  /** Waits as {@link before} says. What was in progress when the machine died never ends. */
  async perform(operation: SimulatedOperation): Promise<void> {
    this.begun[operation.op]++;
    const boot = this.#boot;
    await this.before(operation);
    if (boot !== this.#boot) await new Promise(() => {});
  }
}

class SimulatedDisk implements Disk {
  readonly logicalBlockBytes = 512;
  readonly physicalBlockBytes = 4096;
  readonly #medium: SimulatedMedium;
  sizeBytes: number;

  constructor(medium: SimulatedMedium) {
    this.#medium = medium;
    this.sizeBytes = medium.cached.length;
  }

  get readOnly(): boolean {
    return this.#medium.options.readOnly ?? false;
  }

  get zeroesFast(): boolean {
    return this.#medium.options.zeroesFast ?? true;
  }

  get suspension(): Disk['suspension'] {
    return this.#medium.options.suspension;
  }

  readNow(offset: number, into: Buffer): boolean {
    if (this.#medium.options.readsNow !== true || !isInside(offset, into.length, this.sizeBytes)) return false;
    this.#medium.cached.copy(into, 0, offset, offset + into.length);
    return true;
  }

  async read(offset: number, into: Buffer): Promise<void> {
    await this.#perform('read', offset, into.length);
    this.#medium.cached.copy(into, 0, offset, offset + into.length);
  }

  async write(offset: number, bytes: Buffer, check?: ChangeCheck): Promise<void> {
    await this.#change({ op: 'write', offset, length: bytes.length }, check);
    this.#medium.apply(offset, bytes);
  }

  async zero(offset: number, length: number, _mayTrim: boolean, check?: ChangeCheck): Promise<void> {
    await this.#change({ op: 'zero', offset, length }, check);
    this.#medium.apply(offset, Buffer.alloc(length));
  }

  async trim(offset: number, length: number, check?: ChangeCheck): Promise<void> {
    await this.#change({ op: 'trim', offset, length }, check);
    this.#medium.apply(offset, Buffer.alloc(length));
  }

  sync(): Promise<void> {
    return this.#medium.sync();
  }

  async extents(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    await this.#perform('extents', offset, length);
    const extents: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end && extents.length < extentsMax; ) {
      const extent = this.#extentAt(at, end);
      extents.push(extent);
      at += extent.length;
    }
    return extents;
  }

  async refreshSize(): Promise<number> {
    await this.#perform('size', 0, 0);
    this.sizeBytes = this.#medium.cached.length;
    return this.sizeBytes;
  }

  close(): Promise<void> {
    return this.#perform('close', 0, 0);
  }

  /** Bytes of zero are holes. */
  #extentAt(offset: number, end: number): Extent {
    const isHole = this.#medium.cached[offset] === 0;
    let next = offset + 1;
    while (next < end && (this.#medium.cached[next] === 0) === isHole) next++;
    return { offset, length: next - offset, kind: isHole ? 'hole' : 'data' };
  }

  async #change(operation: SimulatedOperation, check: ChangeCheck = () => {}): Promise<void> {
    const wait = this.#medium.beforeCheck(operation);
    if (wait !== undefined) await wait;
    check();
    await this.#perform(operation.op, operation.offset, operation.length);
  }

  async #perform(op: SimulatedOperation['op'], offset: number, length: number): Promise<void> {
    await this.#medium.perform({ op, offset, length });
    if (isInside(offset, length, this.#medium.cached.length)) return;
    throw new Failure('unavailable', 'the disk has shrunk');
  }
}
