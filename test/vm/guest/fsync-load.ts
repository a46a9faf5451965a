/**
 * An application that trusts its disk: one block after the other, each synced before the next. It remembers what was acknowledged.
 * Promise: {@link FsyncLoad.verify} rejects if a single acknowledged block is not there.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { CaseContext } from './cases.js';

const blockBytes = 4096;
const blocks = 512;

export class FsyncLoad {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #acknowledged = new Map<number, number>();
  readonly #running: Promise<void>;
  #stopped = false;
  #waiting: (() => void)[] = [];
  writes = 0;
  longestMs = 0;

  static async start(context: CaseContext, path: string): Promise<FsyncLoad> {
    const load = new FsyncLoad(path, await open(path, 'w+'));
    context.after(() => {
      load.#stopped = true;
    });
    return load;
  }

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
    this.#running = this.#run();
    this.#running.catch(() => {});
  }

  /** Resolves when `count` more writes have been acknowledged; rejects with the application's error. */
  async progress(count: number): Promise<void> {
    const goal = this.writes + count;
    while (this.writes < goal) {
      await Promise.race([this.#running, new Promise<void>((resolve) => void this.#waiting.push(resolve))]);
    }
  }

  /** Ends the load and reads everything back from the disk. */
  async verify(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#file.close();
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    const file = await open(this.#path, 'r');
    const into = Buffer.alloc(blockBytes);
    for (const [block, value] of this.#acknowledged) {
      await file.read(into, 0, blockBytes, block * blockBytes);
      assert.ok(into.equals(content(value)), `block ${block}: ${into.readUInt32LE(0)} instead of ${value}`);
    }
    await file.close();
    assert.ok(this.writes > 0);
  }

  async #run(): Promise<void> {
    for (let value = 1; !this.#stopped; value++) {
      const block = (value * 7) % blocks;
      const startMs = performance.now();
      await this.#file.write(content(value), 0, blockBytes, block * blockBytes);
      await this.#file.datasync();
      this.longestMs = Math.max(this.longestMs, performance.now() - startMs);
      this.#acknowledged.set(block, value);
      this.writes += 1;
      for (const wake of this.#waiting.splice(0)) wake();
    }
  }
}

function content(value: number): Buffer {
  const bytes = Buffer.alloc(blockBytes, value & 0xff);
  bytes.writeUInt32LE(value, 0);
  return bytes;
}
