import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TimeLimit } from '../../../src/base/time-limit.js';
import { FakeClock } from '../../support/fake-clock.js';

const limitMs = 100;

function started() {
  const clock = new FakeClock();
  const expired: string[] = [];
  const limit = new TimeLimit<{ readonly name: string }>(clock, limitMs, ({ name }) => expired.push(name));
  return { clock, limit, expired };
}

test('each member is told when it has been in for the whole limit, and once', async () => {
  const { clock, limit, expired } = started();
  limit.add({ name: 'a' });
  await clock.advance(60);
  limit.add({ name: 'b' });
  await clock.advance(39);
  assert.deepEqual(expired, []);
  await clock.advance(1);
  assert.deepEqual(expired, ['a']);
  await clock.advance(59);
  assert.deepEqual(expired, ['a']);
  await clock.advance(1);
  assert.deepEqual(expired, ['a', 'b']);
  await clock.advance(10 * limitMs);
  assert.deepEqual(expired, ['a', 'b']);
});

test('who was taken out is not told, and those behind it are told in time', async () => {
  const { clock, limit, expired } = started();
  const first = { name: 'first' };
  limit.add(first);
  await clock.advance(50);
  limit.add({ name: 'second' });
  limit.delete(first);
  await clock.advance(99);
  assert.deepEqual(expired, []);
  await clock.advance(1);
  assert.deepEqual(expired, ['second']);
});

test('there is one timer for all, and none when nobody came for the whole limit', async () => {
  const { clock, limit } = started();
  for (let count = 0; count < 50; count += 1) {
    const member = { name: 'short' };
    limit.add(member);
    await clock.advance(1);
    limit.delete(member);
    assert.equal(clock.timers, 1);
  }
  await clock.advance(limitMs);
  assert.equal(clock.timers, 0);
});
