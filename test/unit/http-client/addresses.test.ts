import assert from 'node:assert/strict';
import test from 'node:test';
import { Resolver } from '../../../src/http-client/addresses.js';
import { ManualClock } from './manual-clock.js';

/** A look-up that waits for the test, and counts how many run. */
class ScriptedDns {
  readonly asked: { host: string; answer(addresses: string[]): void; fail(code: string): void }[] = [];
  running = 0;
  runningMax = 0;

  lookup = (host: string): Promise<readonly string[]> => {
    this.running += 1;
    this.runningMax = Math.max(this.runningMax, this.running);
    return new Promise<readonly string[]>((resolve, reject) => {
      this.asked.push({
        host,
        answer: (addresses) => resolve(addresses),
        fail: (code) => reject(Object.assign(new Error(code), { code })),
      });
    }).finally(() => (this.running -= 1));
  };
}

/** Lets everything happen that is ready to. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('an address is never looked up', async () => {
  const resolver = new Resolver(() => Promise.reject(new Error('asked')), new ManualClock());
  assert.deepEqual(await resolver.resolve('127.0.0.1'), ['127.0.0.1']);
  assert.deepEqual(await resolver.resolve('::1'), ['::1']);
});

test('at most two look-ups run at a time, whatever becomes of them', async () => {
  const dns = new ScriptedDns();
  const resolver = new Resolver(dns.lookup, new ManualClock());
  const hosts = ['a', 'b', 'c', 'd', 'e'];
  const answers = hosts.map((host) => resolver.resolve(host).catch(() => 'failed'));
  for (let index = 0; index < hosts.length; index++) {
    await settle();
    const question = dns.asked[index];
    if (index % 2 === 0) question?.fail('EAI_AGAIN');
    else question?.answer([`10.0.0.${index}`]);
  }
  assert.deepEqual(await Promise.all(answers), ['failed', ['10.0.0.1'], 'failed', ['10.0.0.3'], 'failed']);
  assert.equal(dns.runningMax, 2);
});

test('who asks for a name that is being looked up gets that answer; afterwards it is asked again', async () => {
  const dns = new ScriptedDns();
  const resolver = new Resolver(dns.lookup, new ManualClock());
  const both = [resolver.resolve('a'), resolver.resolve('a')];
  dns.asked[0]?.answer(['10.0.0.1', '::1']);
  assert.deepEqual(await Promise.all(both), [
    ['10.0.0.1', '::1'],
    ['10.0.0.1', '::1'],
  ]);
  assert.equal(dns.asked.length, 1);
  const later = resolver.resolve('a');
  await settle();
  dns.asked[1]?.answer(['10.0.0.2']);
  assert.deepEqual(await later, ['10.0.0.2']);
});

test('while DNS is slow or out of order, the last answer is used', async () => {
  const dns = new ScriptedDns();
  const clock = new ManualClock();
  const resolver = new Resolver(dns.lookup, clock);
  const first = resolver.resolve('a');
  dns.asked[0]?.answer(['10.0.0.1']);
  await first;
  const failing = resolver.resolve('a');
  dns.asked[1]?.fail('EAI_AGAIN');
  assert.deepEqual(await failing, ['10.0.0.1']);
  const slow = resolver.resolve('a');
  clock.advance(1000);
  assert.deepEqual(await slow, ['10.0.0.1']);
});

test('a name that is certainly gone is not resolved, and forgotten', async () => {
  const dns = new ScriptedDns();
  const resolver = new Resolver(dns.lookup, new ManualClock());
  const first = resolver.resolve('a');
  dns.asked[0]?.answer(['10.0.0.1']);
  await first;
  for (const [index, code] of ['ENOTFOUND', 'EAI_AGAIN'].entries()) {
    const gone = resolver.resolve('a');
    dns.asked[index + 1]?.fail(code);
    await assert.rejects(gone, { code: 'name-not-resolved', message: `a cannot be resolved: ${code}` });
  }
  const empty = resolver.resolve('b');
  dns.asked[3]?.answer([]);
  await assert.rejects(empty, { code: 'name-not-resolved' });
});
