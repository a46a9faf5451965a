import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { statfsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Failure, type FailureCode } from '../../../src/base/failure.js';
import type { ChangeCheck, Disk } from '../../../src/disk/disk.js';
import { openDisk } from '../../../src/disk/open-disk.js';
import { mountTmpfs, noMounts } from '../../support/block-devices.js';
import { temporaryFolder } from '../../support/processes.js';

const KiB = 1024;
const MiB = 1024 * KiB;

async function openFile(context: TestContext, sizeBytes: number, folder = temporaryFolder(context)) {
  const path = join(folder, 'disk');
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  const disk = await openDisk(path, { readOnly: false, direct: false });
  context.after(() => disk.close());
  return { path, disk };
}

async function readBack(disk: Disk, offset: number, length: number): Promise<Buffer> {
  const into = Buffer.alloc(length, 0xee);
  await disk.read(offset, into);
  return into;
}

const fails = (code: FailureCode) => (error: unknown) => {
  assert.equal((error as { code?: unknown }).code, code, String(error));
  return true;
};

const allocatedBytes = (path: string) => statSync(path).blocks * 512;

test('any byte range of a file of any size reads back as written', async (t) => {
  const { disk } = await openFile(t, 100_001);
  assert.equal(disk.sizeBytes, 100_001);
  const bytes = Buffer.from('the very end');
  await disk.write(100_001 - bytes.length, bytes);
  await disk.write(7, Buffer.from('seven'));
  assert.equal(String(await readBack(disk, 100_001 - bytes.length, bytes.length)), 'the very end');
  assert.equal(String(await readBack(disk, 6, 7)), '\0seven\0');
  await disk.sync();
});

const tmpIsMemory = statfsSync(tmpdir()).type === 0x01021994;

test('a read without waiting gives the cached bytes', {
  skip: tmpIsMemory && 'needs a disk behind /tmp',
}, async (t) => {
  const { disk } = await openFile(t, 64 * KiB);
  await disk.write(1000, Buffer.from('cached'));
  const into = Buffer.alloc(6);
  assert.equal(disk.readNow(1000, into), true);
  assert.equal(String(into), 'cached');
});

test('a long read of what is cached lets others in between, and ends in a thread where the cache ends', {
  skip: tmpIsMemory && 'needs a disk behind /tmp',
}, async (t) => {
  const length = 2 * MiB + 5;
  const { path, disk } = await openFile(t, length);
  const bytes = Buffer.from(Array.from({ length }, (_, at) => at % 251));
  await disk.write(0, bytes);
  await disk.sync();
  let turns = 0;
  let counting = true;
  const count = () => {
    turns += 1;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  t.after(() => {
    counting = false;
  });
  assert.ok((await readBack(disk, 0, length)).equals(bytes));
  assert.ok(turns >= 16, `${turns} turns of the event loop`);
  execFileSync('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'seek=2048', 'status=none']);
  assert.ok((await readBack(disk, 0, length)).equals(bytes));
});

test('a read without waiting on a file system that cannot says no', async (t) => {
  const { disk } = await openFile(t, 64 * KiB, temporaryFolder(t, '/dev/shm'));
  await disk.write(0, Buffer.from('x'));
  const into = Buffer.alloc(1);
  const had = disk.readNow(0, into);
  assert.equal(had ? String(into) : 'no', had ? 'x' : 'no');
  assert.equal(String(await readBack(disk, 0, 1)), 'x');
});

test('ranges outside the disk are refused, nothing grows', async (t) => {
  const { disk, path } = await openFile(t, 4096);
  await assert.rejects(disk.write(4090, Buffer.alloc(7)), fails('out-of-range'));
  await assert.rejects(disk.read(4097, Buffer.alloc(0)), fails('out-of-range'));
  await assert.rejects(disk.zero(Number.MAX_SAFE_INTEGER, 2, true), fails('out-of-range'));
  await assert.rejects(disk.trim(-1, 1), fails('out-of-range'));
  assert.equal(disk.readNow(4096, Buffer.alloc(1)), false);
  assert.equal(statSync(path).size, 4096);
});

test('holes are reported, made by trims, and kept by reads', async (t) => {
  const { disk, path } = await openFile(t, 16 * MiB);
  await disk.write(4 * MiB, Buffer.alloc(2 * MiB, 1));
  assert.deepEqual(await disk.extents(0, 16 * MiB, 100), [
    { offset: 0, length: 4 * MiB, kind: 'hole' },
    { offset: 4 * MiB, length: 2 * MiB, kind: 'data' },
    { offset: 6 * MiB, length: 10 * MiB, kind: 'hole' },
  ]);
  assert.deepEqual(await disk.extents(5 * MiB, 2 * MiB, 1), [{ offset: 5 * MiB, length: MiB, kind: 'data' }]);
  assert.deepEqual(await disk.extents(5 * MiB, 1000, 9), [{ offset: 5 * MiB, length: 1000, kind: 'data' }]);
  assert.deepEqual(await disk.extents(MiB, 1000, 9), [{ offset: MiB, length: 1000, kind: 'hole' }]);
  assert.deepEqual(await disk.extents(MiB, 8 * MiB, 1), [{ offset: MiB, length: 3 * MiB, kind: 'hole' }]);
  await disk.trim(4 * MiB, MiB);
  assert.deepEqual(await disk.extents(4 * MiB, 2 * MiB, 100), [
    { offset: 4 * MiB, length: MiB, kind: 'hole' },
    { offset: 5 * MiB, length: MiB, kind: 'data' },
  ]);
  assert.ok((await readBack(disk, 4 * MiB, MiB)).every((byte) => byte === 0));
  assert.ok(allocatedBytes(path) < 2 * MiB);
});

test('zeroes become a hole only where they may', async (t) => {
  const { disk, path } = await openFile(t, 8 * MiB);
  await disk.write(0, Buffer.alloc(8 * MiB, 1));
  await disk.sync();
  await disk.zero(0, 2 * MiB, false);
  assert.ok(allocatedBytes(path) >= 8 * MiB, 'still allocated');
  // Without a byte written: such blocks are allocated, but known to hold nothing.
  if (disk.zeroesFast) assert.equal((await disk.extents(0, 2 * MiB, 9))[0]?.kind, 'hole');
  await disk.zero(4 * MiB + 1, 2 * MiB, true);
  assert.ok(allocatedBytes(path) <= 7 * MiB, 'freed');
  const all = await readBack(disk, 0, 8 * MiB);
  const expected = Buffer.alloc(8 * MiB, 1)
    .fill(0, 0, 2 * MiB)
    .fill(0, 4 * MiB + 1, 6 * MiB + 1);
  assert.ok(all.equals(expected));
});

test('zeroes are written where the file system cannot zero a range', async (t) => {
  const { disk } = await openFile(t, 5 * MiB, temporaryFolder(t, '/dev/shm'));
  await disk.write(0, Buffer.alloc(5 * MiB, 1));
  await disk.zero(1, 3 * MiB, false);
  const expected = Buffer.alloc(5 * MiB, 1).fill(0, 1, 1 + 3 * MiB);
  assert.ok((await readBack(disk, 0, 5 * MiB)).equals(expected));
  assert.equal(disk.zeroesFast, false);
});

test('the largest disk: 2^53 - 1 bytes', async (t) => {
  const size = Number.MAX_SAFE_INTEGER;
  const { disk } = await openFile(t, size, temporaryFolder(t, '/dev/shm'));
  assert.equal(disk.sizeBytes, size);
  await disk.write(size - 4, Buffer.from('last'));
  assert.equal(String(await readBack(disk, size - 4, 4)), 'last');
  const extents = await disk.extents(0, size, 10);
  assert.equal(extents[0]?.kind, 'hole');
  const last = extents.at(-1);
  assert.equal(last?.kind, 'data');
  assert.equal((last?.offset ?? 0) + (last?.length ?? 0), size);
  await disk.zero(size - 4, 4, true);
  assert.deepEqual(await readBack(disk, size - 4, 4), Buffer.alloc(4));
});

test('a file of more than 2^53 - 1 bytes is refused', async (t) => {
  const path = join(temporaryFolder(t, '/dev/shm'), 'disk');
  writeFileSync(path, '');
  execFileSync('truncate', ['--size', String(2n ** 53n), path]);
  await assert.rejects(openDisk(path, { readOnly: false, direct: false }), fails('unsupported'));
});

test('the missing end of a file that was truncated never reads or maps as zeroes', async (t) => {
  const { disk, path } = await openFile(t, 2 * MiB);
  await disk.write(0, Buffer.alloc(2 * MiB, 1));
  truncateSync(path, MiB);
  await assert.rejects(disk.read(MiB - 1, Buffer.alloc(2)), fails('unavailable'));
  assert.equal(disk.readNow(MiB - 1, Buffer.alloc(2)), false);
  await assert.rejects(disk.extents(0, 2 * MiB, 100), fails('unavailable'));
  await assert.rejects(disk.extents(MiB + 1, 100, 100), fails('unavailable'));
  await disk.write(MiB + 4096, Buffer.alloc(4096, 2));
  await assert.rejects(disk.sync(), fails('unavailable'), 'the write left a gap of zeroes behind it');
  truncateSync(path, MiB);
  assert.equal((await readBack(disk, 0, MiB))[5], 1);
  assert.equal(await disk.refreshSize(), MiB);
  await assert.rejects(disk.read(MiB, Buffer.alloc(1)), fails('out-of-range'));
});

test('a file that has grown is larger after a second look', async (t) => {
  const { disk, path } = await openFile(t, 1000);
  writeFileSync(path, Buffer.alloc(3000, 1));
  assert.equal(disk.sizeBytes, 1000);
  assert.equal(disk.readNow(999, Buffer.alloc(2)), false);
  assert.equal(await disk.refreshSize(), 3000);
  assert.equal(disk.sizeBytes, 3000);
  await disk.write(2999, Buffer.from('x'));
});

test('a read-only disk reads, and refuses every change', async (t) => {
  const path = join(temporaryFolder(t), 'disk');
  writeFileSync(path, 'content');
  const disk = await openDisk(path, { readOnly: true, direct: false });
  t.after(() => disk.close());
  assert.equal(disk.readOnly, true);
  assert.equal(String(await readBack(disk, 0, 7)), 'content');
  await assert.rejects(disk.write(0, Buffer.from('x')), fails('read-only'));
  await assert.rejects(disk.zero(0, 1, true), fails('read-only'));
  await assert.rejects(disk.trim(0, 1), fails('read-only'));
  await disk.sync();
});

test('a full file system is `no-space`', { skip: noMounts }, async (t) => {
  const { disk } = await openFile(t, 64 * MiB, mountTmpfs(t, MiB));
  await assert.rejects(disk.write(0, Buffer.alloc(2 * MiB, 1)), fails('no-space'));
  await assert.rejects(disk.zero(8 * MiB, 2 * MiB, false), fails('no-space'));
  await disk.trim(0, 64 * MiB);
  await disk.write(32 * MiB, Buffer.alloc(512 * KiB, 2));
  assert.equal((await readBack(disk, 32 * MiB, 1))[0], 2);
});

test('closing waits for what runs and refuses what comes later', async (t) => {
  const { disk } = await openFile(t, 8 * MiB);
  const bytes = Buffer.alloc(8 * MiB, 3);
  let written = false;
  const write = disk.write(0, bytes).then(() => (written = true));
  const closed = disk.close();
  assert.equal(disk.readNow(0, Buffer.alloc(1)), false);
  await assert.rejects(disk.read(0, Buffer.alloc(1)), fails('unavailable'));
  await closed;
  assert.equal(written, true);
  await write;
  await disk.close();
});

type Operation = { op: 'write' | 'zero' | 'zeroInPlace' | 'trim'; offset: number; length: number; seed: number };

test('random operations leave the bytes that a model has, and a map that fits them', async (t) => {
  const size = 40_000;
  const operation: fc.Arbitrary<Operation> = fc
    .record({
      op: fc.constantFrom('write', 'zero', 'zeroInPlace', 'trim'),
      offset: fc.nat(size - 1),
      length: fc.nat(20_000),
      seed: fc.integer({ min: 1, max: 255 }),
    })
    .map((wish) => ({ ...wish, length: Math.min(wish.length, size - wish.offset) }));

  for (const parent of ['/tmp', '/dev/shm']) {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
        const { disk } = await openFile(t, size, temporaryFolder(t, parent));
        const model = Buffer.alloc(size);
        for (const { op, offset, length, seed } of operations) {
          const end = offset + length;
          if (op === 'write') {
            model.fill(seed, offset, end);
            await disk.write(offset, Buffer.alloc(length, seed));
          } else {
            // A trimmed range is undefined by the interface; on a regular file it is zeroes.
            model.fill(0, offset, end);
            await (op === 'trim' ? disk.trim(offset, length) : disk.zero(offset, length, op === 'zero'));
          }
        }
        assert.ok((await readBack(disk, 0, size)).equals(model));
        let at = 0;
        for (const { offset, length, kind } of await disk.extents(0, size, 1000)) {
          assert.equal(offset, at);
          assert.ok(kind === 'data' || model.subarray(at, at + length).every((byte) => byte === 0));
          at += length;
        }
        assert.equal(at, size);
        await disk.close();
      }),
      { numRuns: 40 },
    );
  }
});

/** Lets `times` system calls pass, and refuses the next. */
function refuseAfter(times: number): { check: ChangeCheck; refusal: Failure } {
  const refusal = new Failure('deadline-passed');
  let left = times;
  const check = () => {
    if (left === 0) throw refusal;
    left -= 1;
  };
  return { check, refusal };
}

test('a change that is refused in the last moment changes nothing, however it would be made', async (t) => {
  const { disk } = await openFile(t, 4 * MiB);
  await disk.write(0, Buffer.alloc(4 * MiB, 1));
  const { check, refusal } = refuseAfter(0);
  const changes = [
    () => disk.write(0, Buffer.alloc(512, 2), check),
    () => disk.write(0, Buffer.alloc(MiB, 2), check),
    () => disk.zero(0, MiB, false, check),
    () => disk.zero(0, MiB, true, check),
    () => disk.trim(0, MiB, check),
  ];
  for (const change of changes) await assert.rejects(change, refusal);
  const together = [0, 512, 1024].map((offset) => disk.write(offset, Buffer.alloc(512, 2), check));
  assert.deepEqual(
    await Promise.allSettled(together),
    together.map(() => ({ status: 'rejected', reason: refusal })),
  );
  assert.ok((await readBack(disk, 0, 4 * MiB)).equals(Buffer.alloc(4 * MiB, 1)));
});

test('zeroes that are written in pieces are checked before each', { skip: noMounts }, async (t) => {
  // A tmpfs has no FALLOC_FL_ZERO_RANGE.
  const { disk } = await openFile(t, 4 * MiB, mountTmpfs(t, 16 * MiB));
  await disk.write(0, Buffer.alloc(4 * MiB, 1));
  const { check, refusal } = refuseAfter(2);
  await assert.rejects(disk.zero(0, 4 * MiB, false, check), refusal);
  assert.ok((await readBack(disk, 0, 2 * MiB)).equals(Buffer.alloc(2 * MiB)));
  assert.ok((await readBack(disk, 2 * MiB, 2 * MiB)).equals(Buffer.alloc(2 * MiB, 1)));
});
