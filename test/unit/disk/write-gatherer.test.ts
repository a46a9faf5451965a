/** Small writes that wait for a batch: each is checked when its batch is handed over, not when it came. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { type Batch, WriteGatherer } from '../../../src/disk/write-gatherer.js';
import type { SmallWrite } from '../../../src/linux/batched-write.js';
import { settled } from '../../support/fake-clock.js';
import { Gate } from '../../support/gate.js';

/** A disk that takes batches, and lets them go when the test says so. */
class SlowDisk {
  readonly taken: number[][] = [];
  readonly #gates: Gate[] = [];

  readonly open = (): Batch => ({
    write: async (_fd: number, writes: readonly SmallWrite[]) => {
      this.taken.push(writes.map(({ offset }) => offset));
      const gate = new Gate();
      this.#gates.push(gate);
      await gate.passed;
      return writes.map(({ bytes }) => bytes.length);
    },
    close: () => {},
  });

  /** The batch that has been there for longest has been written. */
  finishOne(): void {
    this.#gates.shift()?.open();
  }
}

const bytes = Buffer.alloc(512);
const refusal = new Failure('deadline-passed');

function pair(gatherer: WriteGatherer, offset: number, check: () => void): Promise<PromiseSettledResult<unknown>[]> {
  return Promise.allSettled([gatherer.write(offset, bytes, check), gatherer.write(offset + 512, bytes, () => {})]);
}

test('a write that waits while the disk is busy is refused if its time is over when the next batch starts', async () => {
  const disk = new SlowDisk();
  const gatherer = new WriteGatherer(0, disk.open);
  let isLate = false;
  const check = () => {
    if (isLate) throw refusal;
  };
  const underWay = pair(gatherer, 0, check);
  await settled();
  const waiting = pair(gatherer, 2048, check);
  await settled();
  assert.deepEqual(disk.taken, [[0, 512]]);
  isLate = true;
  disk.finishOne();
  await settled();
  assert.deepEqual(disk.taken[1], [2560]);
  disk.finishOne();
  assert.deepEqual(await waiting, [
    { status: 'rejected', reason: refusal },
    { status: 'fulfilled', value: 512 },
  ]);
  assert.ok((await underWay).every(({ status }) => status === 'fulfilled'));
});

test('a batch of which nothing is left is not started, and the next one is', async () => {
  const disk = new SlowDisk();
  const gatherer = new WriteGatherer(0, disk.open);
  const refuse = () => {
    throw refusal;
  };
  for (let round = 0; round < 2; round++) {
    const writes = [0, 512].map((offset) => gatherer.write(offset, bytes, refuse));
    assert.deepEqual(
      await Promise.allSettled(writes),
      writes.map(() => ({ status: 'rejected', reason: refusal })),
    );
  }
  assert.deepEqual(disk.taken, []);
  const next = pair(gatherer, 0, () => {});
  await settled();
  assert.deepEqual(disk.taken, [[0, 512]]);
  disk.finishOne();
  assert.ok((await next).every(({ status }) => status === 'fulfilled'));
});
