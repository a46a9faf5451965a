import assert from 'node:assert/strict';
import test from 'node:test';
import { RangeLock } from '../../../src/disk/range-lock.js';

/** Holds a range until told otherwise, and notes when it begins. */
function holder(lock: RangeLock, begun: string[], name: string, offset: number, length: number) {
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const done = lock.hold({ offset, length }, async () => {
    begun.push(name);
    await released;
  });
  return { release, done };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('overlapping ranges hold one at a time, in order; others do not wait', async () => {
  const lock = new RangeLock();
  const begun: string[] = [];
  const first = holder(lock, begun, 'first', 0, 10);
  const second = holder(lock, begun, 'second', 5, 10);
  const third = holder(lock, begun, 'third', 12, 1);
  const apart = holder(lock, begun, 'apart', 20, 5);
  await turn();
  assert.deepEqual(begun, ['first', 'apart']);
  first.release();
  await turn();
  assert.deepEqual(begun, ['first', 'apart', 'second']);
  second.release();
  third.release();
  apart.release();
  await Promise.all([first.done, second.done, third.done, apart.done]);
  assert.deepEqual(begun, ['first', 'apart', 'second', 'third']);
});

test('a holder that fails frees its range', async () => {
  const lock = new RangeLock();
  await assert.rejects(lock.hold({ offset: 0, length: 1 }, () => Promise.reject(new Error('no'))));
  await lock.hold({ offset: 0, length: 1 }, async () => {});
});
