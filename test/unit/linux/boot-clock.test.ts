import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { bootClock, lookAgain } from '../../../src/linux/boot-clock.js';

function spend(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test('the clock stands still within a turn of the event loop, also over microtasks, until it is to look again', async () => {
  await turn();
  const before = bootClock.nowMs();
  spend(3);
  await Promise.resolve();
  assert.equal(bootClock.nowMs(), before);
  lookAgain();
  assert.ok(bootClock.nowMs() >= before + 3);
});

test('a new turn of the event loop has a time of its own', async () => {
  const before = bootClock.nowMs();
  spend(3);
  await turn();
  assert.ok(bootClock.nowMs() >= before + 3);
});
