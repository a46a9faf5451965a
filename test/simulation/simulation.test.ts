import assert from 'node:assert/strict';
import test from 'node:test';
import { type Circumstances, judgeBlock, judgeRemains, type Operation } from './checker.js';
import { planFor } from './plan.js';
import { runPlan } from './run.js';

test('two hundred seeds: every promise holds', async () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const { violation, log } = await runPlan(planFor(seed), { keepsLog: true });
    assert.equal(violation, undefined, `seed ${seed}: ${violation}\n${log.join('\n')}`);
  }
});

test('one seed is one run', async () => {
  const [first, second] = [
    await runPlan(planFor(44), { keepsLog: true }),
    await runPlan(planFor(44), { keepsLog: true }),
  ];
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

const writeThrough: Circumstances = { crashesMs: [], replays: false, severalGateways: false, remains: undefined };
const failed = { outcome: 'failed' } as const;

test('the checker accepts what may happen', () => {
  const concurrent = [operation('write', 1, 0, 10), operation('write', 2, 5, 15), operation('read', 1, 16, 17)];
  assert.equal(judgeBlock(concurrent, writeThrough), undefined, 'two writes at the same time, in either order');
  const unknown = [operation('write', 1, 0, 1), operation('write', 2, 2, 3, failed)];
  for (const value of [1, 2])
    assert.equal(judgeBlock([...unknown, operation('read', value, 4, 5)], writeThrough), undefined, 'a failed write');
  const zeroes = [operation('write', 1, 0, 1), operation('write', 0, 2, 3), operation('read', 0, 4, 5)];
  assert.equal(judgeBlock(zeroes, writeThrough), undefined, 'zero again');
  assert.equal(
    judgeBlock([operation('write', 1, 0, 10), operation('read', 1, 2, 3)], writeThrough),
    undefined,
    'early',
  );
});

test('the checker finds a stale read, a lost write, a ghost, and two orders at once', () => {
  const finds = (history: readonly Operation[], what: string) =>
    assert.match(judgeBlock(history, writeThrough) ?? '', /not explained by any order/, what);
  const written = [operation('write', 1, 0, 1), operation('write', 2, 2, 3)];
  finds([...written, operation('read', 1, 4, 5)], 'a stale read');
  finds([...written, operation('read', 0, 4, 5)], 'both writes are lost');
  finds([...written, operation('read', 7, 4, 5)], 'nobody wrote it');
  finds([operation('write', 1, 4, 5), operation('read', 1, 0, 1)], 'from the future');
  finds([operation('write', 1, 0, 1, failed), operation('write', 2, 2, 3), operation('read', 1, 4, 5)], 'a ghost');
  finds([operation('read', 1, 5, 6), operation('read', 0, 7, 8), operation('write', 1, 4, 9)], 'there and gone again');
  const concurrent = [operation('write', 1, 0, 10), operation('write', 2, 5, 15)];
  const flipping = [1, 2, 1].map((value, index) => operation('read', value, 20 + 2 * index, 21 + 2 * index));
  finds([...concurrent, ...flipping], 'two orders');
  const zeroed = [operation('write', 1, 0, 1), operation('write', 0, 2, 3), operation('write', 2, 4, 5)];
  finds([...zeroed, operation('read', 0, 6, 7)], 'a stale zero');
});

test('the checker finds an error that was answered before the write had taken effect', () => {
  const late = [operation('write', 1, 0, 1, failed), operation('read', 0, 2, 3), operation('read', 1, 4, 5)];
  assert.match(judgeBlock(late, writeThrough) ?? '', /not explained by any order/);
  assert.match(
    judgeBlock(late, { ...writeThrough, crashesMs: [3.5] }) ?? '',
    /not explained/,
    'a crash brings nothing',
  );
  assert.match(judgeBlock(late, { ...writeThrough, replays: true }) ?? '', /not explained/, 'nor does a replay');
});

test('only a crash or a replay undoes a write that failed, and nothing undoes one that was acknowledged', () => {
  const seen = [operation('write', 1, 0, 1), operation('write', 2, 2, 3, failed), operation('read', 2, 4, 5)];
  const undone = [...seen, operation('read', 1, 6, 7)];
  assert.match(judgeBlock(undone, writeThrough) ?? '', /not explained/);
  assert.equal(judgeBlock(undone, { ...writeThrough, crashesMs: [5.5] }), undefined);
  assert.equal(judgeBlock(undone, { ...writeThrough, replays: true }), undefined);
  const lost = [operation('write', 1, 0, 1), operation('read', 0, 6, 7)];
  assert.match(judgeBlock(lost, { ...writeThrough, crashesMs: [5.5], replays: true }) ?? '', /not explained/);
});

test('a read that was under way at a crash may have seen what the crash undid', () => {
  const history = [
    operation('write', 1, 0, 1),
    operation('write', 2, 2, 3, failed),
    operation('read', 2, 4, 7),
    operation('read', 1, 8, 9),
  ];
  assert.equal(judgeBlock(history, { ...writeThrough, crashesMs: [5] }), undefined);
  assert.match(judgeBlock(history, { ...writeThrough, crashesMs: [3.5] }) ?? '', /not explained/, 'not after it');
  const open = [operation('write', 1, 0, 1), operation('write', 2, 2, 20, failed), ...history.slice(2)];
  const shared = { ...writeThrough, severalGateways: true };
  assert.equal(judgeBlock(open, { ...shared, crashesMs: [5] }), undefined, 'an unanswered write');
});

test('what a single gateway has not answered is not undone after it was read', () => {
  const history = [operation('write', 1, 0, 10), operation('read', 1, 2, 3), operation('read', 0, 5, 6)];
  const crashed = { ...writeThrough, crashesMs: [4] };
  assert.match(judgeBlock(history, crashed) ?? '', /not explained/);
  assert.equal(
    judgeBlock(history, { ...crashed, severalGateways: true }),
    undefined,
    'another gateway may have read it',
  );
});

test('a write that was sent again may take effect twice, but not after its answer', () => {
  const again = operation('write', 1, 0, 10, { sentAgain: true });
  const reads = [operation('read', 1, 2, 3), operation('write', 2, 4, 5)];
  assert.equal(judgeBlock([again, ...reads, operation('read', 1, 11, 12)], writeThrough), undefined);
  const once = operation('write', 1, 0, 10);
  assert.match(judgeBlock([once, ...reads, operation('read', 1, 11, 12)], writeThrough) ?? '', /not explained/);
  const late = [again, ...reads, operation('read', 2, 11, 12), operation('read', 1, 13, 14)];
  assert.match(judgeBlock(late, writeThrough) ?? '', /not explained/);
});

test('the checker finds a durable write that is not there after a crash', () => {
  const history = [operation('write', 1, 0, 1, { durableMs: 1 }), operation('write', 2, 2, 3)];
  assert.equal(judgeRemains(history, 1), undefined);
  assert.equal(judgeRemains(history, 2), undefined);
  assert.match(judgeRemains(history, 0) ?? '', /lost/);
  assert.match(judgeRemains([...history, operation('write', 3, 4, 5, { durableMs: 9 })], 2) ?? '', /lost/);
  assert.match(judgeBlock(history, { ...writeThrough, remains: 1 }) ?? '', /the disk holds 1/, 'after the last flush');
  assert.equal(judgeBlock(history, { ...writeThrough, remains: 2 }), undefined);
});
