/** How a connection ends: everything that was received is answered first, unless the socket breaks. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { command } from '../../../src/nbd/constants.js';
import { requestsMax } from '../../../src/nbd-server/transmission.js';
import { Gate } from '../../support/gate.js';
import type { NbdClient, Reply } from '../../support/nbd-client.js';
import { mebibyte, serve, until } from './harness.js';

/** Some of each kind. */
function load(client: NbdClient): Promise<Reply>[] {
  return [
    client.request({ type: command.read, length: 4096 }),
    client.request({ type: command.read, length: mebibyte }),
    client.request({ type: command.write, payload: Buffer.alloc(4096, 'w') }),
    client.request({ type: command.write, payload: Buffer.alloc(mebibyte, 'w') }),
    client.request({ type: command.flush }),
    client.request({ type: command.trim, offset: 2 ** 52, length: 1 }),
  ];
}

const errors = [null, null, null, null, null, 'EINVAL'];

const endings: [string, (client: NbdClient) => void, RegExp | undefined][] = [
  ['DISC', (client) => client.send(client.encode({ type: command.disconnect })), undefined],
  ['a half-closed socket', (client) => void client.socket.end(), undefined],
  ['garbage', (client) => client.send(Buffer.alloc(100_000, 'x')), /magic number is wrong/],
  [
    'DISC and garbage',
    (client) => client.send(Buffer.concat([client.encode({ type: command.disconnect }), Buffer.alloc(100_000, 'x')])),
    undefined,
  ],
  [
    'half a request and a half-closed socket',
    (client) => void client.socket.end(client.encode({ type: command.read, length: 1 }).subarray(0, 20)),
    undefined,
  ],
  [
    'half a payload and a half-closed socket',
    (client) =>
      void client.socket.end(client.encode({ type: command.write, length: 100, payload: Buffer.from('half') })),
    undefined,
  ],
  [
    'half a refused payload and a half-closed socket',
    (client) =>
      void client.socket.end(client.encode({ type: command.write, length: 2 ** 32 - 1, payload: Buffer.from('half') })),
    undefined,
  ],
];

for (const [what, end, fault] of endings) {
  for (const structured of [true, false]) {
    test(`${what}: what is in flight is answered before the close (${structured ? 'structured' : 'simple'})`, async (t) => {
      const { open, volume, server, events } = await serve(t, 2 * mebibyte);
      const client = await open({ structured });
      const gate = new Gate();
      volume.gate = gate.passed;
      const answers = load(client);
      await answers.at(-1);
      end(client);
      const other = await open();
      for (let round = 0; round < 5; round += 1)
        await other.request({ type: command.trim, offset: 2 ** 52, length: 1 });
      assert.equal(server.clients, 2);
      gate.open();
      const replies = await Promise.all(answers);
      assert.deepEqual(
        replies.map(({ error }) => error),
        errors,
      );
      await client.closed;
      await until(() => server.clients === 1, 'the end of the connection');
      const last = events.at(-1);
      assert.ok(last?.type === 'disconnected');
      if (fault === undefined) assert.equal(last.fault, undefined);
      else assert.match(last.fault ?? '', fault);
    });
  }
}

test('a client that sends much and closes its side is answered to the last request', async (t) => {
  const { open } = await serve(t, mebibyte);
  const client = await open();
  const count = 20 * requestsMax;
  const answers = Array.from({ length: count }, () => client.request({ type: command.read, length: 8192 }));
  client.socket.end();
  client.socket.pause();
  await (await open()).read(0, 1);
  client.socket.resume();
  const replies = await Promise.all(answers);
  assert.ok(replies.every(({ error, data }) => error === null && data.length === 8192));
  await client.closed;
});

test('DISC is not answered', async (t) => {
  const client = await (await serve(t, mebibyte)).open();
  client.send(client.encode({ type: command.disconnect }));
  await assert.rejects(client.take(1), /0 bytes were left/);
});

test('a client that vanishes while its requests are served harms nobody, and all buffers come back', async (t) => {
  const { open, volume, server, buffers } = await serve(t, 2 * mebibyte);
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
  const gate = new Gate();
  volume.gate = gate.passed;
  for (let round = 0; round < 5; round += 1) {
    const client = await open();
    const answers = load(client).map((answer) => answer.catch(() => null));
    assert.equal((await answers.at(-1))?.error, 'EINVAL');
    client.send(client.encode({ type: command.write, length: 1000, payload: Buffer.from('half') }));
    client.destroy();
  }
  assert.ok(out >= 5 * 4, `${out}`);
  volume.gate = undefined;
  gate.open();
  await until(() => server.clients === 0, 'the end of the connections');
  await until(() => out === 0, 'the return of all buffers');
  assert.equal((await (await open()).read(0, 1)).length, 1);
});

test('closing the server ends every connection at once, whatever it is doing', async (t) => {
  const { open, connect, volume, server } = await serve(t, 64 * mebibyte);
  const clients = await Promise.all([open(), open(), open(), open(), connect()]);
  const [serving, receiving, deaf] = clients;
  assert.ok(serving !== undefined && receiving !== undefined && deaf !== undefined);
  deaf.socket.pause();
  const unread = Promise.allSettled(
    Array.from({ length: 9 }, () => deaf.request({ type: command.read, length: 8 * mebibyte })),
  );
  await receiving.read(0, 1);
  receiving.send(receiving.encode({ type: command.write, length: 1000, payload: Buffer.from('half') }));
  volume.gate = new Gate().passed;
  const unanswered = Promise.allSettled(load(serving).slice(0, 5));
  await serving.request({ type: command.trim, offset: 2 ** 52, length: 1 });
  await server.close();
  assert.equal(server.clients, 0);
  for (const { status } of await unanswered) assert.equal(status, 'rejected');
  deaf.socket.resume();
  await unread;
  for (const client of clients) await client.take(2 ** 30).catch(() => {});
  await Promise.all(clients.map(({ closed }) => closed));
});

test('clients that come while the server closes are turned away', async (t) => {
  const { connect, server } = await serve(t, mebibyte);
  const coming = Array.from({ length: 50 }, () => connect());
  const closed = server.close();
  for (const client of await Promise.allSettled(coming)) if (client.status === 'fulfilled') client.value.destroy();
  await closed;
  assert.equal(server.clients, 0);
});
