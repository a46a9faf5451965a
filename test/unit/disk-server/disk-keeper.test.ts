/** The life cycle of the disk behind the core. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { settled } from '../../support/fake-clock.js';
import { assertDone, assertFailed, Bench, isPending } from './harness.js';

const gone = new Failure('unavailable', 'No such device');

/** The disk cannot be opened until further notice. */
function refuseOpen(bench: Bench, failure: Failure): void {
  bench.medium.before = ({ op }) => (op === 'open' ? Promise.reject(failure) : undefined);
}

test('a disk that cannot be opened is tried every second; meanwhile clients are told why', async () => {
  const bench = new Bench();
  refuseOpen(bench, new Failure('unavailable', 'a peer is Primary'));
  await bench.server.start();
  const { outcome } = await bench.read(0);
  assertFailed(outcome, 'unavailable');
  assert.match(outcome.failure.message, /a peer is Primary/);
  await assert.rejects(bench.server.probe(), { code: 'unavailable' });
  await bench.clock.advance(3000);
  assert.equal(bench.medium.begun.open, 4);
  bench.medium.before = () => undefined;
  await bench.clock.advance(1000);
  assertDone(await bench.write(0, 1));
  assert.deepEqual(
    bench.events.map((event) => event.is),
    ['waiting', 'opened'],
  );
});

test('a new reason is told once, too', async () => {
  const bench = new Bench();
  refuseOpen(bench, gone);
  await bench.server.start();
  await bench.clock.advance(2000);
  refuseOpen(bench, new Failure('unavailable', 'busy'));
  await bench.clock.advance(2000);
  assert.deepEqual(bench.events, [
    { is: 'waiting', reason: 'No such device' },
    { is: 'waiting', reason: 'busy' },
  ]);
});

test('the start does not wait for ever for an open that hangs', async () => {
  const bench = new Bench({ firstAttemptMs: 8000 });
  const gate = bench.hold(({ op }) => op === 'open');
  const started = bench.server.start();
  await bench.clock.advance(7999);
  assert.equal(await isPending(started), true);
  await bench.clock.advance(1);
  await started;
  assertFailed(await bench.write(0, 1), 'unavailable');
  gate.open();
  await settled();
  assertDone(await bench.write(0, 1));
});

test('a disk that goes away is closed, and comes back as a new instance', async () => {
  const bench = await Bench.started();
  refuseOpen(bench, gone);
  bench.failNext('read', gone);
  assertFailed((await bench.read(0)).outcome, 'unavailable');
  await settled();
  assert.equal(bench.medium.begun.close, 1);
  assertFailed(await bench.write(0, 1), 'unavailable');
  bench.medium.before = () => undefined;
  await bench.clock.advance(1000);
  assertDone(await bench.write(0, 1));
  assert.equal(bench.instance, 'i2');
  assert.deepEqual(
    bench.events.map((event) => event.is),
    ['opened', 'lost', 'waiting', 'opened'],
  );
});

test('a write during which the disk goes away has an unknown outcome', async () => {
  const bench = await Bench.started();
  bench.failNext('write', gone);
  assertFailed(await bench.write(0, 1), 'server-error');
  await settled();
  assert.equal(bench.instance, 'i2');
});

test('a sync during which the disk goes away has an unknown outcome', async () => {
  const bench = await Bench.started();
  bench.failNext('sync', gone);
  assertFailed(await bench.write(0, 1), 'server-error');
});

test('what waits when the disk goes away is refused, certainly not applied', async () => {
  const bench = await Bench.started({ slots: 1 });
  const gate = bench.hold(({ op }) => op === 'read');
  const read = bench.read(0);
  await settled();
  const waiting = bench.write(0, 1);
  bench.medium.before = () => gate.passed.then(() => Promise.reject(gone));
  const second = bench.read(512);
  bench.failNext('size', gone);
  await bench.clock.advance(1000);
  await assert.rejects(bench.server.probe(), { code: 'unavailable' });
  assertFailed(await waiting, 'unavailable');
  assertFailed((await second).outcome, 'unavailable');
  gate.open();
  assertDone((await read).outcome);
  assert.equal(bench.medium.begun.write, 0);
});

test('the disk is not opened again before it has been closed', async () => {
  const bench = await Bench.started();
  const gate = bench.hold(({ op }) => op === 'close');
  bench.failNext('read', gone);
  await bench.read(0);
  await settled();
  assert.equal(bench.medium.begun.open, 1);
  gate.open();
  await settled();
  assert.equal(bench.medium.begun.open, 2);
});

test('a disk that opens well and fails again and again is opened once a second, not in a loop', async () => {
  const bench = await Bench.started();
  for (let failures = 0; failures < 5; failures++) {
    bench.failNext('read', gone);
    await bench.read(0);
    await settled();
  }
  assert.equal(bench.medium.begun.open, 2, 'the first time at once');
  const { outcome } = await bench.read(0);
  assertFailed(outcome, 'unavailable');
  assert.match(outcome.failure.message, /No such device/);
  bench.medium.before = () => undefined;
  await bench.clock.advance(1000);
  assert.equal(bench.medium.begun.open, 3);
  assertDone((await bench.read(0)).outcome);
});

test('an open that does not come back is told once, and what clients are told', async () => {
  const bench = new Bench({ slowOpenMs: 5000 });
  const gate = bench.hold(({ op }) => op === 'open');
  void bench.server.start();
  await bench.clock.advance(4999);
  assert.deepEqual(bench.events, []);
  await bench.clock.advance(60_000);
  assert.deepEqual(bench.events, [{ is: 'waiting', reason: 'the kernel has not opened it yet' }]);
  const { outcome } = await bench.read(0);
  assertFailed(outcome, 'unavailable');
  assert.match(outcome.failure.message, /the kernel has not opened it yet/);
  gate.open();
  await settled();
  assertDone(await bench.write(0, 1));
});

test('a stop while the disk cannot be opened is over at once, and ends the attempts', async () => {
  const bench = new Bench();
  refuseOpen(bench, gone);
  await bench.server.start();
  await bench.server.stop();
  await bench.clock.advance(5000);
  assert.equal(bench.medium.begun.open, 1);
});

test('a stop does not wait for an open that hangs; if that succeeds later, the disk is closed at once', async () => {
  const bench = new Bench();
  const gate = bench.hold(({ op }) => op === 'open');
  const started = bench.server.start();
  await bench.server.stop();
  await started;
  gate.open();
  await settled();
  assert.equal(bench.medium.begun.close, 1);
  assert.equal(bench.server.disk, undefined);
});

test('a stop does not wait for ever for a close that hangs', async () => {
  const bench = await Bench.started({ closeWaitMs: 3000 });
  bench.hold(({ op }) => op === 'close');
  const stopped = bench.server.stop();
  await bench.clock.advance(2999);
  assert.equal(await isPending(stopped), true);
  await bench.clock.advance(1);
  assert.deepEqual(await stopped, { unfinished: 0, closed: false });
});

test('a second stop is the first one', async () => {
  const bench = await Bench.started();
  assert.deepEqual(await Promise.all([bench.server.stop(), bench.server.stop()]), [
    { unfinished: 0, closed: true },
    { unfinished: 0, closed: true },
  ]);
  assert.equal(bench.medium.begun.close, 1);
});
