import assert from 'node:assert/strict';
import test from 'node:test';
import { judgeBlock, judgeRemains, type Operation } from './checker.js';
import { planFor } from './plan.js';
import { runPlan } from './run.js';

test('two hundred seeds: every promise holds', async () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const { violation, log } = await runPlan(planFor(seed));
    assert.equal(violation, undefined, `seed ${seed}: ${violation}\n${log.join('\n')}`);
  }
});

test('one seed is one run', async () => {
  const [first, second] = [await runPlan(planFor(44)), await runPlan(planFor(44))];
  assert.ok(first.log.length > 20);
  assert.deepEqual(first.log, second.log);
});

let names = 0;

function operation(
  kind: Operation['kind'],
  value: number,
  startMs: number,
  endMs: number,
  more: Partial<Operation> = {},
): Operation {
  names += 1;
  return {
    kind,
    block: 0,
    value,
    startMs,
    endMs,
    outcome: 'ok',
    durableMs: Number.POSITIVE_INFINITY,
    name: `${kind} ${names}`,
    ...more,
  };
}

test('the checker accepts what may happen', () => {
  const concurrent = [operation('write', 1, 0, 10), operation('write', 2, 5, 15), operation('read', 1, 16, 17)];
  assert.equal(judgeBlock(concurrent), undefined, 'two writes at the same time, in either order');
  const failed = [operation('write', 1, 0, 1), operation('write', 2, 2, 3, { outcome: 'failed' })];
  assert.equal(judgeBlock([...failed, operation('read', 2, 4, 5), operation('read', 1, 6, 7)]), undefined);
});

test('the checker finds a stale read, a lost write, a ghost, and two orders at once', () => {
  const written = [operation('write', 1, 0, 1), operation('write', 2, 2, 3)];
  assert.match(judgeBlock([...written, operation('read', 1, 4, 5)]) ?? '', /acknowledged after it/);
  assert.match(judgeBlock([...written, operation('read', 0, 4, 5)]) ?? '', /acknowledged after it/);
  assert.match(judgeBlock([...written, operation('read', 7, 4, 5)]) ?? '', /nobody wrote/);
  assert.match(judgeBlock([operation('write', 1, 4, 5), operation('read', 1, 0, 1)]) ?? '', /had not begun/);
  const ghost = [
    operation('write', 1, 0, 1, { outcome: 'failed' }),
    operation('write', 2, 2, 3),
    operation('read', 1, 4, 5),
  ];
  assert.match(judgeBlock(ghost) ?? '', /acknowledged after it/);
  const concurrent = [operation('write', 1, 0, 10), operation('write', 2, 5, 15)];
  const reads = [1, 2, 1, 2].map((value, index) => operation('read', value, 20 + 2 * index, 21 + 2 * index));
  assert.match(judgeBlock([...concurrent, ...reads]) ?? '', /each read after the other/);
});

test('the checker finds a durable write that is not there after a crash', () => {
  const history = [operation('write', 1, 0, 1, { durableMs: 1 }), operation('write', 2, 2, 3)];
  assert.equal(judgeRemains(history, 1), undefined);
  assert.equal(judgeRemains(history, 2), undefined);
  assert.match(judgeRemains(history, 0) ?? '', /lost/);
  assert.match(judgeRemains([...history, operation('write', 3, 4, 5, { durableMs: 9 })], 2) ?? '', /lost/);
});
