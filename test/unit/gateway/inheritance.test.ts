/** Failover rules T3 and T5: what a gateway does after its predecessor died. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import type { GatewayOptions } from '../../../src/gateway/gateway.js';
import type { Inheritance } from '../../../src/gateway/inheritance.js';
import { NoDisk } from '../../../src/http-disk/failure-codec.js';
import { Session } from '../../../src/gateway/session.js';
import { settled } from '../../support/fake-clock.js';
import { setUp } from './harness.js';

const serverA = { server: '10.0.0.1', endpoint: '10.0.0.1:80', instance: '10.0.0.1-1', leftMsAgo: 0 };

function takeOver(inherited: Inheritance, options: Partial<GatewayOptions> = {}) {
  const { clock, a, b, buffers, gateway, events } = setUp({
    ...{ inherited, session: new Session('s', 2), sizeBytes: 65_536, ioTimeoutMs: 600_000 },
    ...options,
  });
  const lost = () => events.filter((event) => event.type === 'inheritance-lost').length;
  const write = () => {
    const outcome = { done: false };
    void gateway.write(0, buffers.take(512), false).then(() => {
      outcome.done = true;
    });
    return outcome;
  };
  return { clock, a, b, gateway, lost, write };
}

test('the server that the predecessor used is written to at once: it keeps the order itself', async () => {
  const { gateway, write } = takeOver({ servers: [serverA], unflushed: 'none' });
  gateway.start();
  const first = write();
  await settled();
  assert.ok(first.done);
});

test('another server gets no write until none of the predecessor can land on the first; reads are free', async () => {
  const { gateway, clock, a, write } = takeOver({ servers: [serverA], unflushed: 'none' });
  a.found = new Failure('timed-out');
  gateway.start();
  await clock.advance(1000);
  const first = write();
  await gateway.read(4096, Buffer.alloc(512));
  await clock.advance(58_000);
  assert.ok(!first.done, 'a deadline 60 s ahead has not passed');
  await clock.advance(2500);
  assert.ok(first.done);
});

test('a write fails only when the same one, sent by the predecessor, has landed or never will', async () => {
  const times = { requestTimeoutMs: 3000, ioTimeoutMs: 3010 };
  const { gateway, clock, a, b } = takeOver({ servers: [serverA], unflushed: 'none' }, times);
  a.found = new Failure('timed-out');
  b.found = new Failure('timed-out');
  gateway.start();
  let failed = false;
  const outcome = assert.rejects(gateway.trim(0, 512, false), /no server did it in time/).then(() => {
    failed = true;
  });
  const behind = assert.rejects(gateway.trim(0, 512, false), /in time/);
  await clock.advance(3990);
  assert.ok(!failed, 'its deadline was 3 s ahead, and a second more is for the disk');
  await clock.advance(500);
  assert.ok(failed);
  await Promise.all([outcome, behind]);
});

test('what the predecessor had left before counts from then', async () => {
  const former = { ...serverA, leftMsAgo: 50_000 };
  const current = { server: '10.0.0.2', endpoint: '10.0.0.2:80', instance: '10.0.0.2-1', leftMsAgo: 0 };
  const { gateway, clock, a, write } = takeOver({ servers: [current, former], unflushed: 'none' });
  a.found = new Failure('timed-out');
  gateway.start();
  await clock.advance(100);
  const first = write();
  await clock.advance(9000);
  assert.ok(!first.done);
  await clock.advance(3000);
  assert.ok(first.done);
});

test('the process of the server is gone: writes go on at once, unless a refusal proves nothing', async () => {
  for (const refusalProvesDeath of [true, false]) {
    const { gateway, clock, a, write } = takeOver({ servers: [serverA], unflushed: 'none' }, { refusalProvesDeath });
    a.found = new Failure('connection-refused');
    a.refused = true;
    gateway.start();
    await clock.advance(100);
    const first = write();
    await clock.advance(1000);
    assert.equal(first.done, refusalProvesDeath);
  }
});

test('a server that was started anew is another one, and proves the end of the old one', async () => {
  const { gateway, clock, a, write } = takeOver({ servers: [serverA], unflushed: 'none' });
  a.found = { instance: '10.0.0.1-2' };
  gateway.start();
  await clock.advance(10);
  const first = write();
  await clock.advance(10);
  assert.ok(first.done);
});

test('a server without sessions holds nothing up', async () => {
  const old = { ...serverA, instance: undefined };
  const { gateway, clock, a, write } = takeOver({ servers: [old], unflushed: 'instance' });
  a.found = new Failure('timed-out');
  gateway.start();
  await clock.advance(10);
  const first = write();
  await clock.advance(10);
  assert.ok(first.done);
});

test('what is not durable is committed first, by the instance that has it', async () => {
  for (const writeBack of [undefined, { budgetBytes: 65_536 }]) {
    const { gateway, clock, a, write, lost } = takeOver({ servers: [serverA], unflushed: 'instance' }, { writeBack });
    a.automatic = false;
    gateway.start();
    const first = write();
    await clock.advance(10);
    assert.deepEqual(
      a.outstanding.map(({ request }) => request),
      [{ op: 'flush', instance: '10.0.0.1-1' }],
    );
    a.outstanding[0]?.answer();
    await clock.advance(10);
    assert.deepEqual(
      a.outstanding.map(({ request }) => request.op),
      ['write'],
    );
    a.outstanding[0]?.answer({ instance: '10.0.0.1-1' });
    await clock.advance(10);
    assert.ok(first.done);
    assert.equal(lost(), 0);
  }
});

test('while the instance that has it is silent, no other will do', async () => {
  const { gateway, clock, a, b, lost } = takeOver({ servers: [serverA], unflushed: 'instance' });
  a.found = 'silence';
  gateway.start();
  await clock.advance(20_000);
  assert.equal(lost(), 0);
  assert.ok(b.probes > 0);
  a.found = {};
  await clock.advance(10_000);
  await gateway.read(0, Buffer.alloc(512));
});

test('an answer that the disk is not open counts only from the very address of the instance that has it', async () => {
  for (const found of [
    new Failure('unavailable', 'said by whatever is in between'),
    new NoDisk('another server', '10.0.0.2:80'),
  ]) {
    const { gateway, clock, a, lost } = takeOver({ servers: [serverA], unflushed: 'instance' });
    a.found = found;
    gateway.start();
    await clock.advance(20_000);
    assert.equal(lost(), 0, found.message);
  }
  const moves = takeOver({ servers: [serverA], unflushed: 'instance' }, { refusalProvesDeath: false });
  moves.a.found = new NoDisk('the address moves between hosts', '10.0.0.1:80');
  moves.gateway.start();
  await moves.clock.advance(20_000);
  assert.equal(moves.lost(), 0);
});

test('a server without a disk may still be at writes that the predecessor sent', async () => {
  const { gateway, clock, a, write } = takeOver({ servers: [serverA], unflushed: 'none' });
  a.found = new NoDisk('stopping', '10.0.0.1:80');
  gateway.start();
  await clock.advance(1000);
  const first = write();
  await clock.advance(58_000);
  assert.ok(!first.done);
  await clock.advance(2500);
  assert.ok(first.done);
});

test('what was acknowledged and is gone is told, and nothing is served any more', async () => {
  const restarted = takeOver({ servers: [serverA], unflushed: 'instance' });
  restarted.a.found = { instance: '10.0.0.1-2' };
  const refused = takeOver({ servers: [serverA], unflushed: 'instance' });
  refused.a.found = new Failure('connection-refused');
  refused.a.refused = true;
  const withoutDisk = takeOver({ servers: [serverA], unflushed: 'instance' });
  withoutDisk.a.found = new NoDisk('HTTP status 503', '10.0.0.1:80');
  const midReplay = takeOver({ servers: [serverA], unflushed: 'nobody' });
  for (const { gateway, clock, a, b, lost } of [restarted, refused, withoutDisk, midReplay]) {
    gateway.start();
    void gateway.read(0, Buffer.alloc(512)).catch(() => {});
    await clock.advance(5000);
    assert.equal(lost(), 1);
    assert.deepEqual([...a.outstanding, ...b.outstanding], []);
  }
});

test('the disk that goes during the commit is lost, too', async () => {
  const { gateway, clock, a, b, lost } = takeOver({ servers: [serverA], unflushed: 'instance' });
  a.automatic = false;
  gateway.start();
  await clock.advance(10);
  a.found = new NoDisk('HTTP status 503', '10.0.0.1:80');
  a.outstanding[0]?.fail(new Failure('unavailable', 'the disk has gone'));
  await clock.advance(5000);
  assert.equal(lost(), 1);
  assert.deepEqual([...a.outstanding, ...b.outstanding], []);
});
