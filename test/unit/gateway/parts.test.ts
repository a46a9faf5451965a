import assert from 'node:assert/strict';
import test from 'node:test';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { Payload } from '../../../src/gateway/payload.js';
import { replay } from '../../../src/gateway/replay.js';
import { Retention } from '../../../src/gateway/retention.js';
import { ServerClock } from '../../../src/gateway/server-clock.js';
import { WriteOrder } from '../../../src/gateway/write-order.js';
import { settled } from '../../support/fake-clock.js';

test('the bound of a server clock is never later than the clock, at any rate within 1000 ppm', () => {
  for (const rate of [1 - 900e-6, 1, 1 + 900e-6]) {
    const clock = new ServerClock(50_000, 1000);
    for (const afterMs of [0, 1, 1000, 3_600_000]) {
      assert.ok(clock.lowerBoundMs(1000 + afterMs) <= 50_000 + afterMs * rate, `rate ${rate} after ${afterMs} ms`);
    }
  }
});

test('a sample that was long on its way does not move the bound back', () => {
  const clock = new ServerClock(50_000, 1000);
  const before = clock.lowerBoundMs(5000);
  clock.learn(50_100, 5000);
  assert.equal(clock.lowerBoundMs(5000), before);
  clock.learn(60_000, 5000);
  assert.equal(clock.lowerBoundMs(5000), 60_000);
});

test('a write waits for every earlier overlapping write, and only for those', async () => {
  const order = new WriteOrder();
  const log: string[] = [];
  const a = order.writeTurn(0, 10);
  const b = order.writeTurn(20, 10);
  const c = order.writeTurn(5, 20);
  const d = order.writeTurn(100, 1);
  assert.equal(a.ready, undefined);
  assert.equal(b.ready, undefined);
  assert.equal(d.ready, undefined);
  void c.ready?.then(() => log.push('c'));
  a.done();
  await settled();
  assert.deepEqual(log, []);
  b.done();
  await settled();
  assert.deepEqual(log, ['c']);
  c.done();
  d.done();
  assert.equal(order.writeTurn(0, 1000).ready, undefined, 'none is left');
});

test('a read waits for earlier overlapping writes; neighbours do not overlap', async () => {
  const order = new WriteOrder();
  const write = order.writeTurn(512, 512);
  assert.equal(order.readTurn(0, 512), undefined);
  assert.equal(order.readTurn(1024, 512), undefined);
  const turn = order.readTurn(1023, 1);
  assert.notEqual(turn, undefined);
  write.done();
  await turn;
});

function payload(pool: BufferPool, fill: number, length: number): Payload {
  return new Payload(pool.take(length).fill(fill), pool);
}

test('a durable write cuts the overlapped part out of older copies, and what remains is replayed as it was', () => {
  const pool = new BufferPool(1 << 20);
  const retention = new Retention(1 << 20);
  const old = payload(pool, 1, 100);
  retention.keep({ op: 'write', offset: 1000, length: 100, bytes: old.bytes, deferrable: true }, old);
  old.release();
  retention.keep({ op: 'zero', offset: 1020, length: 10, mayTrim: true, fast: false, deferrable: true }, undefined);
  retention.dropOverlapped(1010, 15);
  const tasks = retention.replayTasks().map(({ op, offset, length }) => `${op} ${offset}+${length}`);
  assert.deepEqual(tasks, ['write 1000+10', 'write 1025+75', 'zero 1025+5']);
  assert.equal(pool.idleBytes, 0, 'the payload is still held');
  retention.dropCommitted(retention.newest);
  assert.ok(pool.idleBytes > 0, 'the payload came back');
  assert.ok(retention.isEmpty);
});

test('what is kept of a payload counts against the budget with all that it holds', () => {
  const pool = new BufferPool(1 << 20);
  const retention = new Retention(10_000);
  const old = payload(pool, 1, 8192);
  retention.keep({ op: 'write', offset: 0, length: 4096, bytes: old.bytes.subarray(0, 4096), deferrable: true }, old);
  retention.keep({ op: 'write', offset: 4096, length: 4096, bytes: old.bytes.subarray(4096), deferrable: true }, old);
  old.release();
  const whole = retention.retainedBytes;
  assert.ok(whole >= 8192 && whole < 2 * 8192, 'once, though two pieces hold it');
  retention.dropOverlapped(512, 7680);
  assert.ok(retention.retainedBytes >= 8192, 'the first block holds the whole of it');
  assert.notEqual(retention.promise(4096), undefined, 'so that there is no room for another one');
  retention.dropOverlapped(0, 512);
  assert.equal(retention.retainedBytes, 0);
});

test('a commit drops what it covers and nothing newer', () => {
  const retention = new Retention(1 << 20);
  retention.keep({ op: 'trim', offset: 0, length: 10, deferrable: true }, undefined);
  const covered = retention.newest;
  retention.keep({ op: 'trim', offset: 20, length: 10, deferrable: true }, undefined);
  retention.dropCommitted(covered);
  assert.deepEqual(
    retention.replayTasks().map((task) => task.offset),
    [20],
  );
});

test('at the budget writes wait, first come, first served; one that is given up lets the next one in', async () => {
  const retention = new Retention(4096);
  assert.equal(retention.promise(3000), undefined);
  const big = retention.promise(3000);
  const small = retention.promise(100);
  assert.ok(big !== undefined && small !== undefined, 'the small one does not overtake');
  let admitted = false;
  void small.admitted.then(() => {
    admitted = true;
  });
  await settled();
  assert.equal(admitted, false);
  big.cancel();
  await settled();
  assert.equal(admitted, true);
  retention.settle(3000);
  retention.settle(100);
});

test('a replay keeps overlapping writes in order and stops at the first that cannot be done', async () => {
  const done: number[] = [];
  const gates: (() => void)[] = [];
  const tasks = [0, 0, 50, 0].map((offset, index) => ({
    op: 'trim' as const,
    offset,
    length: 10 + index,
    deferrable: true,
  }));
  const result = replay(tasks, 32, async (task) => {
    await new Promise<void>((open) => gates.push(open));
    done.push(task.length);
    return task.length !== 11;
  });
  await settled();
  assert.equal(gates.length, 2, 'the oldest and the one beside it');
  gates[1]?.();
  gates[0]?.();
  await settled();
  assert.equal(gates.length, 3);
  gates[2]?.();
  assert.equal(await result, false);
  assert.deepEqual(done, [12, 10, 11]);
});
