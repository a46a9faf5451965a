import assert from 'node:assert/strict';
import test from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type BlockClient, CheckedLoad } from '../../support/checked-load.js';

const sizeBytes = 64 * 4096;

/** A disk in memory. `spoil` may change what a write stores. */
function memoryDisk(disk: Buffer, spoil: (bytes: Buffer, nth: number) => Buffer | undefined): BlockClient {
  let writes = 0;
  return {
    read: async (offset, length) => {
      await turn();
      return Buffer.from(disk.subarray(offset, offset + length));
    },
    write: async (offset, bytes) => {
      await turn();
      const stored = spoil(bytes, writes++);
      if (stored === undefined) throw new Error('EIO');
      stored.copy(disk, offset);
    },
    flush: () => turn(),
  };
}

test('a disk that keeps what it is told passes, and ends with what the load wrote', async () => {
  const disk = Buffer.alloc(sizeBytes);
  const load = new CheckedLoad(
    memoryDisk(disk, (bytes) => bytes),
    Buffer.from(disk),
    { sizeBytes },
  );
  await load.progress(500);
  assert.ok((await load.finish()).equals(disk));
  assert.equal(load.errors, 0);
});

test('a write that was acknowledged and lost is noticed', async () => {
  const lost = memoryDisk(Buffer.alloc(sizeBytes), (bytes, nth) => (nth >= 100 ? Buffer.alloc(0) : bytes));
  const load = new CheckedLoad(lost, Buffer.alloc(sizeBytes), { sizeBytes });
  await assert.rejects(load.progress(100_000), /does not hold what was last written/);
});

test('one wrong byte is noticed', async () => {
  const wrong = memoryDisk(Buffer.alloc(sizeBytes), (bytes, nth) => {
    if (nth < 100) return bytes;
    const changed = Buffer.from(bytes);
    changed[4095] = (changed[4095] ?? 0) ^ 1;
    return changed;
  });
  const load = new CheckedLoad(wrong, Buffer.alloc(sizeBytes), { sizeBytes });
  await assert.rejects(load.progress(100_000), /does not hold what was last written/);
});

test('an error fails the load, unless errors are expected', async () => {
  const failing = (): BlockClient =>
    memoryDisk(Buffer.alloc(sizeBytes), (bytes, nth) => (nth < 50 ? bytes : undefined));
  const strict = new CheckedLoad(failing(), Buffer.alloc(sizeBytes), { sizeBytes });
  await assert.rejects(strict.progress(10_000), /EIO/);
  const tolerant = new CheckedLoad(failing(), Buffer.alloc(sizeBytes), { sizeBytes, errorsExpected: true });
  await tolerant.progress(1_000);
  assert.ok(tolerant.errors > 0);
  await tolerant.finish();
});
