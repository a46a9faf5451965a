/**
 * Simulated storage: what was written, what of it is durable, and who may write.
 *
 * Three kinds:
 * * `own`     one host's disk behind a page cache: a crash of the host loses any part of what was not synced
 * * `fenced`  like DRBD: one host at a time has it open; taking it over shuts the other out; a crash loses unsynced writes
 * * `shared`  like a LUN that several hosts write with O_DIRECT: all see it at once, nothing is lost by a crash
 *
 * A disk of `blocks` blocks of {@link blockBytes} bytes; a block holds one number, its value. Writes of whole blocks only.
 */
import { asFailure, Failure, type FailureCode } from '../../src/base/failure.js';
import type { Extent } from '../../src/base/range.js';
import type { ChangeCheck, Disk } from '../../src/disk/disk.js';
import type { Process } from './process.js';
import type { World } from './world.js';

export const blockBytes = 16;
export type StorageKind = 'own' | 'fenced' | 'shared';

interface Unsynced {
  readonly block: number;
  readonly value: number;
}

/** A pwrite that the kernel of a host is busy with. */
interface Writing {
  readonly owner: SimulatedDisk;
  readonly apply: () => void;
}

export class Storage {
  readonly kind: StorageKind;
  readonly world: World;
  readonly visible: number[];
  readonly durable: number[];
  readonly writing = new Set<Writing>();
  unsynced: Unsynced[] = [];
  owner: SimulatedDisk | undefined;
  /** When a crash took away what was not synced. */
  readonly crashesMs: number[] = [];
  /** The next sync fails, and what it should have saved is lost at the next crash. */
  failNextSync = false;
  /** The next write fails with this, and leaves a part of it written. */
  failNextWrite: 'disk-error' | 'no-space' | undefined;
  failNextRead = false;
  /** No read and no sync ends before. */
  hangsUntilMs = 0;
  /** Writes that begin before take as long as the gateway allows for. */
  writesLateUntilMs = 0;

  constructor(world: World, kind: StorageKind, blocks: number) {
    this.world = world;
    this.kind = kind;
    this.visible = new Array<number>(blocks).fill(0);
    this.durable = new Array<number>(blocks).fill(0);
  }

  put(block: number, value: number): void {
    this.visible[block] = value;
    if (this.kind === 'shared') this.durable[block] = value;
    else this.unsynced.push({ block, value });
  }

  /** The process died: what the kernel was busy with may or may not be written. */
  endWrites(owner: SimulatedDisk): void {
    for (const writing of [...this.writing]) {
      if (writing.owner !== owner) continue;
      this.writing.delete(writing);
      const applied = this.world.random.chance(0.5);
      this.world.count(
        applied ? 'process dies in a write, which is applied' : 'process dies in a write, which is not applied',
      );
      if (applied) writing.apply();
    }
  }

  /** Nothing goes wrong any more. */
  heal(): void {
    this.failNextSync = false;
    this.failNextWrite = undefined;
    this.failNextRead = false;
    this.hangsUntilMs = 0;
  }

  /** The host died: any part of what was not synced is gone. */
  crash(): void {
    for (const { block, value } of this.unsynced) if (this.world.random.chance(0.5)) this.durable[block] = value;
    this.world.count(
      this.unsynced.length === 0 ? 'power lost, everything was synced' : 'power lost with unsynced writes',
    );
    this.crashesMs.push(this.world.nowMs);
    this.unsynced = [];
    for (const [block, value] of this.durable.entries()) this.visible[block] = value;
  }
}

export class SimulatedDisk implements Disk {
  readonly readOnly = false;
  readonly logicalBlockBytes = blockBytes;
  readonly physicalBlockBytes = blockBytes;
  readonly zeroesFast = true;
  /** Happens once, when a change has been checked and its system call has not begun. */
  afterNextCheck: (() => void) | undefined;
  readonly #storage: Storage;
  readonly #process: Process;

  constructor(storage: Storage, process: Process) {
    this.#storage = storage;
    this.#process = process;
  }

  get sizeBytes(): number {
    return this.#storage.visible.length * blockBytes;
  }

  /** What hangs on a fenced storage is suspended, as DRBD does it, and known to be. */
  get suspension(): Disk['suspension'] {
    const { world, kind } = this.#storage;
    if (kind !== 'fenced') return undefined;
    return () => Promise.resolve(this.#storage.hangsUntilMs > world.nowMs ? 'suspended' : undefined);
  }

  readNow(offset: number, into: Buffer): boolean {
    const { world, hangsUntilMs, failNextRead } = this.#storage;
    if (this.#isShutOut() || failNextRead || hangsUntilMs > world.nowMs || world.random.chance(0.5)) return false;
    this.#fill(offset, into);
    return true;
  }

  read(offset: number, into: Buffer): Promise<void> {
    const storage = this.#storage;
    const fails = storage.failNextRead;
    storage.failNextRead = false;
    return this.#later(0.05, 5, () => {
      if (fails) throw this.#error('disk-error', 'read');
      this.#fill(offset, into);
    });
  }

  write(offset: number, bytes: Buffer, check?: ChangeCheck): Promise<void> {
    const values: number[] = [];
    for (let at = 0; at < bytes.length; at += blockBytes) values.push(bytes.readDoubleBE(at));
    return this.#store(offset / blockBytes, values, check);
  }

  zero(offset: number, length: number, _mayTrim: boolean, check?: ChangeCheck): Promise<void> {
    return this.#store(offset / blockBytes, new Array<number>(length / blockBytes).fill(0), check);
  }

  trim(offset: number, length: number, check?: ChangeCheck): Promise<void> {
    return this.zero(offset, length, true, check);
  }

  sync(): Promise<void> {
    const storage = this.#storage;
    const covered = storage.unsynced.length;
    const saved = storage.unsynced.slice(0, covered);
    if (storage.failNextSync) {
      storage.failNextSync = false;
      return this.#later(0.1, 5, () => {
        storage.unsynced = storage.unsynced.filter((write) => !saved.includes(write)); // dropped, never written
        throw this.#error('disk-error', saved.length > 0 ? 'sync, unsynced writes are dropped' : 'sync');
      });
    }
    return this.#later(0.1, 20, () => {
      for (const write of saved) {
        if (!storage.unsynced.includes(write)) continue; // a crash or another sync was faster
        storage.durable[write.block] = write.value;
      }
      storage.unsynced = storage.unsynced.filter((write) => !saved.includes(write));
    });
  }

  extents(offset: number, length: number): Promise<Extent[]> {
    return Promise.resolve([{ offset, length, kind: 'data' }]);
  }

  refreshSize(): Promise<number> {
    return Promise.resolve(this.sizeBytes);
  }

  close(): Promise<void> {
    if (this.#storage.owner === this) this.#storage.owner = undefined;
    return Promise.resolve();
  }

  #isShutOut(): boolean {
    return this.#storage.kind === 'fenced' && this.#storage.owner !== this;
  }

  #fill(offset: number, into: Buffer): void {
    for (let at = 0; at < into.length; at += blockBytes) {
      into.fill(0, at, at + blockBytes);
      into.writeDoubleBE(this.#storage.visible[(offset + at) / blockBytes] ?? Number.NaN, at);
    }
  }

  /**
   * The disk may let a change wait; then it is checked and handed to a thread, which makes the system call as soon as the process runs.
   * From then on the kernel does it, whether the process runs or is paused; only the answer waits for the process.
   */
  #store(first: number, values: readonly number[], check: ChangeCheck = () => {}): Promise<void> {
    const storage = this.#storage;
    const { world } = storage;
    const code = storage.failNextWrite;
    storage.failNextWrite = undefined;
    const written = code === undefined ? values : values.slice(0, world.random.whole(0, values.length));
    return new Promise((resolve, reject) => {
      const writing: Writing = {
        owner: this,
        apply: () => {
          if (this.#isShutOut()) return;
          for (const [index, value] of written.entries()) storage.put(first + index, value);
        },
      };
      const enterKernel = (lastsMs: number) => {
        storage.writing.add(writing);
        world.after(lastsMs, () => {
          if (!storage.writing.delete(writing)) return;
          const failure = this.#isShutOut()
            ? this.#error('unavailable', "write, the disk is another host's")
            : code && this.#error(code, 'write');
          writing.apply();
          this.#process.do(() => (failure === undefined ? resolve() : reject(failure)));
        });
      };
      const handOver = () => {
        try {
          check();
        } catch (error) {
          return reject(asFailure(error));
        }
        // As long as the gateway allows for (landingMarginMs in gateway/pool.ts).
        if (world.nowMs < storage.writesLateUntilMs) enterKernel(world.random.between(985, 999));
        else world.after(threadDelayMs(world), () => this.#process.do(() => enterKernel(writeDelayMs(world))));
        this.afterNextCheck?.();
        this.afterNextCheck = undefined;
      };
      if (!world.isCalm && world.random.chance(0.02)) this.#process.after(queueDelayMs(world), handOver);
      else handOver();
    });
  }

  #error(code: FailureCode, what: string): Failure {
    this.#storage.world.count(`disk answers ${code} to a ${what}`);
    return new Failure(code, `the disk says so of a ${what}`);
  }

  #later(minMs: number, maxMs: number, effect: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const { world, hangsUntilMs } = this.#storage;
      const hangsMs = Math.max(0, hangsUntilMs - world.nowMs);
      if (hangsMs > 0) world.count('the disk hangs');
      world.after(hangsMs + world.random.between(minMs, maxMs), () => {
        this.#process.do(() => {
          if (this.#isShutOut()) return reject(this.#error('unavailable', "request, the disk is another host's"));
          try {
            effect();
            resolve();
          } catch (error) {
            reject(asFailure(error));
          }
        });
      });
    });
  }
}

/** Behind other changes of the same blocks: also for so long that newer writes have just been made elsewhere. */
function queueDelayMs(world: World): number {
  return world.random.chance(0.5) ? world.random.between(4000, 4500) : world.random.between(10, 1000);
}

/** Until a thread has a processor: less than the time that the server waits for it (rule S8). */
function threadDelayMs(world: World): number {
  return world.random.chance(0.1) ? world.random.between(1, 50) : world.random.between(0.01, 0.1);
}

/** Mostly short, sometimes long, always shorter than what rule S8 leaves to it of the margin that the gateway allows. */
function writeDelayMs(world: World): number {
  return world.random.chance(0.1) ? world.random.between(50, 400) : world.random.between(0.05, 3);
}
