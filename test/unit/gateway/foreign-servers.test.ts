/** Servers that are not ours, alone and among ours: old ones, and what implements only a part of the protocol. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import type { DiskDescription } from '../../../src/http-disk/messages.js';
import { settled } from '../../support/fake-clock.js';
import { setUp, state } from './harness.js';

const old: Partial<DiskDescription> = {
  features: new Set(),
  instance: undefined,
  clockMs: undefined,
  endpoint: undefined,
};
const writeBack = { budgetBytes: 1 << 20 };

test('a server that serves one connection at a time gets one request at a time, each with a time of its own', async () => {
  const { gateway, clock, a, events } = setUp();
  a.found = old;
  a.oneAtATime = true;
  gateway.start();
  await settled();
  a.automatic = false;
  const reads = Array.from({ length: 8 }, (_, index) => gateway.read(index * 4096, Buffer.alloc(512)));
  for (let answered = 0; answered < reads.length; answered += 1) {
    // Somebody else is served meanwhile.
    await clock.advance(1000);
    assert.equal(a.outstanding.length, 1);
    a.outstanding[0]?.answer();
    await settled();
  }
  assert.equal(await state(Promise.all(reads)), 'done');
  assert.ok(!events.some(({ type }) => type === 'lost'), 'no request waited too long');
});

test('where one request is in flight at a time, neither small nor large ones starve', async () => {
  const { gateway, a } = setUp();
  a.found = { ...old, sizeBytes: 1 << 20 };
  a.oneAtATime = true;
  gateway.start();
  await settled();
  a.automatic = false;
  const lengths = [512, 1024, 100_000, 1536, 2048];
  const reads = lengths.map((length) => gateway.read(0, Buffer.alloc(length)));
  const served: number[] = [];
  for (const _ of lengths) {
    await settled();
    const [entry] = a.outstanding;
    served.push(entry?.into?.length ?? 0);
    entry?.answer();
  }
  await Promise.all(reads);
  assert.deepEqual(served, lengths);
});

test('write-back: copies are written to an old server one after the other, and none is kept there', async () => {
  const { gateway, clock, a, b, write, events } = setUp({ writeBack });
  gateway.start();
  await settled();
  await write(0, 512);
  await write(4096, 512);
  await gateway.zero(8192, 1024, { fua: false, mayTrim: true, fast: false });
  await gateway.trim(16_384, 512, false);
  a.automatic = b.automatic = false;
  const flushed = gateway.flush();
  await settled();
  a.found = new Failure('connection-refused');
  b.found = old;
  b.oneAtATime = true;
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(20);
  const replayed: unknown[] = [];
  while (b.outstanding.length > 0) {
    assert.equal(b.outstanding.length, 1);
    assert.equal(await state(flushed), 'pending', 'not before all of them are there');
    const [entry] = b.outstanding;
    if (entry?.request.op === 'write') replayed.push([entry.request.offset, entry.request.length]);
    entry?.answer();
    await settled();
  }
  assert.deepEqual(
    replayed,
    [
      [0, 512],
      [4096, 512],
      [8192, 1024],
    ],
    'zeroes are written, the trim is left out',
  );
  assert.equal(await state(flushed), 'done');
  // From there to a third life: nothing is written again.
  b.automatic = true;
  await write(0, 512);
  b.automatic = false;
  const read = gateway.read(0, Buffer.alloc(512));
  await settled();
  a.found = {};
  b.found = new Failure('connection-refused');
  b.outstanding[0]?.fail(new Failure('connection-lost'));
  a.automatic = true;
  await clock.advance(20);
  assert.equal(await state(read), 'done');
  assert.equal(events.filter(({ type }) => type === 'replaying').length, 1);
});

test('write-back: a trim that the server does not have leaves the copies of older writes alone', async () => {
  const { gateway, clock, a, b, write } = setUp({ writeBack });
  a.found = { features: new Set(['flush', 'zero', 'session']) };
  gateway.start();
  await settled();
  await write(0, 1024);
  await gateway.trim(0, 512, false);
  a.automatic = b.automatic = false;
  const read = gateway.read(8192, Buffer.alloc(512));
  await settled();
  a.found = new Failure('connection-refused');
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(20);
  assert.deepEqual(
    b.outstanding.map(({ bytes }) => bytes?.length),
    [1024],
    'what was written is written again, whole',
  );
  b.automatic = true;
  b.outstanding[0]?.answer();
  assert.equal(await state(read), 'done');
});

test('an old server where ours was: our process is gone, and its writes go on at once', async () => {
  for (const [refusalProvesDeath, expected] of [
    [true, 'done'],
    [false, 'pending'],
  ] as const) {
    const { gateway, clock, a, write } = setUp({ refusalProvesDeath });
    gateway.start();
    await settled();
    a.automatic = false;
    const written = write(0, 512);
    await settled();
    a.found = old;
    a.automatic = true;
    a.outstanding[0]?.fail(new Failure('connection-lost'));
    await clock.advance(100);
    assert.equal(await state(written), expected);
    await clock.advance(5000);
    assert.equal(await state(written), 'done');
  }
});

test('a server that says it is elsewhere tells nothing of the one that answered before', async () => {
  const { gateway, clock, a, write } = setUp();
  gateway.start();
  await settled();
  a.automatic = false;
  const written = write(0, 512);
  await settled();
  a.found = { instance: 'other', endpoint: '10.0.0.9:80' };
  a.automatic = true;
  a.outstanding[0]?.fail(new Failure('connection-lost'));
  await clock.advance(100);
  assert.equal(await state(written), 'pending');
  await clock.advance(5000);
  assert.equal(await state(written), 'done');
});

test('a server that turns out to be another one when its size is asked for is chosen anew', async () => {
  const { gateway, clock, a, selected } = setUp();
  gateway.start();
  await settled();
  assert.equal(await gateway.measure(), 65_536);
  assert.equal(selected().length, 1);
  a.found = old;
  assert.equal(await gateway.measure(), undefined);
  await clock.advance(10);
  assert.equal(selected().length, 2);
  a.automatic = false;
  void gateway.zero(0, 512, { fua: false, mayTrim: true, fast: false });
  await settled();
  assert.equal(a.outstanding[0]?.request.op, 'write');
});
