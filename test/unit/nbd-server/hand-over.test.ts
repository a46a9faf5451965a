/** `Transmission.stop()`: one process hands a connection over to the next, and the client notices nothing. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { command, payloadBytesMax } from '../../../src/nbd/constants.js';
import { Gate } from '../../support/gate.js';
import { startRelay } from './relay.js';
import { mebibyte, until } from './harness.js';

test('a connection that is idle is handed over with no bytes', async (t) => {
  const { client, relay } = await startRelay(t);
  assert.equal((await client.read(0, 10)).length, 10);
  assert.deepEqual(await relay.handOver(), Buffer.alloc(0));
  assert.equal((await client.read(0, 10)).length, 10);
});

test('what is in flight is answered by the one who took it', async (t) => {
  const { client, relay, volume } = await startRelay(t);
  const gate = new Gate();
  volume.gate = gate.passed;
  const answers = [
    client.read(0, mebibyte),
    client.write(0, Buffer.from('abc')),
    client.request({ type: command.flush }),
  ];
  await client.request({ type: command.trim, offset: 2 ** 52, length: 1 });
  let isHanded = false;
  const handed = relay.handOver().then((rest) => {
    isHanded = true;
    return rest;
  });
  const late = client.read(0, 3);
  for (let round = 0; round < 10; round += 1) await new Promise((resolve) => void setImmediate(resolve));
  assert.equal(isHanded, false);
  volume.gate = undefined;
  gate.open();
  await Promise.all(answers);
  await handed;
  assert.equal((await late).toString(), 'abc');
});

test('a request of which a part has come is served by the successor, once', async (t) => {
  const payload = Buffer.from('0123456789');
  for (const cut of [1, 27, 28, 29, 37]) {
    const { client, relay, volume } = await startRelay(t);
    const writes: string[] = [];
    const write = volume.write.bind(volume);
    volume.write = (offset, bytes, fua) => {
      writes.push(bytes.toString());
      return write(offset, bytes, fua);
    };
    const bytes = client.encode({ type: command.write, payload });
    client.send(bytes.subarray(0, cut));
    await until(() => relay.receivedBytes === cut, 'the first part');
    assert.deepEqual(await relay.handOver(), bytes.subarray(0, cut));
    client.send(bytes.subarray(cut));
    assert.equal((await client.take(16)).readUInt32BE(4), 0);
    assert.deepEqual(writes, ['0123456789'], `cut at ${cut}`);
  }
});

test('requests that wait for payload bytes are handed over or answered, and hold nothing afterwards', async (t) => {
  for (const type of [command.read, command.write]) {
    const { client, relay, budget } = await startRelay(t);
    budget.tryTake(96 * mebibyte);
    const length = payloadBytesMax;
    const payload = type === command.write ? Buffer.alloc(length, 'p') : Buffer.alloc(0);
    const answer = client.request({ type, length, payload });
    await until(() => budget.isWanted, 'the request has come');
    const handed = relay.handOver();
    if (type === command.read) budget.give(96 * mebibyte);
    await handed;
    if (type === command.write) budget.give(96 * mebibyte);
    assert.equal((await answer).error, null);
    await until(() => budget.takenBytes === 0, 'everything is given back');
  }
});

test('a payload that is being skipped is skipped to its end first, whatever else is answered meanwhile', async (t) => {
  const { client, relay, volume } = await startRelay(t);
  const gate = new Gate();
  volume.gate = gate.passed;
  const flushed = client.request({ type: command.flush });
  const length = 100_000;
  const answer = client.request({ type: command.write, flags: 0x8000, length, payload: Buffer.alloc(1000) });
  await until(() => relay.receivedBytes === 28 + 1028, 'the first part');
  const handed = relay.handOver();
  gate.open();
  assert.equal((await flushed).error, null);
  client.send(Buffer.alloc(length - 1000));
  const next = client.read(0, 5);
  assert.equal((await answer).error, 'EINVAL');
  await handed;
  assert.equal((await next).length, 5);
});

test('what is over is not handed over', async (t) => {
  const ends = [
    (client: { socket: { end: () => unknown } }) => void client.socket.end(),
    (client: { destroy: () => void }) => client.destroy(),
  ];
  for (const end of ends) {
    const { client, relay } = await startRelay(t);
    await client.read(0, 1);
    end(client);
    await until(() => relay.overs === 1, 'the end');
    assert.equal(await relay.stop(), null);
    assert.equal(relay.overs, 1);
  }
});

test('a client that leaves while its connection is handed over leaves nothing to take over', async (t) => {
  for (const isSkipping of [true, false]) {
    const { client, relay, volume, budget } = await startRelay(t);
    const gate = new Gate();
    volume.gate = gate.passed;
    if (isSkipping) client.send(client.encode({ type: command.write, flags: 0x8000, length: 1000 }));
    else client.read(0, 1000).catch(() => {});
    await until(() => relay.receivedBytes === 28, 'the request');
    const stopped = relay.stop();
    if (isSkipping) client.socket.end();
    else client.destroy();
    // Somebody who does not read does not see a client leave; the owner of the socket does.
    if (!isSkipping) relay.break();
    assert.equal(await stopped, null);
    assert.equal(relay.overs, 1);
    gate.open();
    await until(() => budget.takenBytes === 0, 'everything is given back');
  }
});
