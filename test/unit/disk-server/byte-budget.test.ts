import assert from 'node:assert/strict';
import test from 'node:test';
import { ByteBudget } from '../../../src/disk-server/byte-budget.js';

test('no more is granted than there is', () => {
  const budget = new ByteBudget(100);
  assert.equal(budget.tryTake(60), true);
  assert.equal(budget.tryTake(41), false);
  assert.equal(budget.tryTake(40), true);
  assert.equal(budget.takenBytes, 100);
});

test('who waits is served in order, and nobody overtakes', () => {
  const budget = new ByteBudget(100);
  const granted: string[] = [];
  budget.tryTake(100);
  budget.wait(80, () => granted.push('large'));
  budget.wait(10, () => granted.push('small'));
  budget.give(20);
  assert.deepEqual(granted, []);
  assert.equal(budget.tryTake(5), false);
  assert.equal(budget.isWanted, true);
  budget.give(70);
  assert.deepEqual(granted, ['large', 'small']);
  assert.equal(budget.takenBytes, 100);
  assert.equal(budget.isWanted, false);
});

test('who gives up waiting lets those behind go on', () => {
  const budget = new ByteBudget(100);
  const granted: string[] = [];
  budget.tryTake(90);
  const giveUp = budget.wait(80, () => granted.push('large'));
  budget.wait(10, () => granted.push('small'));
  giveUp();
  assert.deepEqual(granted, ['small']);
  assert.equal(budget.takenBytes, 100);
});
