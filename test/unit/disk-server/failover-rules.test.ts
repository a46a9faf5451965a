/** The server's rules of the failover protocol, S1 to S7, each by its name. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure, type FailureCode } from '../../../src/base/failure.js';
import type { WriteStamp } from '../../../src/http-disk/messages.js';
import { settled } from '../../support/fake-clock.js';
import { Gate } from '../../support/gate.js';
import { assertDone, assertFailed, Bench, isPending } from './harness.js';

const eio = new Failure('disk-error', 'EIO');

test('S1: a write of a lower epoch than its session has shown is refused', async () => {
  const bench = await Bench.started();
  assertDone(await bench.write(0, 1, { stamp: bench.stamp(5) }));
  const refused = await bench.write(0, 2, { stamp: bench.stamp(4) });
  assertFailed(refused, 'stale-epoch');
  assert.deepEqual(refused.answer, { instance: 'i1', clockMs: bench.clock.nowMs() });
  const older = { epoch: { generation: 0, counter: 99 } };
  assertFailed(await bench.write(0, 2, { stamp: bench.stamp(0, older) }), 'stale-epoch');
  assertDone(await bench.write(0, 3, { stamp: bench.stamp(5) }));
  assertDone(await bench.write(0, 4, { stamp: bench.stamp(1, { session: 'other' }) }));
});

test('S1: a write is refused by another instance, and after or too far before its deadline', async () => {
  const bench = await Bench.started();
  const now = bench.clock.nowMs();
  const cases: [Partial<WriteStamp>, FailureCode | undefined][] = [
    [{ instance: 'i0' }, 'other-instance'],
    [{ deadlineMs: now }, 'deadline-passed'],
    [{ deadlineMs: now - 1 }, 'deadline-passed'],
    [{ deadlineMs: now + 60_001 }, 'deadline-passed'],
    [{ deadlineMs: now + 60_000 }, undefined],
    [{ deadlineMs: now + 1 }, undefined],
  ];
  for (const [fields, code] of cases) {
    const outcome = await bench.write(0, 1, { stamp: bench.stamp(1, fields) });
    if (code === undefined) assertDone(outcome);
    else assertFailed(outcome, code);
  }
  assert.equal(bench.medium.begun.write, 2);
});

test('S1: what waited for a slot is checked again immediately before it is applied', async () => {
  const bench = await Bench.started({ slots: 1 });
  const gate = bench.hold(({ op }) => op === 'read');
  void bench.read(0);
  const late = bench.write(0, 1, { stamp: bench.stamp(1, { deadlineMs: bench.clock.nowMs() + 100 }) });
  const stale = bench.write(0, 2, { stamp: bench.stamp(2, { session: 'x' }) });
  const fresh = bench.write(0, 3, { stamp: bench.stamp(3, { session: 'x' }) });
  await bench.clock.advance(100);
  gate.open();
  assertFailed(await late, 'deadline-passed');
  assertFailed(await stale, 'stale-epoch');
  assertDone(await fresh);
  assert.equal(bench.medium.begun.write, 1);
});

test('S1: what the disk itself let wait is checked again immediately before it is applied', async () => {
  const bench = await Bench.started();
  const gate = new Gate();
  bench.medium.beforeCheck = () => gate.passed;
  const late = bench.write(0, 1, { stamp: bench.stamp(1, { deadlineMs: bench.clock.nowMs() + 100 }) });
  const stale = bench.write(0, 2, { stamp: bench.stamp(2, { session: 'x' }) });
  const fresh = bench.write(0, 3, { stamp: bench.stamp(3, { session: 'x' }) });
  const plain = bench.write(512, 4);
  await bench.clock.advance(100);
  gate.open();
  const refused = await late;
  assertFailed(refused, 'deadline-passed');
  assert.equal(refused.failure.row.outcome, 'not-applied');
  assertFailed(await stale, 'stale-epoch');
  assertDone(await fresh);
  assertDone(await plain);
  assert.equal(bench.medium.begun.write, 2);
});

test('S2: a write of a higher epoch starts only when those of lower ones have ended', async () => {
  const bench = await Bench.started();
  const gate = bench.hold(({ op, offset }) => op === 'write' && offset === 0);
  const older = bench.write(0, 1, { stamp: bench.stamp(1), deferred: true });
  const newer = bench.write(0, 2, { stamp: bench.stamp(2), deferred: true, length: 513 });
  const elsewhere = bench.write(1024, 3, { stamp: bench.stamp(1, { session: 'other' }) });
  assertDone(await elsewhere);
  assert.equal(await isPending(newer), true);
  assert.equal(bench.medium.begun.write, 2);
  gate.open();
  assertDone(await older);
  assertDone(await newer);
  assert.equal(bench.medium.cached[0], 2);
});

test('S2: what waits for an older write that is stuck is refused in time, and never starts', async () => {
  const bench = await Bench.started({ operationMs: 1000 });
  const gate = bench.hold(({ op }) => op === 'write');
  const older = bench.write(0, 1, { stamp: bench.stamp(1) });
  await bench.clock.advance(500);
  const newer = bench.write(0, 2, { stamp: bench.stamp(2) });
  await bench.clock.advance(1000);
  assertFailed(await older, 'timed-out');
  assertFailed(await newer, 'unavailable');
  gate.open();
  await settled();
  assert.equal(bench.medium.begun.write, 1);
});

test('S3: a session is forgotten only Dmax after its last request, and none is evicted before', async () => {
  const bench = await Bench.started({ sessionsMax: 2 });
  const of = (session: string, counter: number) => ({ stamp: bench.stamp(counter, { session }) });
  assertDone(await bench.write(0, 1, of('a', 9)));
  await bench.clock.advance(30_000);
  assertDone(await bench.write(0, 1, of('b', 9)));
  assertFailed(await bench.write(0, 1, of('c', 1)), 'unavailable');
  assertFailed(await bench.write(0, 1, of('a', 8)), 'stale-epoch');
  await bench.clock.advance(60_000);
  assertFailed(await bench.write(0, 1, of('a', 8)), 'stale-epoch');
  assertFailed(await bench.write(0, 1, of('c', 1)), 'unavailable');
  await bench.clock.advance(1);
  assertDone(await bench.write(0, 1, of('c', 1)));
  assertFailed(await bench.write(0, 1, of('b', 1)), 'unavailable');
});

test('S5: after a failed sync nobody is told durable, and a new instance begins', async () => {
  const bench = await Bench.started();
  const gate = bench.hold(({ op }) => op === 'sync');
  const covered = bench.write(0, 1);
  await settled();
  const next = bench.write(512, 2);
  const flush = bench.run({ op: 'flush', instance: 'i1' });
  await settled();
  bench.medium.before = () => undefined;
  bench.failNext('sync', eio);
  gate.open();
  assertDone(await covered);
  assertFailed(await next, 'disk-error');
  assertFailed(await flush, 'disk-error');
  await settled();
  assert.equal(bench.instance, 'i2');
  assertFailed(await bench.run({ op: 'flush', instance: 'i1' }), 'other-instance');
  assertDone(await bench.write(512, 3));
  assert.equal(bench.medium.durable[512], 3);
  assert.deepEqual(
    bench.events.map((event) => event.is),
    ['opened', 'sync-failed', 'opened'],
  );
});

test('S5: a failed sync fails those, too, that wait for the next one', async () => {
  const bench = await Bench.started();
  const gate = new Gate();
  bench.medium.before = ({ op }) => (op === 'sync' ? gate.passed.then(() => Promise.reject(eio)) : undefined);
  const covered = bench.write(0, 1);
  await settled();
  const next = bench.write(512, 2);
  await settled();
  gate.open();
  assertFailed(await covered, 'disk-error');
  assertFailed(await next, 'disk-error');
  assert.equal(bench.medium.begun.sync, 1);
});

test('S5: a failed sync lets writes in progress finish, with the instance of their check, before the next instance', async () => {
  const bench = await Bench.started({ slots: 2 });
  const gate = bench.hold(({ op, offset }) => op === 'write' && offset === 512);
  const inProgress = bench.write(512, 1, { stamp: bench.stamp(1), deferred: true });
  const waitsForSync = bench.write(1024, 1, { stamp: bench.stamp(1) });
  bench.failNext('sync', eio);
  assertFailed(await waitsForSync, 'disk-error');
  await settled();
  assert.equal(bench.server.disk, undefined);
  assertFailed(await bench.write(0, 1), 'unavailable');
  assert.equal(bench.medium.begun.close, 0);
  gate.open();
  const outcome = await inProgress;
  assertDone(outcome);
  assert.equal(outcome.answer.instance, 'i1');
  await settled();
  assert.equal(bench.instance, 'i2');
});

test('S5: a write that ends after the failed sync is not made durable by a later one', async () => {
  const bench = await Bench.started();
  const gate = bench.hold(({ op, offset }) => op === 'write' && offset === 512);
  const inProgress = bench.write(512, 1);
  bench.failNext('sync', eio);
  assertFailed(await bench.write(1024, 1), 'disk-error');
  gate.open();
  assertFailed(await inProgress, 'disk-error');
  assert.equal(bench.medium.begun.sync, 1);
});

test('S6: a stop refuses everything new, lets what runs finish, then closes the disk', async () => {
  const bench = await Bench.started({ slots: 1 });
  const gate = bench.hold(({ op }) => op === 'write');
  const inProgress = bench.write(0, 1);
  const waiting = bench.write(512, 1);
  await settled();
  const stopped = bench.server.stop();
  assertFailed(await bench.write(0, 2), 'unavailable');
  assertFailed(await waiting, 'unavailable');
  assert.equal(await isPending(stopped), true);
  assert.equal(bench.medium.begun.close, 0);
  gate.open();
  assertDone(await inProgress);
  assert.deepEqual(await stopped, { unfinished: 0, closed: true });
  assert.equal(bench.medium.begun.close, 1);
  assert.equal(bench.medium.durable[0], 1);
});

test('S6: a stop waits 2 s for what is stuck, and no longer', async () => {
  const bench = await Bench.started();
  bench.hold(({ op }) => op === 'write');
  void bench.write(0, 1);
  await settled();
  const stopped = bench.server.stop();
  await bench.clock.advance(1999);
  assert.equal(bench.medium.begun.close, 0);
  await bench.clock.advance(1);
  assert.deepEqual(await stopped, { unfinished: 1, closed: false });
  assert.equal(bench.medium.begun.close, 1);
});

test('S7: reads, maps and flushes that name another instance are refused', async () => {
  const bench = await Bench.started();
  const { outcome } = await bench.read(0, 512, 'i0');
  assertFailed(outcome, 'other-instance');
  assert.deepEqual(outcome.answer, { instance: 'i1', clockMs: bench.clock.nowMs() });
  assertFailed(await bench.run({ op: 'flush', instance: 'i0' }), 'other-instance');
  assertFailed(await bench.run({ op: 'map', offset: 0, length: 512, instance: 'i0' }), 'other-instance');
  assertDone((await bench.read(0, 512, 'i1')).outcome);
});
