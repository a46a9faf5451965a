import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { SizeWatch } from '../../../src/cli/size-watch.js';
import { FakeClock } from '../../support/fake-clock.js';

function watched() {
  const clock = new FakeClock();
  const lines: string[] = [];
  const devices: number[] = [];
  const disk: { bytes: number | undefined } = { bytes: 1000 };
  const volume = {
    sizeBytes: 1000,
    measure: () => Promise.resolve(disk.bytes),
    grow: (sizeBytes: number) => void (volume.sizeBytes = sizeBytes),
  };
  const kernel: { refuses: boolean } = { refuses: false };
  const growDevice = (sizeBytes: number) => {
    devices.push(sizeBytes);
    return kernel.refuses ? Promise.reject(new Failure('unavailable', 'EIO')) : Promise.resolve();
  };
  const watch = new SizeWatch(volume, clock, (line) => void lines.push(line), growDevice);
  return { clock, lines, devices, disk, volume, kernel, watch };
}

test('a disk that grows makes volume and device grow', async () => {
  const { clock, lines, devices, disk, volume } = watched();
  await clock.advance(5000);
  assert.deepEqual([lines, volume.sizeBytes], [[], 1000]);
  disk.bytes = 2000;
  await clock.advance(5000);
  assert.deepEqual([lines, volume.sizeBytes, devices.at(-1)], [['Device size: 2000.'], 2000, 2000]);
});

test('a disk that shrinks is told once, and nothing shrinks', async () => {
  const { clock, lines, devices, disk, volume } = watched();
  disk.bytes = 500;
  await clock.advance(30_000);
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /shrunk to 500 bytes.*1000/);
  assert.equal(volume.sizeBytes, 1000);
  assert.ok(devices.every((sizeBytes) => sizeBytes === 1000));
});

test('a kernel that refuses is asked again', async () => {
  const { clock, lines, devices, disk, kernel } = watched();
  disk.bytes = 2000;
  kernel.refuses = true;
  await clock.advance(5000);
  assert.match(lines.at(-1) ?? '', /does not grow: EIO/);
  kernel.refuses = false;
  await clock.advance(5000);
  assert.equal(devices.filter((sizeBytes) => sizeBytes === 2000).length, 2);
});

test('a server that does not answer changes nothing; an ended watch asks no more', async () => {
  const { clock, lines, devices, disk, watch } = watched();
  disk.bytes = undefined;
  await clock.advance(10_000);
  assert.deepEqual([lines, devices], [[], []]);
  await watch.end();
  assert.equal(clock.timers, 0);
});

test('an end waits for what is being done to the device', async () => {
  const clock = new FakeClock();
  let done = () => {};
  const growing = new Promise<void>((resolve) => (done = resolve));
  const volume = { sizeBytes: 1, measure: () => Promise.resolve(2), grow: () => {} };
  const watch = new SizeWatch(
    volume,
    clock,
    () => {},
    () => growing,
  );
  await clock.advance(5000);
  let ended = false;
  const end = watch.end().then(() => (ended = true));
  await clock.advance(5000);
  assert.equal(ended, false);
  done();
  await end;
});
