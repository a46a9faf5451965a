/** What the owner of a connection can rely on, beyond what its client sees. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { command } from '../../../src/nbd/constants.js';
import { requestsMax } from '../../../src/nbd-server/transmission.js';
import { Gate } from '../../support/gate.js';
import { until } from './harness.js';
import { startRelay } from './relay.js';

test('the end of the input may be told while the flow is paused: what was received before is served', async (t) => {
  const { client, relay, volume } = await startRelay(t);
  const gate = new Gate();
  volume.gate = gate.passed;
  const count = requestsMax + 50;
  const answers = Array.from({ length: count }, () => client.request({ type: command.flush }));
  await until(() => relay.receivedBytes === 28 * count, 'all requests');
  relay.end();
  volume.gate = undefined;
  gate.open();
  for (const { error } of await Promise.all(answers)) assert.equal(error, null);
  await until(() => relay.overs === 1, 'the end');
});

test('what comes after DISC is read and thrown away, also when the flow was paused before', async (t) => {
  const { client, relay, volume } = await startRelay(t);
  const [first, second] = [new Gate(), new Gate()];
  volume.gate = first.passed;
  const count = requestsMax + 50;
  const answers = Array.from({ length: count }, () => client.request({ type: command.flush }));
  client.send(client.encode({ type: command.disconnect }));
  const requestBytes = 28 * (count + 1);
  await until(() => relay.receivedBytes === requestBytes, 'all requests');
  client.send(Buffer.alloc(1_000_000, 'x'));
  volume.gate = second.passed;
  first.open();
  await until(() => relay.receivedBytes === requestBytes + 1_000_000, 'all that came too late');
  second.open();
  for (const { error } of await Promise.all(answers)) assert.equal(error, null);
  await client.closed;
});

test('every request gives back the payload bytes and the buffers that it held, also when it fails', async (t) => {
  const { client, volume, budget, buffers } = await startRelay(t);
  let out = 0;
  const [take, give] = [buffers.take.bind(buffers), buffers.give.bind(buffers)];
  buffers.take = (length) => {
    out += 1;
    return take(length);
  };
  buffers.give = (buffer) => {
    out -= 1;
    give(buffer);
  };
  for (const length of [100, 100_000]) {
    for (const fails of [false, true]) {
      if (fails) volume.failNext = new Failure('disk-error');
      const read = await client.request({ type: command.read, length });
      assert.equal(read.error, fails ? 'EIO' : null);
      if (fails) volume.failNext = new Failure('disk-error');
      const written = await client.request({ type: command.write, payload: Buffer.alloc(length) });
      assert.equal(written.error, fails ? 'EIO' : null);
      if (fails) out -= 1; // the payload of a write is the volume's, and this one keeps it when it fails
      await until(() => budget.takenBytes === 0, 'the payload bytes are given back');
      await until(() => out === 0, 'the buffers are given back');
    }
  }
});
