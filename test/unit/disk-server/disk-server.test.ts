/** The core's requests: data, durability, bounds and time limits. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { settled } from '../../support/fake-clock.js';
import { SimulatedMedium } from '../../support/simulated-disk.js';
import { assertDone, assertFailed, Bench, isPending } from './harness.js';

test('what was written is read, and is durable', async () => {
  const bench = await Bench.started();
  assertDone(await bench.write(512, 7));
  const { outcome, data } = await bench.read(512);
  assertDone(outcome);
  assert.deepEqual(data, Buffer.alloc(512, 7));
  assert.deepEqual(bench.medium.durable.subarray(512, 1024), data);
});

test('a read that needs no waiting has its outcome without a promise', async () => {
  const bench = await Bench.started({}, new SimulatedMedium(65_536, { readsNow: true }));
  const outcome = bench.server.execute({ op: 'read', offset: 0, length: 512 }, undefined, Buffer.alloc(512));
  assert.ok(!(outcome instanceof Promise));
  assertDone(outcome);
  assert.equal(bench.medium.begun.read, 0);
});

test('a long read takes a thread even if its data is at hand', async () => {
  const bench = await Bench.started({ readNowBytesMax: 4096 }, new SimulatedMedium(65_536, { readsNow: true }));
  assertDone((await bench.read(0, 8192)).outcome);
  assert.equal(bench.medium.begun.read, 1);
});

test('zero and trim are applied and durable', async () => {
  const bench = await Bench.started();
  for (const op of ['zero', 'trim'] as const) {
    await bench.write(0, 9, { length: 2048 });
    const how = { offset: 512, length: 512, deferred: false };
    assertDone(await bench.run(op === 'zero' ? { op, ...how, mayTrim: false, fast: true } : { op, ...how }));
    assert.deepEqual(bench.medium.durable.subarray(512, 1024), Buffer.alloc(512), op);
    assert.equal(bench.medium.durable[1024], 9);
  }
});

test('a long zero is applied in pieces, and one that is cut short says that its outcome is unknown', async () => {
  const medium = new SimulatedMedium(160 * 1024 * 1024);
  const bench = await Bench.started({}, medium);
  const request = {
    op: 'zero',
    offset: 0,
    length: medium.cached.length,
    deferred: false,
    mayTrim: true,
    fast: false,
  } as const;
  assertDone(await bench.run({ ...request }));
  assert.equal(medium.begun.zero, 3);
  const gate = bench.hold(({ op, offset }) => op === 'zero' && offset > 0);
  const zero = bench.run({ ...request, stamp: bench.stamp(1) });
  await settled();
  void bench.write(0, 1, { stamp: bench.stamp(2) });
  gate.open();
  assertFailed(await zero, 'server-error');
});

test('a long zero whose time is over is not continued', async () => {
  const medium = new SimulatedMedium(160 * 1024 * 1024);
  const bench = await Bench.started({ operationMs: 1000 }, medium);
  const gate = bench.hold(({ op }) => op === 'zero');
  const how = { offset: 0, length: medium.cached.length, deferred: false, mayTrim: true, fast: false };
  const zero = bench.run({ op: 'zero', ...how });
  await bench.clock.advance(1000);
  const outcome = await zero;
  assertFailed(outcome, 'timed-out');
  gate.open();
  await outcome.stillRunning;
  assert.equal(medium.begun.zero, 1);
});

test('fast zeroes are refused where they would have to be written', async () => {
  const bench = await Bench.started({}, new SimulatedMedium(4096, { zeroesFast: false }));
  const zero = { op: 'zero', offset: 0, length: 512, deferred: false, mayTrim: false } as const;
  assertFailed(await bench.run({ ...zero, fast: true }), 'unsupported');
  assertDone(await bench.run({ ...zero, fast: false }));
  assert.ok(!(await bench.server.probe()).features.has('fast-zero'));
});

test('a map tells what is allocated', async () => {
  const bench = await Bench.started();
  await bench.write(512, 1);
  const outcome = await bench.run({ op: 'map', offset: 0, length: 2048 });
  assertDone(outcome);
  assert.deepEqual(outcome.answer.extents, [
    { offset: 0, length: 512, kind: 'hole' },
    { offset: 512, length: 512, kind: 'data' },
    { offset: 1024, length: 1024, kind: 'hole' },
  ]);
});

test('ranges outside the disk are refused', async () => {
  const bench = await Bench.started();
  assertFailed((await bench.read(65_536 - 511)).outcome, 'out-of-range');
  assertFailed(await bench.write(Number.MAX_SAFE_INTEGER, 1), 'out-of-range');
  assertFailed(await bench.run({ op: 'map', offset: 65_536, length: 1 }), 'out-of-range');
  assert.equal(bench.medium.begun.write, 0);
});

test('a read-only disk is read, and never changed', async () => {
  const bench = await Bench.started({}, new SimulatedMedium(4096, { readOnly: true }));
  assertDone((await bench.read(0)).outcome);
  assertFailed(await bench.write(0, 1), 'read-only');
  assertDone(await bench.run({ op: 'flush' }));
  const { readOnly, features } = await bench.server.probe();
  assert.equal(readOnly, true);
  assert.ok(!features.has('trim') && !features.has('zero'));
});

test('S4: concurrent writes share syncs, and none is answered by a sync that started before it was written', async () => {
  const bench = await Bench.started();
  const gate = bench.hold(({ op }) => op === 'sync');
  const first = bench.write(0, 1);
  await settled();
  assert.equal(bench.medium.begun.sync, 1);
  const others = [1, 2, 3].map((index) => bench.write(index * 512, 2));
  await settled();
  const second = bench.hold(({ op }) => op === 'sync');
  gate.open();
  assertDone(await first);
  for (const other of others) assert.equal(await isPending(other), true);
  second.open();
  for (const outcome of await Promise.all(others)) assertDone(outcome);
  assert.equal(bench.medium.begun.sync, 2);
  assert.equal(bench.medium.unsyncedWrites, 0);
});

test('a deferred write is answered before it is durable, and a flush makes it durable', async () => {
  const bench = await Bench.started();
  const outcome = await bench.write(0, 5, { stamp: bench.stamp(1), deferred: true });
  assertDone(outcome);
  assert.equal(outcome.answer.instance, 'i1');
  assert.equal(bench.medium.durable[0], 0);
  assertDone(await bench.run({ op: 'flush', instance: 'i1' }));
  assert.equal(bench.medium.durable[0], 5);
});

test('only as many operations run as there are slots, in the order of their arrival', async () => {
  const bench = await Bench.started({ slots: 2 });
  const gate = bench.hold(({ op }) => op === 'read');
  const reads = [0, 1, 2, 3].map((index) => bench.read(index * 512));
  await settled();
  assert.equal(bench.medium.begun.read, 2);
  assert.deepEqual(bench.server.load, { running: 2, waiting: 2 });
  gate.open();
  for (const { outcome } of await Promise.all(reads)) assertDone(outcome);
  assert.equal(bench.medium.begun.read, 4);
  await settled();
  assert.deepEqual(bench.server.load, { running: 0, waiting: 0 });
});

test('a stuck write is answered in time with an unknown outcome, and its bytes stay in use', async () => {
  const bench = await Bench.started({ operationMs: 1000 });
  const gate = bench.hold(({ op }) => op === 'write');
  const write = bench.write(0, 1);
  await bench.clock.advance(1000);
  const outcome = await write;
  assertFailed(outcome, 'timed-out');
  assert.equal(outcome.failure.row.outcome, 'unknown');
  assert.ok(outcome.stillRunning !== undefined && (await isPending(outcome.stillRunning)));
  gate.open();
  await outcome.stillRunning;
});

test('plain changes that overlap are applied in the order of their arrival, also after the first was given up', async () => {
  const bench = await Bench.started({ operationMs: 1000 });
  const before = bench.medium.before;
  const gate = bench.hold(({ op }) => op === 'write');
  const first = bench.write(0, 1);
  await bench.clock.advance(600);
  bench.medium.before = before;
  const second = bench.write(256, 2);
  const zero = bench.run({ op: 'zero', offset: 512, length: 512, deferred: false, mayTrim: false, fast: false });
  assertDone(await bench.write(4096, 3));
  assertDone(await bench.write(0, 4, { stamp: bench.stamp(1) }));
  await bench.clock.advance(400);
  assertFailed(await first, 'timed-out');
  assert.ok(await isPending(second), 'the first one may still be applied');
  assert.equal(bench.medium.begun.write, 3);
  assert.equal(bench.medium.begun.zero, 0);
  gate.open();
  assertDone(await second);
  assertDone(await zero);
  assert.deepEqual((await bench.read(256, 512)).data, Buffer.concat([Buffer.alloc(256, 2), Buffer.alloc(256)]));
});

test('a plain change that has waited too long is never applied, and holds up nobody for ever', async () => {
  const bench = await Bench.started({ operationMs: 1000 });
  const before = bench.medium.before;
  const gate = bench.hold(({ op }) => op === 'write');
  void bench.write(0, 1, { length: 1024 });
  await settled();
  bench.medium.before = before;
  const second = bench.write(512, 2, { length: 1024 });
  await bench.clock.advance(500);
  const third = bench.write(1024, 3);
  await bench.clock.advance(500);
  assertFailed(await second, 'unavailable');
  gate.open();
  assertDone(await third);
  assertDone(await bench.write(512, 4));
  assert.equal(bench.medium.begun.write, 3);
});

test('what waits behind stuck operations is answered in time, certainly not applied, and never starts', async () => {
  const bench = await Bench.started({ operationMs: 1000, slots: 1 });
  const gate = bench.hold(({ op }) => op === 'read');
  const stuck = bench.read(0);
  const waiting = bench.write(0, 1);
  await bench.clock.advance(1000);
  const { outcome } = await stuck;
  assertFailed(outcome, 'unavailable');
  const refused = await waiting;
  assertFailed(refused, 'unavailable');
  assert.deepEqual(bench.server.load, { running: 1, waiting: 0 });
  assert.equal(refused.stillRunning, undefined);
  gate.open();
  await outcome.stillRunning;
  await settled();
  assert.equal(bench.medium.begun.write, 0);
  assertDone(await bench.write(0, 2));
});

test('a stuck sync leaves the outcome unknown', async () => {
  const bench = await Bench.started({ operationMs: 1000 });
  bench.hold(({ op }) => op === 'sync');
  const write = bench.write(0, 1);
  await bench.clock.advance(1000);
  assertFailed(await write, 'timed-out');
});

test('beyond the bound, what would have to wait is refused', async () => {
  const bench = await Bench.started({ slots: 1, waitingMax: 2 });
  const gate = bench.hold(({ op }) => op === 'read');
  const reads = [0, 1, 2].map(() => bench.read(0));
  await settled();
  assertFailed((await bench.read(0)).outcome, 'unavailable');
  gate.open();
  for (const { outcome } of await Promise.all(reads)) assertDone(outcome);
});

test('no timer is left behind by what has ended', async () => {
  const bench = await Bench.started({ slots: 1, operationMs: 1000 });
  await Promise.all([bench.write(0, 1), bench.read(0), bench.run({ op: 'flush' }), bench.read(99_999)]);
  // The one of the time limit runs out by itself.
  assert.equal(bench.clock.timers, 1);
  await bench.clock.advance(1000);
  assert.equal(bench.clock.timers, 0);
});

test('a probe tells the size of now, but looks at most once a second', async () => {
  const bench = await Bench.started();
  bench.medium.resize(131_072);
  assert.equal((await bench.server.probe()).sizeBytes, 65_536);
  await bench.clock.advance(1000);
  assert.equal((await bench.server.probe()).sizeBytes, 131_072);
  await bench.server.probe();
  assert.equal(bench.medium.begun.size, 1);
});

test('a probe of a disk that does not answer tells the size of before', async () => {
  const bench = await Bench.started();
  bench.hold(({ op }) => op === 'size');
  await bench.clock.advance(1000);
  const probe = bench.server.probe();
  await bench.clock.advance(1000);
  assert.equal((await probe).sizeBytes, 65_536);
});

test('errors of the disk are told as they are', async () => {
  const bench = await Bench.started();
  bench.failNext('write', new Failure('no-space', 'write: ENOSPC'));
  assertFailed(await bench.write(0, 1), 'no-space');
  bench.failNext('read', new Failure('disk-error', 'read: EIO'));
  assertFailed((await bench.read(0)).outcome, 'disk-error');
  assertDone(await bench.write(0, 1));
  assert.equal(bench.instance, 'i1');
});
