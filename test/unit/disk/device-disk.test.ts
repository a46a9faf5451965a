import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { constants, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { Channel } from '../../../src/base/channel.js';
import { Failure } from '../../../src/base/failure.js';
import { Descriptor } from '../../../src/disk/descriptor.js';
import { DeviceDisk } from '../../../src/disk/device-disk.js';
import { type DiskEvent, openDisk } from '../../../src/disk/open-disk.js';
import { type LoopDevice, loopDevice, mountTmpfs, noLoopDevices } from '../../support/block-devices.js';

const MiB = 1024 * 1024;
const skip = noLoopDevices;

async function openLoop(context: TestContext, loop: LoopDevice, events?: Channel<DiskEvent>) {
  const disk = await openDisk(loop.path, { readOnly: false, direct: false, events });
  context.after(() => disk.close());
  return disk;
}

const allocatedBytes = (path: string) => statSync(path).blocks * 512;

test('a block device tells its geometry', { skip }, async (t) => {
  const disk = await openLoop(t, loopDevice(t, 10 * MiB + 512, '--sector-size', '512'));
  assert.equal(disk.sizeBytes, 10 * MiB + 512);
  assert.equal(disk.logicalBlockBytes, 512);
  assert.ok(disk.physicalBlockBytes >= 512);
  assert.equal(disk.readOnly, false);
  assert.deepEqual(await disk.extents(5, 1000, 10), [{ offset: 5, length: 1000, kind: 'data' }]);
});

test('any byte range of a block device can be written, zeroed and read', { skip }, async (t) => {
  const size = 4 * MiB + 512;
  const disk = await openLoop(t, loopDevice(t, size));
  const model = Buffer.alloc(size, 0xaa);
  await disk.write(0, model);
  for (const [offset, length, mayTrim] of [
    [1, 100, true],
    [4096, 4096, false],
    [10_000, 1_000_001, true],
    [2 * MiB + 3, 100_000, false],
    [size - 700, 700, true],
  ] as const) {
    await disk.zero(offset, length, mayTrim);
    model.fill(0, offset, offset + length);
  }
  await disk.write(3 * MiB + 1, Buffer.from('odd'));
  model.write('odd', 3 * MiB + 1);
  await disk.sync();
  const all = Buffer.alloc(size);
  await disk.read(0, all);
  assert.ok(all.equals(model));
});

test('a trim gives up whole blocks inside the range only', { skip }, async (t) => {
  const loop = loopDevice(t, 8 * MiB);
  const disk = await openLoop(t, loop);
  await disk.write(0, Buffer.alloc(8 * MiB, 1));
  await disk.sync();
  await disk.trim(1, 4 * MiB);
  await disk.sync();
  assert.ok(allocatedBytes(loop.file) < 5 * MiB);
  const edge = Buffer.alloc(1);
  await disk.read(0, edge);
  assert.equal(edge[0], 1);
  await disk.read(4 * MiB, edge);
  assert.equal(edge[0], 1, 'the last byte of the range lies in a block that is not wholly inside');
});

test('zeroing with permission to trim frees the blocks, without it keeps them', { skip }, async (t) => {
  const loop = loopDevice(t, 8 * MiB);
  const disk = await openLoop(t, loop);
  await disk.write(0, Buffer.alloc(8 * MiB, 1));
  await disk.sync();
  await disk.zero(0, 2 * MiB, false);
  await disk.sync();
  assert.ok(allocatedBytes(loop.file) >= 8 * MiB);
  await disk.zero(2 * MiB, 4 * MiB, true);
  await disk.sync();
  assert.ok(allocatedBytes(loop.file) <= 4 * MiB + 65_536);
});

test('a device that grows is larger after a second look; one that shrinks is unavailable', { skip }, async (t) => {
  const loop = loopDevice(t, MiB);
  const disk = await openLoop(t, loop);
  loop.resize(2 * MiB);
  assert.equal(await disk.refreshSize(), 2 * MiB);
  await disk.write(2 * MiB - 512, Buffer.alloc(512, 7));
  loop.resize(MiB);
  await assert.rejects(disk.read(2 * MiB - 512, Buffer.alloc(512)), { code: 'unavailable' });
});

test('a write-protected device is served read-only, and says so', { skip }, async (t) => {
  const loop = loopDevice(t, MiB, '--read-only');
  const events = new Channel<DiskEvent>();
  const seen: DiskEvent[] = [];
  events.subscribe((event) => seen.push(event));
  const disk = await openLoop(t, loop, events);
  assert.equal(disk.readOnly, true);
  assert.equal(seen.length, 1);
  await assert.rejects(disk.write(0, Buffer.alloc(512)), { code: 'read-only' });
});

test('a device without a medium is waited for', { skip }, async (t) => {
  const loop = loopDevice(t, 0);
  await assert.rejects(openDisk(loop.path, { readOnly: false, direct: false }), { code: 'unavailable' });
});

test('a change that is refused in the last moment changes nothing, however it would be made', { skip }, async (t) => {
  const disk = await openLoop(t, loopDevice(t, 4 * MiB));
  await disk.write(0, Buffer.alloc(4 * MiB, 1));
  const refusal = new Failure('deadline-passed');
  const check = () => {
    throw refusal;
  };
  await assert.rejects(disk.write(0, Buffer.alloc(512, 2), check), refusal);
  await assert.rejects(disk.zero(0, MiB, false, check), refusal);
  await assert.rejects(disk.zero(0, MiB, true, check), refusal);
  await assert.rejects(disk.zero(1, 512, true, check), refusal);
  await assert.rejects(disk.trim(0, MiB, check), refusal);
  const all = Buffer.alloc(4 * MiB);
  await disk.read(0, all);
  assert.ok(all.equals(Buffer.alloc(4 * MiB, 1)));
});

test('a DRBD device that could not be opened any more is given up, though it still reads', {
  skip,
}, async (t) => {
  const loop = loopDevice(t, MiB);
  const folder = mountTmpfs(t, MiB);
  const node = join(folder, 'device');
  const numbers = execFileSync('stat', ['--format', '%Hr %Lr', loop.path], { encoding: 'utf8' }).trim().split(' ');
  execFileSync('mknod', [node, 'b', ...numbers]);
  const geometry = { sizeBytes: MiB, readOnly: false, logicalBlockBytes: 512, physicalBlockBytes: 512 };
  const disk = new DeviceDisk(new Descriptor(openSync(node, constants.O_RDWR), 'drbd'), geometry, {
    zeroesFast: false,
  });
  t.after(() => disk.close());
  assert.equal(await disk.refreshSize(), MiB);
  // Stands for a forced demotion: what is open stays open, and opening it once more fails.
  execFileSync('mount', ['-o', 'remount,nodev', folder]);
  await disk.read(0, Buffer.alloc(512));
  await assert.rejects(disk.refreshSize(), {
    code: 'unavailable',
    message: /it could not be opened any more: EACCES/,
  });
});
