/**
 * The files of one nbd-server under /run: its lock, held for life, its pid file, and the record for a successor.
 * Promise: of two processes with the same name only one holds the lock; the pid file is removed only while it is ours. The kernel drops
 * the lock with the process, however it ends.
 */
import { closeSync, openSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { type Clock, sleep } from '../base/clock.js';
import { tryLock } from '../linux/flock.js';

/** How long a successor waits for its predecessor to end. */
const lockWaitMs = 7000;
const lockRetryMs = 20;

export class RunFiles {
  readonly pidPath: string;
  readonly lockPath: string;
  readonly recordPath: string;
  #lock: number | undefined;

  constructor(name: string) {
    this.lockPath = lockPathOf(name);
    this.pidPath = `/var/run/nbd-${name}.pid`;
    this.recordPath = `/run/nbd-${name}.state`;
  }

  /** Waits for the lock. False: another process of the same name holds it. Throws what `open` throws. */
  async lock(clock: Clock): Promise<boolean> {
    const descriptor = openSync(this.lockPath, 'a', 0o600);
    const endMs = clock.nowMs() + lockWaitMs;
    while (!tryLock(descriptor)) {
      if (clock.nowMs() >= endMs) {
        closeSync(descriptor);
        return false;
      }
      await sleep(clock, lockRetryMs);
    }
    this.#lock = descriptor;
    return true;
  }

  /** The descriptor that holds the lock: it is held as long as any process has a copy of it. Undefined: not locked. */
  get lockDescriptor(): number | undefined {
    return this.#lock;
  }

  /** The lock came with a copy of the predecessor's descriptor. */
  adoptLock(descriptor: number): void {
    this.#lock = descriptor;
  }

  /** Throws what the file system throws; then there is no file. The lock must be ours. */
  writePid(): void {
    try {
      writeFileSync(this.pidPath, `${process.pid}\n`);
    } catch (error) {
      rmSync(this.pidPath, { force: true });
      throw error;
    }
  }

  /** Leaves the lock file: to unlink it would let two processes hold "the" lock. */
  remove(): void {
    try {
      if (readFileSync(this.pidPath, 'utf8').trim() === String(process.pid)) unlinkSync(this.pidPath);
    } catch {
      // Never written, or removed by somebody else.
    }
    if (this.#lock !== undefined) closeSync(this.#lock);
    this.#lock = undefined;
  }
}

/** Whether a process serves under this name. Undefined: we may not know (only root may). */
export function isNameInUse(name: string): boolean | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(lockPathOf(name), 'r');
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? false : undefined;
  }
  try {
    return !tryLock(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function lockPathOf(name: string): string {
  return `/run/nbd-${name}.lock`;
}
