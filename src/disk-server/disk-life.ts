/**
 * One life of the open disk: what an instance id names. It ends when the disk is closed, and a new one begins when it is
 * opened again.
 * Promise: the disk is not closed while an operation of this life is in progress, except by a stop that has waited enough.
 */
import { assert } from '../base/assert.js';
import { asFailure, type Failure } from '../base/failure.js';
import type { Disk } from '../disk/disk.js';
import type { DiskFacts } from '../http-disk/response-codec.js';
import { GroupCommit } from './group-commit.js';

export class DiskLife implements DiskFacts {
  readonly disk: Disk;
  readonly instance: string;
  readonly commit: GroupCommit;
  /** When the size was looked at, in the server's clock. */
  sizeCheckedMs: number;
  #running = 0;
  #whenIdle: (() => void)[] = [];

  constructor(disk: Disk, instance: string, nowMs: number, onSyncFailure: (failure: Failure) => void) {
    this.disk = disk;
    this.instance = instance;
    this.sizeCheckedMs = nowMs;
    this.commit = new GroupCommit(() => disk.sync(), onSyncFailure);
  }

  get sizeBytes(): number {
    return this.disk.sizeBytes;
  }

  get readOnly(): boolean {
    return this.disk.readOnly;
  }

  /** Operations in progress, their syncs included. */
  get running(): number {
    return this.#running;
  }

  begin(): void {
    this.#running++;
  }

  end(): void {
    assert(this.#running > 0, 'an operation that ends has begun');
    this.#running--;
    if (this.#running > 0) return;
    const waiting = this.#whenIdle;
    this.#whenIdle = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when no operation is in progress. */
  idle(): Promise<void> {
    if (this.#running === 0) return Promise.resolve();
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
