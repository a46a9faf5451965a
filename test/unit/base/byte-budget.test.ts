import assert from 'node:assert/strict';
import test from 'node:test';
import { ByteBudget } from '../../../src/base/byte-budget.js';

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

test('large takers leave a part to small ones, who neither wait for them nor behind them', () => {
  const mebibyte = 1024 * 1024;
  const budget = new ByteBudget(10 * mebibyte, 2 * mebibyte);
  assert.ok(budget.tryTake(8 * mebibyte));
  let granted = false;
  budget.wait(4 * mebibyte, () => {
    granted = true;
  });
  assert.ok(budget.isWanted);
  assert.ok(budget.tryTake(mebibyte) && budget.tryTake(mebibyte));
  assert.ok(!budget.tryTake(1), 'the bound holds');
  budget.give(mebibyte);
  assert.equal(granted, false, 'a large one does not take the part of the small ones');
  budget.give(8 * mebibyte);
  assert.equal(granted, true);
});
