/** A disk that keeps its operations until somebody decides, as DRBD does with suspended I/O. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { settled } from '../../support/fake-clock.js';
import { SimulatedMedium } from '../../support/simulated-disk.js';
import { assertDone, assertFailed, Bench, isPending } from './harness.js';

const held = 'DRBD has suspended the I/O (fencing)';

/** A disk that says `state.reason` when it is asked whether it is suspended. */
async function started(limits = {}) {
  const state: { reason: string | undefined; asked: number } = { reason: undefined, asked: 0 };
  const suspension = async () => {
    state.asked++;
    return state.reason;
  };
  const bench = await Bench.started(limits, new SimulatedMedium(65_536, { suspension }));
  return { bench, state };
}

test('what a suspended disk keeps is answered after 250 ms, a write with an unknown outcome; what comes later, at once', async () => {
  const { bench, state } = await started();
  state.reason = held;
  bench.hold(() => true);
  const write = bench.write(0, 1, { stamp: bench.stamp(1) });
  const read = bench.read(512);
  const flush = bench.run({ op: 'flush' });
  await bench.clock.advance(249);
  assert.equal(await isPending(Promise.race([write, read, flush])), true);
  await bench.clock.advance(1);
  const outcome = await write;
  assertFailed(outcome, 'server-error');
  assert.equal(outcome.failure.row.outcome, 'unknown');
  assert.ok(outcome.stillRunning !== undefined && (await isPending(outcome.stillRunning)), 'its bytes stay in use');
  for (const looked of [(await read).outcome, await flush]) {
    assertFailed(looked, 'unavailable');
    assert.equal(looked.failure.message, held);
  }
  const later = await bench.write(0, 2, { stamp: bench.stamp(1) });
  assertFailed(later, 'unavailable');
  assert.match(later.failure.message, /suspended the I\/O \(fencing\)/);
  await assert.rejects(bench.server.probe(), { code: 'unavailable', message: /suspended the I\/O/ });
  await bench.clock.advance(5000);
  assert.equal(state.asked, 1);
  assert.deepEqual(bench.events.slice(1), [{ is: 'lost', reason: held }]);
});

test('a write whose sync is kept has an unknown outcome, too', async () => {
  const { bench, state } = await started();
  state.reason = held;
  bench.hold(({ op }) => op === 'sync');
  const write = bench.write(0, 1);
  await bench.clock.advance(250);
  assertFailed(await write, 'server-error');
});

test('what waits for its turn while the disk is suspended is refused, certainly not applied', async () => {
  const { bench, state } = await started({ slots: 1 });
  state.reason = held;
  const gate = bench.hold(({ op }) => op === 'write');
  const first = bench.write(0, 1, { stamp: bench.stamp(1) });
  const behindSlot = bench.write(4096, 2, { stamp: bench.stamp(1) });
  const behindEpoch = bench.write(0, 3, { stamp: bench.stamp(2) });
  await bench.clock.advance(1000);
  assertFailed(await first, 'server-error');
  assertFailed(await behindSlot, 'unavailable');
  assertFailed(await behindEpoch, 'unavailable');
  gate.open();
  await settled();
  assert.equal(bench.medium.begun.write, 1);
});

test('the disk is closed and opened as a new instance only when the last operation has come back', async () => {
  const { bench, state } = await started();
  state.reason = held;
  const before = bench.medium.before;
  const gates = [0, 4096].map((offset) =>
    bench.hold((operation) => operation.op === 'write' && operation.offset === offset),
  );
  const writes = [bench.write(0, 1, { stamp: bench.stamp(1) }), bench.write(4096, 1)];
  await bench.clock.advance(1000);
  for (const write of writes) assertFailed(await write, 'server-error');
  bench.medium.before = before;
  state.reason = undefined;
  gates[0]?.open();
  await bench.clock.advance(60_000);
  assert.deepEqual([bench.medium.begun.close, bench.medium.begun.open], [0, 1], 'one is in the kernel still');
  assertFailed(await bench.write(0, 2), 'unavailable');
  gates[1]?.open();
  await settled();
  assert.deepEqual([bench.medium.begun.close, bench.medium.begun.open], [1, 2]);
  assert.equal(bench.instance, 'i2');
  assertDone(await bench.write(0, 3, { stamp: bench.stamp(2) }));
  assert.equal(bench.medium.cached[0], 3, 'what was kept landed before');
  assert.deepEqual(
    bench.events.map((event) => event.is),
    ['opened', 'lost', 'opened'],
  );
});

test('of a long change that is kept, nothing more is applied when the disk goes on', async () => {
  const suspension = async () => held;
  const bench = await Bench.started({}, new SimulatedMedium(160 * 1024 * 1024, { suspension }));
  const gate = bench.hold(({ op }) => op === 'zero');
  const length = bench.medium.cached.length;
  const zero = bench.run({ op: 'zero', offset: 0, length, deferred: false, mayTrim: true, fast: false });
  await bench.clock.advance(1000);
  const outcome = await zero;
  assertFailed(outcome, 'server-error');
  gate.open();
  await outcome.stillRunning;
  assert.equal(bench.medium.begun.zero, 1);
});

test('while operations come back the disk is not asked', async () => {
  const { bench, state } = await started();
  let former: Promise<unknown> = Promise.resolve();
  for (let round = 0; round < 100; round++) {
    const gate = bench.hold(({ op }) => op === 'read');
    const read = bench.read(0);
    await bench.clock.advance(110);
    await former;
    former = read;
    gate.open();
  }
  await former;
  assert.equal(state.asked, 0);
});

test('a disk that is merely slow is asked less and less often, and goes on', async () => {
  const { bench, state } = await started();
  const gate = bench.hold(({ op }) => op === 'read');
  const slow = bench.read(0);
  const asked = [];
  for (const ms of [249, 1, 499, 1, 999, 1, 999, 1]) {
    await bench.clock.advance(ms);
    asked.push(state.asked);
  }
  assert.deepEqual(asked, [0, 1, 1, 2, 2, 3, 3, 4]);
  gate.open();
  assertDone((await slow).outcome);
  assert.equal(bench.instance, 'i1');
});

test('a disk each of whose operations is slow is asked about once a second, and soon again when it has not been slow for a while', async () => {
  const { bench, state } = await started();
  const slowRead = async (ms = 400) => {
    const gate = bench.hold(({ op }) => op === 'read');
    const read = bench.read(0);
    await bench.clock.advance(ms);
    gate.open();
    assertDone((await read).outcome);
  };
  for (let round = 0; round < 100; round++) await slowRead();
  assert.ok(state.asked >= 30 && state.asked <= 55, `asked ${state.asked} times in 40 s`);
  await bench.clock.advance(1000);
  const before = state.asked;
  await slowRead(800);
  assert.equal(state.asked, before + 2);
});

test('an operation in a stream of others is noticed within 375 ms', async () => {
  const { bench, state } = await started();
  const before = bench.medium.before;
  const gate = bench.hold(({ op }) => op === 'read');
  const first = bench.read(0);
  await bench.clock.advance(10);
  bench.hold(({ op }) => op === 'write');
  state.reason = held;
  const write = bench.write(0, 1);
  assert.equal(await isPending(write), true);
  bench.medium.before = before;
  gate.open();
  assertDone((await first).outcome);
  for (let round = 0; round < 15; round++) {
    if (!(await isPending(write))) break;
    assertDone((await bench.read(0)).outcome);
    await bench.clock.advance(25);
  }
  assert.equal(await isPending(write), false);
  assertFailed(await write, 'server-error');
});

test('an operation that came back while the disk was asked shows that it is not suspended any more', async () => {
  const medium = new SimulatedMedium(65_536, { suspension: () => answer });
  let tell: (reason: string) => void = () => {};
  const answer = new Promise<string>((resolve) => (tell = resolve));
  const bench = await Bench.started({}, medium);
  const gate = bench.hold(({ op }) => op === 'read');
  const read = bench.read(0);
  await bench.clock.advance(400);
  gate.open();
  assertDone((await read).outcome);
  tell(held);
  await settled();
  assert.equal(bench.instance, 'i1');
});

test('no timer remains when nothing is in progress, and there is none for a disk that cannot be suspended', async () => {
  const { bench } = await started();
  assertDone(await bench.write(0, 1));
  const timeLimit = 1;
  assert.equal(bench.clock.timers, 1 + timeLimit);
  await bench.clock.advance(125);
  assert.equal(bench.clock.timers, timeLimit);
  const other = await Bench.started();
  assertDone(await other.write(0, 1));
  assert.equal(other.clock.timers, timeLimit);
});

test('a probe tells at once of a disk that is suspended, though it keeps nothing', async () => {
  const { bench, state } = await started();
  state.reason = held;
  await bench.clock.advance(1000);
  assert.equal(state.asked, 0, 'not before somebody wants to know');
  await assert.rejects(bench.server.probe(), { code: 'unavailable', message: /suspended the I\/O/ });
  assert.deepEqual(bench.events.slice(1), [{ is: 'lost', reason: held }]);
  assert.equal(bench.medium.begun.close, 1, 'another host can have it');
  assertFailed(await bench.write(0, 1), 'unavailable');
});

test('a probe tells at once of a suspended disk, also if that keeps the size, and operations which are answered then', async () => {
  const { bench, state } = await started();
  await bench.clock.advance(1000);
  state.reason = held;
  bench.hold(() => true);
  const write = bench.write(0, 1);
  await assert.rejects(bench.server.probe(), { code: 'unavailable', message: /suspended the I\/O/ });
  assertFailed(await write, 'server-error');
  assert.equal(bench.medium.begun.close, 0);
});

test('probes ask a disk at most once a second, and not beside another question', async () => {
  const { bench, state } = await started();
  await bench.clock.advance(1000);
  for (let round = 0; round < 30; round++) {
    await Promise.all([bench.server.probe(), bench.server.probe()]);
    await bench.clock.advance(100);
  }
  assert.equal(state.asked, 3);
  let asked = 0;
  const suspension = () => {
    asked++;
    return new Promise<undefined>(() => {});
  };
  const mute = await Bench.started({}, new SimulatedMedium(65_536, { suspension }));
  await mute.clock.advance(1000);
  mute.hold(({ op }) => op === 'read');
  void mute.read(0);
  await mute.clock.advance(300);
  assert.equal(asked, 1);
  for (let round = 0; round < 5; round++) {
    const probe = mute.server.probe();
    await mute.clock.advance(999);
    assert.equal(await isPending(probe), true);
    await mute.clock.advance(1);
    assert.equal((await probe).instance, 'i1', 'nobody tells');
  }
  assert.equal(asked, 1);
});

test('what a probe has asked is told when it comes, though the probe is answered', async () => {
  let tell: (reason: string) => void = () => {};
  const answer = new Promise<string>((resolve) => (tell = resolve));
  const bench = await Bench.started({}, new SimulatedMedium(65_536, { suspension: () => answer }));
  await bench.clock.advance(1000);
  const probe = bench.server.probe();
  await bench.clock.advance(1000);
  assert.equal((await probe).instance, 'i1');
  tell(held);
  await settled();
  assert.deepEqual(bench.events[1], { is: 'lost', reason: held });
});

test('a stop while the disk is suspended says what has not come back', async () => {
  const { bench, state } = await started();
  state.reason = held;
  bench.hold(({ op }) => op === 'read');
  const read = bench.read(0);
  await bench.clock.advance(1000);
  assertFailed((await read).outcome, 'unavailable');
  const stopped = bench.server.stop();
  await bench.clock.advance(2000);
  assert.deepEqual(await stopped, { unfinished: 1, closed: false });
});
