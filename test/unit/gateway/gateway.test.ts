import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { settled } from '../../support/fake-clock.js';
import { setUp, state } from './harness.js';

test('the first server that answers is used, and its size is the size', async () => {
  const { gateway, a, b, selected } = setUp();
  a.found = new Failure('connection-refused');
  b.found = { sizeBytes: 1000 };
  gateway.start();
  assert.equal(await gateway.whenSizeKnown(), 1000);
  await settled();
  assert.deepEqual(selected(), ['10.0.0.2']);
});

test('a silent server costs a moment when a server is looked for, and nothing at later requests', async () => {
  const { gateway, clock, a, b, selected } = setUp();
  a.found = 'silence';
  gateway.start();
  await clock.advance(299);
  assert.deepEqual(selected(), []);
  await clock.advance(1);
  assert.deepEqual(selected(), ['10.0.0.2']);
  for (let request = 0; request < 5; request += 1) await gateway.read(0, Buffer.alloc(512));
  assert.equal(a.probes, 1);
  assert.equal(b.probes, 1);
});

test('a server that is too small or empty is refused with a reason, and never used', async () => {
  const { gateway, clock, a, b, events, selected } = setUp({ sizeBytes: 65_536 });
  a.found = { sizeBytes: 65_535 };
  b.found = { sizeBytes: 0 };
  gateway.start();
  await clock.advance(20_000);
  assert.deepEqual(selected(), []);
  const refused = events.filter((event) => event.type === 'refused');
  assert.equal(refused.length, 2, 'each said once, though tried again and again');
  assert.match(refused[0]?.reason ?? '', /65535.*65536/);
  assert.ok(a.probes > 5);
});

test('a read-only server is used for a writable volume only when there is no other', async () => {
  const { gateway, clock, a, b, selected, write } = setUp();
  a.found = { readOnly: true };
  gateway.start();
  await settled();
  assert.deepEqual(selected(), ['10.0.0.2']);
  b.found = new Failure('connection-refused');
  b.automatic = false;
  const read = gateway.read(0, Buffer.alloc(512));
  await settled();
  b.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(1000);
  assert.equal(await state(read), 'done');
  a.automatic = false;
  const written = write(0, 512);
  await settled();
  a.outstanding[0]?.fail(new Failure('read-only'));
  assert.equal(await state(written), 'read-only');
});

test('what fails on one server is done by the next, and the client sees nothing', async () => {
  const { gateway, clock, a, b } = setUp();
  gateway.start();
  await settled();
  for (const code of [
    'server-error',
    'unavailable',
    'malformed-response',
    'connection-lost',
    'access-denied',
  ] as const) {
    a.automatic = false;
    b.automatic = false;
    const read = gateway.read(0, Buffer.alloc(512));
    await settled();
    const [first, second] = a.outstanding.length > 0 ? [a, b] : [b, a];
    first.found = new Failure('connection-refused');
    first.outstanding[0]?.fail(new Failure(code));
    await clock.advance(100);
    second.outstanding[0]?.answer();
    assert.equal(await state(read), 'done', code);
    first.found = {};
  }
});

test('what the disk says is final: it is not asked elsewhere', async () => {
  const { gateway, a, b } = setUp();
  gateway.start();
  await settled();
  a.automatic = false;
  for (const code of ['disk-error', 'no-space', 'out-of-range'] as const) {
    const read = gateway.read(0, Buffer.alloc(512));
    await settled();
    a.outstanding[0]?.fail(new Failure(code));
    assert.equal(await state(read), code);
  }
  assert.equal(b.probes, 0);
});

test('when all are gone requests wait, go on when one returns, and fail at the I/O time-out', async () => {
  const { gateway, clock, a, b } = setUp();
  gateway.start();
  await settled();
  a.automatic = false;
  const read = gateway.read(0, Buffer.alloc(512));
  await settled();
  a.found = b.found = new Failure('connection-refused');
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(20_000);
  assert.equal(await state(read), 'pending');
  b.found = {};
  await clock.advance(1100);
  assert.equal(await state(read), 'done');
  b.automatic = false;
  b.found = new Failure('connection-refused');
  const late = gateway.read(0, Buffer.alloc(512));
  await settled();
  b.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(29_800);
  assert.equal(await state(late), 'pending');
  await clock.advance(400);
  assert.equal(await state(late), 'gave-up');
});

test('a hung server: its writes go elsewhere only when their deadline has certainly passed there', async () => {
  const { gateway, clock, a, b, selected, write } = setUp();
  gateway.start();
  await settled();
  a.automatic = false;
  const written = write(0, 512);
  await settled();
  assert.equal(a.outstanding.length, 1);
  a.found = 'silence';
  await clock.advance(3600);
  assert.deepEqual(selected(), ['10.0.0.1', '10.0.0.2']);
  assert.equal(await state(written), 'pending', 'it may still land on the first server');
  assert.equal(await state(gateway.read(4096, Buffer.alloc(512))), 'done', 'what overlaps nothing goes on');
  await clock.advance(1000);
  assert.equal(await state(written), 'done');
  assert.equal(b.outstanding.length, 0);
});

test('a server whose own address refuses is dead: its writes go elsewhere at once', async () => {
  const { gateway, clock, a, write } = setUp();
  gateway.start();
  await settled();
  a.automatic = false;
  const written = write(0, 512);
  await settled();
  a.found = new Failure('connection-refused');
  a.refused = true;
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(20);
  assert.equal(await state(written), 'done');
});

test('behind an address that proves nothing, a refusal frees no write', async () => {
  const { gateway, clock, a, write } = setUp({ refusalProvesDeath: false });
  gateway.start();
  await settled();
  a.automatic = false;
  const written = write(0, 512);
  await settled();
  a.found = new Failure('connection-refused');
  a.refused = true;
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(2000);
  assert.equal(await state(written), 'pending');
  await clock.advance(3000);
  assert.equal(await state(written), 'done');
});

test('a write that is tried again carries a higher epoch', async () => {
  const { gateway, clock, a, write } = setUp();
  gateway.start();
  await settled();
  a.automatic = false;
  void write(0, 512);
  await settled();
  const [first] = a.outstanding;
  first?.fail(new Failure('connection-lost'));
  await clock.advance(10);
  const [again] = a.outstanding;
  assert.ok(first?.request.op === 'write' && again?.request.op === 'write');
  assert.equal(first.request.stamp?.epoch.counter, 0);
  assert.equal(again.request.stamp?.epoch.counter, 1);
});

test('a server without extensions: zeroes are written, trims are skipped, fast zero is refused, the map is all data', async () => {
  const { gateway, a } = setUp();
  a.found = { features: new Set(), instance: undefined, clockMs: undefined };
  gateway.start();
  await settled();
  a.automatic = false;
  const zeroed = gateway.zero(512, 1024, { fua: false, mayTrim: true, fast: false });
  await settled();
  const [put] = a.outstanding;
  assert.equal(put?.request.op, 'write');
  assert.deepEqual(put?.bytes, Buffer.alloc(1024));
  put?.answer();
  assert.equal(await state(zeroed), 'done');
  assert.equal(await state(gateway.trim(0, 65_536, false)), 'done');
  assert.equal(await state(gateway.zero(0, 512, { fua: false, mayTrim: true, fast: true })), 'unsupported');
  assert.deepEqual(await gateway.extents(512, 1024), [{ offset: 512, length: 1024, kind: 'data' }]);
  assert.equal(await state(gateway.flush()), 'done');
  assert.equal(a.outstanding.length, 0);
});

test('a large request travels in pieces, and fails only when none of them is in flight', async () => {
  const { gateway, a } = setUp();
  a.found = { sizeBytes: 2 ** 30 };
  gateway.start();
  await settled();
  a.automatic = false;
  const read = gateway.read(0, Buffer.alloc(2_500_000));
  await settled();
  assert.deepEqual(
    a.outstanding.map(({ into }) => into?.length),
    [1_048_576, 1_048_576, 402_848],
  );
  a.outstanding[0]?.fail(new Failure('disk-error'));
  assert.equal(await state(read), 'pending');
  a.outstanding[1]?.answer();
  a.outstanding[0]?.answer();
  assert.equal(await state(read), 'disk-error');
});

test('a small read does not wait behind a stream of large ones', async () => {
  const { gateway, a } = setUp();
  a.found = { sizeBytes: 2 ** 30 };
  gateway.start();
  await settled();
  a.automatic = false;
  for (let number = 0; number < 40; number += 1) void gateway.read(number * 1_048_576, Buffer.alloc(1_048_576));
  await settled();
  assert.equal(a.outstanding.length, 8, 'bytes in flight are bounded');
  void gateway.read(0, Buffer.alloc(4096));
  await settled();
  assert.equal(a.outstanding.at(-1)?.into?.length, 4096);
});

const writeBack = { budgetBytes: 8192 };

test('write-back: a flush is a commit, and nothing is committed when nothing is kept', async () => {
  const { gateway, a, write } = setUp({ writeBack });
  gateway.start();
  await settled();
  assert.equal(await state(gateway.flush()), 'done');
  await write(0, 512);
  a.automatic = false;
  const flushed = gateway.flush();
  await settled();
  assert.deepEqual(
    a.outstanding.map(({ request }) => request),
    [{ op: 'flush', instance: '10.0.0.1-1' }],
  );
  a.outstanding[0]?.answer();
  assert.equal(await state(flushed), 'done');
});

test('write-back: a flush that was on its way to a server that died is repeated after a replay', async () => {
  const { gateway, clock, a, b, write, events } = setUp({ writeBack });
  gateway.start();
  await settled();
  await write(0, 512);
  await write(512, 512);
  a.automatic = b.automatic = false;
  const flushed = gateway.flush();
  const read = gateway.read(8192, Buffer.alloc(512));
  await settled();
  a.found = new Failure('connection-refused');
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(20);
  assert.deepEqual(
    b.outstanding.map(({ request }) => request.op),
    ['write', 'write'],
    'the replay, and nothing else before it is complete',
  );
  for (const entry of [...b.outstanding]) entry.answer();
  await settled();
  assert.deepEqual(b.outstanding.map(({ request }) => request.op).sort(), ['flush', 'read']);
  for (const entry of [...b.outstanding]) entry.answer();
  assert.equal(await state(flushed), 'done');
  assert.equal(await state(read), 'done');
  assert.ok(events.some((event) => event.type === 'replaying' && event.writes === 2));
});

test('write-back: at half of the budget a commit starts, at the whole of it writes wait', async () => {
  const { gateway, a, write } = setUp({ writeBack });
  gateway.start();
  await settled();
  await write(0, 3500);
  assert.equal(await state(gateway.flush()), 'done');
  a.automatic = false;
  const first = write(0, 5000);
  await settled();
  a.outstanding[0]?.answer();
  assert.equal(await state(first), 'done');
  assert.deepEqual(
    a.outstanding.map(({ request }) => request.op),
    ['flush'],
  );
  const second = write(8192, 5000);
  await settled();
  assert.deepEqual(
    a.outstanding.map(({ request }) => request.op),
    ['flush'],
    'no room',
  );
  a.outstanding[0]?.answer();
  await settled();
  assert.deepEqual(
    a.outstanding.map(({ request }) => request.op),
    ['write'],
  );
  a.outstanding[0]?.answer();
  assert.equal(await state(second), 'done');
});

test('write-back: a gateway whose writes wait for room is not idle, though nothing is on its way', async () => {
  const { gateway, clock, a, write } = setUp({ writeBack });
  gateway.start();
  await settled();
  assert.ok(gateway.isIdle);
  a.automatic = false;
  const first = write(0, 5000);
  await settled();
  a.outstanding[0]?.answer();
  assert.equal(await state(first), 'done');
  const second = write(8192, 5000);
  await settled();
  a.outstanding[0]?.fail(new Failure('disk-error'));
  await settled();
  assert.equal(a.outstanding.length, 0);
  assert.equal(gateway.isIdle, false);
  await clock.advance(1000);
  a.outstanding[0]?.answer();
  await settled();
  a.outstanding[0]?.answer();
  assert.equal(await state(second), 'done');
  a.outstanding[0]?.answer();
  await settled();
  assert.ok(gateway.isIdle);
});

test('write-back: a commit that failed is tried again while writes wait for room', async () => {
  const { gateway, clock, a, write } = setUp({ writeBack });
  gateway.start();
  await settled();
  a.automatic = false;
  const first = write(0, 5000);
  await settled();
  a.outstanding[0]?.answer();
  assert.equal(await state(first), 'done');
  const second = write(8192, 5000);
  await settled();
  a.outstanding[0]?.fail(new Failure('disk-error'));
  await clock.advance(999);
  assert.equal(a.outstanding.length, 0, 'not at once');
  await clock.advance(1);
  assert.deepEqual(
    a.outstanding.map(({ request }) => request.op),
    ['flush'],
  );
  a.outstanding[0]?.answer();
  await settled();
  a.outstanding[0]?.answer();
  assert.equal(await state(second), 'done');
});

test('write-back: a flush behind a commit that does not end is answered in its own time', async () => {
  const { gateway, clock, a, b, write } = setUp({ writeBack });
  gateway.start();
  await settled();
  await write(0, 512);
  a.automatic = b.automatic = false;
  a.found = b.found = new Failure('connection-refused');
  const first = gateway.flush();
  first.catch(() => {});
  await clock.advance(29_000);
  const second = gateway.flush();
  second.catch(() => {});
  await clock.advance(1200);
  assert.equal(await state(first), 'gave-up');
  await clock.advance(28_700);
  assert.equal(await state(second), 'pending');
  await clock.advance(200);
  assert.equal(await state(second), 'gave-up');
});

test('what has waited for its turn until its time was over is not sent any more', async () => {
  const { gateway, clock, a, b, write } = setUp({ ioTimeoutMs: 2000 });
  gateway.start();
  await settled();
  a.automatic = b.automatic = false;
  const waits = [write(0, 512), write(0, 512), gateway.read(0, Buffer.alloc(512)), gateway.extents(0, 512)];
  for (const answer of waits) answer.catch(() => {});
  await clock.advance(8500);
  for (const answer of waits) assert.equal(await state(answer), 'gave-up', 'one request time-out and a second later');
  assert.deepEqual([...a.outstanding, ...b.outstanding], []);
});

test('closing rejects what waits, and tells how much is not durable', async () => {
  const { gateway, clock, a, write } = setUp({ writeBack });
  gateway.start();
  await settled();
  await write(0, 512);
  a.automatic = false;
  const read = assert.rejects(gateway.read(4096, Buffer.alloc(512)), { code: 'shutting-down' });
  const closed = gateway.close();
  await clock.advance(3000);
  assert.ok((await closed).undurableBytes >= 512);
  await read;
});

test('a flush after a takeover waits until what the predecessor left behind is durable, also in write-through mode', async () => {
  const servers = [{ server: '10.0.0.1', endpoint: '10.0.0.1:80', instance: '10.0.0.1-1', leftMsAgo: 0 }];
  const { gateway, a } = setUp({ inherited: { servers, unflushed: 'instance' } });
  a.automatic = false;
  gateway.start();
  const flushed = gateway.flush();
  assert.equal(await state(flushed), 'pending');
  assert.deepEqual(
    a.outstanding.map(({ request }) => request),
    [{ op: 'flush', instance: '10.0.0.1-1' }],
  );
  a.outstanding[0]?.answer();
  await settled();
  a.outstanding[0]?.answer();
  assert.equal(await state(flushed), 'done');
  assert.equal(await state(gateway.flush()), 'done', 'and not again');
});
