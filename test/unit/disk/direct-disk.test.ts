import assert from 'node:assert/strict';
import { readFileSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Failure } from '../../../src/base/failure.js';
import type { Disk } from '../../../src/disk/disk.js';
import { openDisk } from '../../../src/disk/open-disk.js';
import { loopDevice, noLoopDevices } from '../../support/block-devices.js';
import { temporaryFolder } from '../../support/processes.js';

const MiB = 1024 * 1024;
const direct = { readOnly: false, direct: true };
const skip = statfsSync(tmpdir()).type === 0x01021994 && 'needs a disk behind /tmp';

async function openFile(context: TestContext, sizeBytes: number): Promise<{ disk: Disk; path: string }> {
  const path = join(temporaryFolder(context), 'disk');
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  const disk = await openDisk(path, direct);
  context.after(() => disk.close());
  return { disk, path };
}

async function readAll(disk: Disk): Promise<Buffer> {
  const into = Buffer.alloc(disk.sizeBytes, 0xee);
  await disk.read(0, into);
  return into;
}

test('direct: concurrent changes of any byte ranges that do not overlap all arrive', { skip }, async (t) => {
  const size = 3 * MiB + 4096;
  const change = fc.record({
    op: fc.constantFrom('write', 'zero', 'trim'),
    cut: fc.nat(size),
    seed: fc.integer({ min: 1, max: 255 }),
  });
  const { disk } = await openFile(t, size);
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 30 }), async (changes) => {
      const model = Buffer.alloc(size, 0xaa);
      await disk.write(0, model);
      // The cuts divide the disk into adjacent ranges, one for each change; their blocks are shared at the cuts.
      const cuts = changes.map(({ cut }) => cut).sort((a, b) => a - b);
      await Promise.all(
        changes.map(async ({ op, seed }, index) => {
          const from = cuts[index] ?? 0;
          const to = cuts[index + 1] ?? Math.min(size, from + 1000);
          model.fill(op === 'write' ? seed : 0, from, to);
          if (op === 'write') await disk.write(from, Buffer.alloc(to - from, seed));
          else if (op === 'zero') await disk.zero(from, to - from, seed % 2 === 0);
          else await disk.trim(from, to - from);
        }),
      );
      assert.ok((await readAll(disk)).equals(model));
    }),
    { numRuns: 15 },
  );
});

test('direct: small reads at any place, also of the last byte', { skip }, async (t) => {
  const { disk, path } = await openFile(t, 2 * MiB);
  const bytes = Buffer.from(Uint8Array.from({ length: 2 * MiB }, (_, index) => (index * 7 + (index >> 9)) & 255));
  await disk.write(0, bytes);
  await disk.sync();
  assert.ok(readFileSync(path).equals(bytes));
  assert.equal(disk.readNow(0, Buffer.alloc(1)), false);
  for (const [offset, length] of [
    [0, 1],
    [511, 2],
    [MiB - 1, 2],
    [100, 2 * MiB - 100],
    [2 * MiB - 1, 1],
    [2 * MiB, 0],
  ] as const) {
    const into = Buffer.alloc(length);
    await disk.read(offset, into);
    assert.ok(into.equals(bytes.subarray(offset, offset + length)), `${offset} ${length}`);
  }
});

test('direct: a file that is no whole number of blocks is refused with a reason', { skip }, async (t) => {
  const path = join(temporaryFolder(t), 'disk');
  writeFileSync(path, 'x'.repeat(5000));
  await assert.rejects(openDisk(path, direct), { code: 'unsupported', message: /multiple of \d+ bytes/ });
});

test('direct: each piece is checked when its turn has come, not while it waits for others', { skip }, async (t) => {
  const { disk, path } = await openFile(t, 4 * MiB);
  let seen = 0;
  const look = () => {
    seen = readFileSync(path)[0] ?? 0;
  };
  await Promise.all([disk.write(0, Buffer.alloc(4096, 1)), disk.write(0, Buffer.alloc(4096, 2), look)]);
  assert.equal(seen, 1, 'the second is checked when the first has been written');
  const refusal = new Failure('deadline-passed');
  let pieces = 0;
  const check = () => {
    pieces += 1;
    if (pieces === 2) throw refusal;
  };
  await assert.rejects(disk.write(0, Buffer.alloc(4 * MiB, 4), check), refusal);
  assert.ok((await readAll(disk)).equals(Buffer.concat([Buffer.alloc(MiB, 4), Buffer.alloc(3 * MiB)])));
});

test('direct: a file that was truncated is unavailable, never zeroes', { skip }, async (t) => {
  const { disk, path } = await openFile(t, 2 * MiB);
  await disk.write(0, Buffer.alloc(2 * MiB, 1));
  truncateSync(path, MiB + 4096);
  await assert.rejects(disk.read(MiB, Buffer.alloc(8192)), { code: 'unavailable' });
  const into = Buffer.alloc(4096);
  await disk.read(MiB, into);
  assert.ok(into.every((byte) => byte === 1));
});

test('direct: two hosts write neighbouring sectors, and neither loses a write', { skip: noLoopDevices }, async (t) => {
  const loop = loopDevice(t, MiB, '--sector-size', '512', '--direct-io=on');
  const hosts = await Promise.all([0, 1, 2, 3].map(() => openDisk(loop.path, direct)));
  for (const host of hosts) t.after(() => host.close());
  for (let round = 1; round <= 50; round += 1) {
    await Promise.all(hosts.map((host, index) => host.write(index * 512, Buffer.alloc(512, round))));
    const sectors = Buffer.alloc(4 * 512);
    await hosts[round % 4]?.read(0, sectors);
    assert.ok(sectors.equals(Buffer.alloc(4 * 512, round)), `round ${round}`);
  }
});

test('direct: any byte range of a block device', { skip: noLoopDevices }, async (t) => {
  const size = 2 * MiB + 512;
  const loop = loopDevice(t, size, '--sector-size', '512');
  const disk = await openDisk(loop.path, direct);
  t.after(() => disk.close());
  assert.equal(disk.logicalBlockBytes, 512);
  const model = Buffer.alloc(size, 9);
  await disk.write(0, model);
  await disk.write(size - 3, Buffer.from('end'));
  model.write('end', size - 3);
  await disk.zero(1000, MiB, true);
  model.fill(0, 1000, 1000 + MiB);
  assert.ok((await readAll(disk)).equals(model));
});
