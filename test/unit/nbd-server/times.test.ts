import assert from 'node:assert/strict';
import test from 'node:test';
import { command } from '../../../src/nbd/constants.js';
import { handshakeSecondsMax, stallSecondsMax } from '../../../src/nbd-server/connection.js';
import type { NbdEvent } from '../../../src/nbd-server/nbd-server.js';
import { Gate } from '../../support/gate.js';
import { mebibyte, serve, until } from './harness.js';

const hourMs = 3_600_000;

function lastFault(events: readonly NbdEvent[]): string | undefined {
  const last = events.at(-1);
  return last?.type === 'disconnected' ? last.fault : undefined;
}

test('a handshake may take its time, but not for ever', async (t) => {
  const { connect, clock, server, events } = await serve(t, mebibyte);
  const client = await connect();
  await client.greet();
  await clock.advance(handshakeSecondsMax * 1000);
  await client.option(3); // LIST: still answered
  assert.equal(server.clients, 1);
  await clock.advance(1000);
  await until(() => server.clients === 0, 'the end of the connection');
  assert.match(lastFault(events) ?? '', /handshake/);
});

test('an idle client stays connected', async (t) => {
  const { open, clock } = await serve(t, mebibyte);
  const client = await open();
  await clock.advance(hourMs);
  assert.equal((await client.read(0, 1)).length, 1);
});

test('a client that falls silent in the middle of a payload is disconnected', async (t) => {
  for (const length of [1000, 2 ** 32 - 1]) {
    const { open, clock, server, events } = await serve(t, mebibyte);
    const client = await open();
    client.send(client.encode({ type: command.write, length })); // the second one is skipped
    client.send(Buffer.alloc(10));
    await (await open()).read(0, 1);
    await clock.advance(stallSecondsMax * 1000);
    assert.equal(server.clients, 2);
    client.send(Buffer.alloc(10));
    await (await open()).read(0, 1);
    await clock.advance(stallSecondsMax * 1000);
    assert.equal(server.clients, 3, 'the time counts from the last byte');
    await clock.advance(2000);
    await until(() => server.clients === 2, 'the end of the connection');
    assert.match(lastFault(events) ?? '', /silent.*in the middle of a request/);
  }
});

test('a payload that trickles in is accepted while nobody else is kept waiting', async (t) => {
  const { open, clock } = await serve(t, mebibyte);
  const client = await open();
  const payload = Buffer.from('0123456789');
  const header = client.encode({ type: command.write, length: payload.length });
  client.send(header);
  const other = await open();
  for (const byte of payload.subarray(0, 9)) {
    client.send(Buffer.from([byte]));
    await other.read(0, 1);
    await clock.advance((stallSecondsMax - 1) * 1000);
  }
  client.send(payload.subarray(9));
  for (let data = ''; data !== '0123456789'; ) data = (await other.read(0, 10)).toString();
});

test('a client is not blamed for what the volume takes its time for', async (t) => {
  const { open, volume, clock } = await serve(t, mebibyte);
  const gate = new Gate();
  volume.gate = gate.passed;
  const client = await open();
  const answers = [client.read(0, 4096), client.write(0, Buffer.alloc(4096)), client.request({ type: command.flush })];
  await client.request({ type: command.trim, offset: mebibyte, length: 1 });
  await clock.advance(hourMs);
  gate.open();
  await Promise.all(answers);
});

test('a client that leaves its replies unread may do so while nobody else is kept waiting', async (t) => {
  const { open, clock, server } = await serve(t, mebibyte);
  const client = await open();
  client.socket.pause();
  const replies = Array.from({ length: 50 }, () => client.read(0, mebibyte));
  await (await open()).read(0, 1);
  await clock.advance(hourMs);
  assert.equal(server.clients, 2);
  client.socket.resume();
  for (const data of await Promise.all(replies)) assert.equal(data.length, mebibyte);
});

test('a client that has said goodbye, but reads no replies, is forgotten after a while', async (t) => {
  for (const end of ['DISC', 'half-closed', 'garbage'] as const) {
    const { open, clock, server } = await serve(t, mebibyte);
    const client = await open();
    client.socket.pause();
    for (let index = 0; index < 20; index += 1) {
      client.request({ type: command.read, length: mebibyte }).catch(() => {});
    }
    if (end === 'DISC') client.send(client.encode({ type: command.disconnect }));
    else if (end === 'garbage') client.send(Buffer.alloc(28, 'x'));
    else client.socket.end();
    const other = await open();
    for (let round = 0; round < 50; round += 1) await other.read(0, 1);
    await clock.advance(stallSecondsMax * 1000);
    assert.equal(server.clients, 2, end);
    await clock.advance(hourMs);
    assert.equal(server.clients, 1, end);
    assert.equal((await other.read(0, 1)).length, 1);
  }
});
