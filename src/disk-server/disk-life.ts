/**
 * One life of the open disk: what an instance id names. It ends when the disk is closed, and a new one begins when it is
 * opened again.
 * Promise: the disk is not closed while an operation of this life is in progress, except by a stop that has waited enough.
 */
import { assert } from '../base/assert.js';
import type { Clock } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import type { Disk } from '../disk/disk.js';
import type { DiskFacts } from '../http-disk/response-codec.js';
import { GroupCommit } from './group-commit.js';
import { SuspensionWatch, type WatchLimits } from './suspension-watch.js';

/** What is in progress on the disk. */
export interface DiskUser {
  /** The disk keeps it until somebody decides. {@link DiskLife.end} is called all the same when it comes back. */
  abandon(failure: Failure): void;
}

export interface LifeContext {
  readonly clock: Clock;
  readonly suspension: WatchLimits;
  readonly onSyncFailure: (failure: Failure) => void;
  /** Before those in progress are abandoned. */
  readonly onSuspension: (failure: Failure) => void;
}

export class DiskLife implements DiskFacts {
  readonly disk: Disk;
  readonly instance: string;
  readonly commit: GroupCommit;
  /** When it was looked how large the disk is, and whether it is suspended, in the server's clock. */
  checkedMs: number;
  /** In the order in which they began. */
  readonly #users = new Set<DiskUser>();
  readonly #watch: SuspensionWatch | undefined;
  #whenIdle: (() => void)[] = [];

  constructor(disk: Disk, instance: string, context: LifeContext) {
    const { clock, suspension, onSyncFailure, onSuspension } = context;
    this.disk = disk;
    this.instance = instance;
    this.checkedMs = clock.nowMs();
    this.commit = new GroupCommit(() => disk.sync(), onSyncFailure);
    if (disk.suspension === undefined) return;
    this.#watch = new SuspensionWatch({
      ...{ ...suspension, clock, users: this.#users, ask: disk.suspension },
      suspended: (reason) => {
        const failure = new Failure('unavailable', reason);
        onSuspension(failure);
        for (const user of this.#users) user.abandon(failure);
      },
    });
  }

  get sizeBytes(): number {
    return this.disk.sizeBytes;
  }

  get readOnly(): boolean {
    return this.disk.readOnly;
  }

  /** Operations in progress, their syncs included. */
  get running(): number {
    return this.#users.size;
  }

  begin(user: DiskUser): void {
    this.#users.add(user);
    this.#watch?.begun(user);
  }

  end(user: DiskUser): void {
    const hadBegun = this.#users.delete(user);
    assert(hadBegun, 'an operation that ends has begun');
    if (this.#users.size > 0) return;
    const waiting = this.#whenIdle;
    this.#whenIdle = [];
    for (const resolve of waiting) resolve();
  }

  /** Asks a disk that can be suspended whether it is, and resolves when {@link LifeContext.onSuspension} has been told if so. */
  async checkSuspension(): Promise<void> {
    await this.#watch?.check();
  }

  /** Resolves when no operation is in progress. */
  idle(): Promise<void> {
    if (this.#users.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** A disk that fails to close is gone all the same. */
  async close(): Promise<void> {
    try {
      await this.disk.close();
    } catch (error) {
      asFailure(error);
    }
  }
}
