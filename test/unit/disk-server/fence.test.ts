/** Rule S8: when the kernel is told to kill a process that does not run. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { killAfterMs } from '../../../src/disk-server/fence.js';
import { SimulatedMedium } from '../../support/simulated-disk.js';
import { assertDone, assertFailed, Bench } from './harness.js';

const deadlineAheadMs = 3000;

async function benchWithStuckWrites(): Promise<{ bench: Bench; release: () => void }> {
  const bench = await Bench.started();
  const gate = bench.hold(({ op }) => op === 'write');
  return { bench, release: () => gate.open() };
}

function writeUntil(bench: Bench, deadlineMs: number): Promise<unknown> {
  return bench.write(0, 1, { stamp: bench.stamp(1, { deadlineMs }), deferred: true });
}

test('S8: while a write may not have begun, the process is killed soon after its deadline, unless it runs', async () => {
  const { bench, release } = await benchWithStuckWrites();
  const deadlineMs = bench.clock.nowMs() + deadlineAheadMs;
  const write = writeUntil(bench, deadlineMs);
  assert.equal(bench.killAtMs, deadlineMs + killAfterMs);
  await bench.clock.advance(199);
  assert.equal(bench.killAtMs, deadlineMs + killAfterMs);
  release();
  await write;
  await bench.clock.advance(1);
  assert.equal(bench.killAtMs, undefined);
  assert.equal(bench.clock.timers, 1, 'only the one of the time limit');
});

test('S8: a write whose deadline is over when the timer has been set is not begun', async () => {
  const bench = await Bench.started();
  // The process was stopped between the check and the timer.
  bench.whenKillTimerIsSet = () => bench.clock.skip(deadlineAheadMs);
  const late = await bench.write(0, 1, {
    stamp: bench.stamp(1, { deadlineMs: bench.clock.nowMs() + deadlineAheadMs }),
  });
  assertFailed(late, 'deadline-passed');
  assert.equal(late.failure.row.outcome, 'not-applied');
  assert.equal(bench.medium.begun.write, 0);
});

test('S8: a disk that is slow for longer than any deadline ends nobody', async () => {
  const { bench } = await benchWithStuckWrites();
  void writeUntil(bench, bench.clock.nowMs() + 1);
  assert.notEqual(bench.killAtMs, undefined);
  await bench.clock.advance(killAfterMs);
  assert.equal(bench.killAtMs, undefined);
});

test('S8: a write counts as begun only after three looks, however much time has passed', async () => {
  const { bench } = await benchWithStuckWrites();
  const deadlineMs = bench.clock.nowMs() + deadlineAheadMs;
  void writeUntil(bench, deadlineMs);
  // Stopped for two seconds: what was due in between happens once, late.
  bench.clock.skip(2000);
  await bench.clock.advance(199);
  assert.equal(bench.killAtMs, deadlineMs + killAfterMs);
  await bench.clock.advance(1);
  assert.equal(bench.killAtMs, undefined);
});

test('S8: the earliest deadline of those on their way counts', async () => {
  const { bench } = await benchWithStuckWrites();
  const nowMs = bench.clock.nowMs();
  void writeUntil(bench, nowMs + 3000);
  void writeUntil(bench, nowMs + 2000);
  void writeUntil(bench, nowMs + 4000);
  assert.equal(bench.killAtMs, nowMs + 2000 + killAfterMs);
  await bench.clock.advance(250);
  void writeUntil(bench, nowMs + 5000);
  assert.equal(bench.killAtMs, nowMs + 2000 + killAfterMs);
  await bench.clock.advance(50);
  assert.equal(bench.killAtMs, nowMs + 5000 + killAfterMs);
});

test('S8: the next piece of a long change is on its way anew', async () => {
  const medium = new SimulatedMedium(128 * 1024 * 1024);
  const bench = await Bench.started({}, medium);
  const gates = [0, 1].map((piece) => bench.hold(({ op, offset }) => op === 'zero' && offset > 0 === (piece === 1)));
  const stamp = bench.stamp(1);
  const how = { offset: 0, length: medium.cached.length, deferred: true, mayTrim: true, fast: false };
  const zero = bench.run({ op: 'zero', ...how, stamp });
  await bench.clock.advance(300);
  assert.equal(bench.killAtMs, undefined);
  gates[0]?.open();
  await bench.clock.advance(1);
  assert.equal(bench.killAtMs, stamp.deadlineMs + killAfterMs);
  gates[1]?.open();
  assertDone(await zero);
});

test('S8: a thousand writes one after another cost a system call in a hundred milliseconds', async () => {
  const bench = await Bench.started();
  for (let count = 0; count < 1000; count++) {
    await writeUntil(bench, bench.clock.nowMs() + deadlineAheadMs);
    await bench.clock.advance(1);
  }
  assert.ok(bench.killTimerCalls <= 20, `${bench.killTimerCalls} calls in a second`);
});

test('S8: writes without a stamp end nobody', async () => {
  const bench = await Bench.started();
  assertDone(await bench.write(0, 1));
  assert.equal(bench.killTimerCalls, 0);
});
