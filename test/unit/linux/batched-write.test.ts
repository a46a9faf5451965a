import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { WriteGatherer } from '../../../src/disk/write-gatherer.js';
import { batchedWritesMax, WriteBatch, type WriteResult } from '../../../src/linux/batched-write.js';

const noCheck = () => {};

function temporaryFile(t: TestContext, flags = 'r+'): { path: string; fd: number } {
  const folder = mkdtempSync(join(tmpdir(), 'http-nbd-batch-'));
  const path = join(folder, 'file');
  writeFileSync(path, Buffer.alloc(1 << 20));
  const fd = openSync(path, flags);
  t.after(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return { path, fd };
}

test('a batch writes each of its writes where it belongs, the last one last', async (t) => {
  const { path, fd } = temporaryFile(t);
  const batch = WriteBatch.open();
  if (batch === undefined) return t.skip('this machine has no asynchronous I/O (Linux AIO)');
  t.after(() => batch.close());
  for (let round = 1; round <= 3; round += 1) {
    const writes = Array.from({ length: batchedWritesMax }, (_, index) => ({
      offset: index * 1000,
      bytes: Buffer.alloc(1000 + index, round * 40 + index),
    }));
    const results: WriteResult[] = await batch.write(fd, writes);
    assert.deepEqual(
      results,
      writes.map(({ bytes }) => bytes.length),
    );
    const expected = Buffer.alloc(1 << 20);
    for (const { offset, bytes } of writes) bytes.copy(expected, offset);
    assert.ok(readFileSync(path).subarray(0, 33_000).equals(expected.subarray(0, 33_000)), `round ${round}`);
  }
});

test('a write that the kernel refuses says why, and the batch goes on to be of use', async (t) => {
  const { fd } = temporaryFile(t, 'r');
  const batch = WriteBatch.open();
  if (batch === undefined) return t.skip('this machine has no asynchronous I/O (Linux AIO)');
  t.after(() => batch.close());
  const writes = [0, 4096].map((offset) => ({ offset, bytes: Buffer.alloc(512) }));
  const results: WriteResult[] = await batch.write(fd, writes);
  for (const result of results) assert.ok(result === 'not-tried' || result === -constants.errno.EBADF, String(result));
  const other = temporaryFile(t);
  assert.deepEqual(await batch.write(other.fd, writes), [512, 512]);
});

test('gathered writes are all answered and all there, whatever their number; one alone takes the ordinary way', async (t) => {
  const { path, fd } = temporaryFile(t);
  const gatherer = new WriteGatherer(fd);
  t.after(() => gatherer.close());
  assert.equal(await gatherer.write(0, Buffer.alloc(512, 1), noCheck), 'not-tried');
  const numbers = Array.from({ length: 200 }, (_, index) => index);
  const results = await Promise.all(
    numbers.map((index) => gatherer.write(index * 512, Buffer.alloc(512, index + 1), noCheck)),
  );
  for (const index of numbers) {
    if (results[index] === 'not-tried') continue;
    assert.equal(results[index], 512);
    assert.equal(readFileSync(path)[index * 512 + 511], index + 1);
  }
  assert.ok(results.filter((result) => result === 512).length >= 190, 'most travel in batches');
});
