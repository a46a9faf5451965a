import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
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

test('the boot clock goes on at the rate of /proc/uptime and never back', () => {
  const uptimeMs = () => Number(execFileSync('cat', ['/proc/uptime'], { encoding: 'utf8' }).split(' ')[0]) * 1000;
  const before = uptimeMs();
  lookAgain();
  const now = bootClock.nowMs();
  const after = uptimeMs();
  assert.ok(before - 20 <= now && now <= after + 20, `${before} ${now} ${after}`);
  let last = now;
  for (let round = 0; round < 1000; round += 1) {
    lookAgain();
    const next = bootClock.nowMs();
    assert.ok(next >= last);
    last = next;
  }
  assert.ok(last > now);
});
