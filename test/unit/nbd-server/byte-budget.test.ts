import assert from 'node:assert/strict';
import test from 'node:test';
import { ByteBudget } from '../../../src/nbd-server/byte-budget.js';

/** Waits for `bytes`, and notes its name when it has them. */
function waiter(budget: ByteBudget, granted: string[], name: string, bytes: number): () => void {
  const note = () => void granted.push(name);
  budget.wait(bytes, note);
  return note;
}

test('what fits is granted at once, the rest when there is room', () => {
  const budget = new ByteBudget(100);
  assert.equal(budget.reserve(60), true);
  assert.equal(budget.reserve(40), true);
  assert.equal(budget.reserve(1), false);
  assert.equal(budget.usedBytes, 100);
  const granted: string[] = [];
  waiter(budget, granted, 'one', 30);
  assert.equal(budget.isContended, true);
  budget.release(20);
  assert.deepEqual(granted, []);
  budget.release(20);
  assert.deepEqual(granted, ['one']);
  assert.equal(budget.isContended, false);
  assert.equal(budget.usedBytes, 90);
});

test('first come, first served: a small request does not overtake a large one for ever', () => {
  const budget = new ByteBudget(100);
  budget.reserve(50);
  const granted: string[] = [];
  waiter(budget, granted, 'large', 80);
  assert.equal(budget.reserve(1), false);
  waiter(budget, granted, 'small', 1);
  budget.release(50);
  assert.deepEqual(granted, ['large', 'small']);
  assert.equal(budget.usedBytes, 81);
});

test('who gives up waiting makes room for the next', () => {
  const budget = new ByteBudget(100);
  budget.reserve(50);
  const granted: string[] = [];
  const large = waiter(budget, granted, 'large', 80);
  waiter(budget, granted, 'small', 10);
  budget.cancel(large);
  assert.deepEqual(granted, ['small']);
  budget.release(50);
  budget.release(10);
  assert.deepEqual(granted, ['small']);
  assert.equal(budget.usedBytes, 0);
});

test('a request larger than the whole is granted alone', () => {
  const budget = new ByteBudget(100);
  assert.equal(budget.reserve(500), true);
  assert.equal(budget.reserve(1), false);
  budget.release(500);
  assert.equal(budget.reserve(1), true);
  assert.equal(budget.reserve(500), false);
});

test('more is never given back than was taken', () => {
  const budget = new ByteBudget(100);
  budget.reserve(10);
  assert.throws(() => budget.release(11), { name: 'AssertionFailure' });
});
