import assert from 'node:assert/strict';
import test from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type RecordedClient, RecordedLoad } from '../../support/recorded-load.js';
import { blockBytes, readStamp, stampBlock } from '../../support/stamped-block.js';

const blocks = 40;

/** A disk with a cache: writes are in `cache`, and in `durable` after a flush. */
class CachedDisk implements RecordedClient {
  readonly cache = Buffer.alloc(blocks * blockBytes);
  readonly durable = Buffer.alloc(blocks * blockBytes);
  /** What becomes of the nth write. */
  spoil: (nth: number, bytes: Buffer) => 'keep' | 'lose' | 'repeat-later' = () => 'keep';
  flushes = true;
  #writes = 0;

  async read(offset: number, length: number): Promise<Buffer> {
    await turn();
    return Buffer.from(this.cache.subarray(offset, offset + length));
  }

  async write(offset: number, bytes: Buffer, fua: boolean): Promise<void> {
    await turn();
    const fate = this.spoil(this.#writes++, bytes);
    if (fate !== 'lose') bytes.copy(this.cache, offset);
    if (fate === 'repeat-later') setTimeout(() => bytes.copy(this.cache, offset), 20);
    if (fua && this.flushes) bytes.copy(this.durable, offset);
  }

  async flush(): Promise<void> {
    await turn();
    if (this.flushes) this.cache.copy(this.durable);
  }
}

function loadOn(disk: CachedDisk): RecordedLoad {
  return new RecordedLoad([disk], {
    ...{ blocks, workers: 4, pauseMsMax: 0 },
    durableWhenAnswered: false,
    answerWaitMs: 10_000,
  });
}

async function run(load: RecordedLoad): Promise<void> {
  load.start();
  await load.progress(600);
  await load.stop();
  await load.readBack();
}

test('a stamped block is read as what was written, and nothing else is', () => {
  assert.equal(readStamp(stampBlock(7, 12_345_678_901), 7), 12_345_678_901);
  assert.equal(readStamp(stampBlock(7, 0), 7), 0);
  assert.throws(() => readStamp(stampBlock(7, 1), 8), /not its own/);
  for (const at of [0, 9, 2047, 4095]) {
    const torn = stampBlock(7, 1);
    torn[at] = (torn[at] ?? 0) ^ 1;
    assert.throws(() => readStamp(torn, 7), /torn/, `byte ${at}`);
  }
});

/** What it reads is, for half of a block, as it was before the last write: of blocks that are being written, or of all (`late`). */
class TearingDisk extends CachedDisk {
  readonly #before = Buffer.alloc(blocks * blockBytes);
  readonly #writing = new Map<number, number>();
  readonly #late: boolean;
  torn = 0;

  constructor(late: boolean) {
    super();
    this.#late = late;
  }

  override async read(offset: number, length: number): Promise<Buffer> {
    await turn();
    const bytes = Buffer.from(this.cache.subarray(offset, offset + length));
    for (let at = 0; at < length; at += blockBytes) {
      if (!this.#late && !this.#writing.has(offset + at)) continue;
      const half = offset + at + blockBytes / 2;
      if (!this.cache.subarray(half, half + 16).equals(this.#before.subarray(half, half + 16))) this.torn += 1;
      this.#before.copy(bytes, at + blockBytes / 2, half, offset + at + blockBytes);
    }
    return bytes;
  }

  override async write(offset: number, bytes: Buffer, fua: boolean): Promise<void> {
    const count = (at: number, change: number) => {
      const now = (this.#writing.get(at) ?? 0) + change;
      if (now > 0) this.#writing.set(at, now);
      else this.#writing.delete(at);
    };
    this.cache.copy(this.#before, offset, offset, offset + bytes.length);
    for (let at = 0; at < bytes.length; at += blockBytes) count(offset + at, 1);
    // Written once and at the start, and each write takes as long as the next: the last one of a block to begin is the last to end.
    bytes.copy(this.cache, offset);
    await turn();
    if (fua) bytes.copy(this.durable, offset);
    for (let at = 0; at < bytes.length; at += blockBytes) count(offset + at, -1);
  }
}

test('a block that is read while it is written may be of both; one that is not may not', async () => {
  const disk = new TearingDisk(false);
  const load = loadOn(disk);
  await run(load);
  load.judge();
  assert.ok(disk.torn > 0, 'some were torn');
  await assert.rejects(run(loadOn(new TearingDisk(true))), /was mixed of/);
});

test('a disk that keeps its promises passes, over several rounds', async () => {
  const disk = new CachedDisk();
  const load = loadOn(disk);
  for (let round = 0; round < 3; round++) {
    await run(load);
    load.judgeRemains(disk.durable, performance.now());
    await load.flush();
    load.found(disk.durable);
    load.judge();
    load.forget();
  }
  for (const [kind, count] of Object.entries(load.counts)) assert.ok(count > 10, kind);
});

test('a lost write is noticed', async () => {
  const disk = new CachedDisk();
  disk.spoil = (nth) => (nth >= 100 && nth % 10 === 0 ? 'lose' : 'keep');
  const load = loadOn(disk);
  await run(load);
  assert.throws(() => load.judge(), /blocks are wrong/);
});

test('a ghost is noticed', async () => {
  const disk = new CachedDisk();
  disk.spoil = () => 'repeat-later';
  const load = loadOn(disk);
  await run(load);
  assert.throws(() => load.judge(), /had been acknowledged after it/);
});

test('a flush that does nothing is noticed after a crash', async () => {
  const disk = new CachedDisk();
  disk.flushes = false;
  const load = loadOn(disk);
  await run(load);
  assert.ok(load.countLost(disk.durable, performance.now()) > 0);
  assert.throws(() => load.judgeRemains(disk.durable, performance.now()), /a durable write is lost/);
});

test('what became durable only after the crash need not be there', async () => {
  const disk = new CachedDisk();
  const load = loadOn(disk);
  await run(load);
  const crashMs = performance.now();
  const remains = Buffer.from(disk.durable);
  await load.flush();
  load.judgeRemains(remains, crashMs);
});

test('a request without an answer is noticed', async () => {
  const disk = new CachedDisk();
  disk.write = () => new Promise(() => {});
  const load = new RecordedLoad([disk], {
    ...{ blocks, workers: 2, pauseMsMax: 0 },
    durableWhenAnswered: false,
    answerWaitMs: 100,
  });
  load.start();
  await assert.rejects(load.progress(10_000), /stands still/);
});
