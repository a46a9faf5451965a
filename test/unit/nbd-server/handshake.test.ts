/** The handshake over real sockets. What each option is answered with stands in test/unit/nbd/negotiation.test.ts. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { command, info, option, optionReply } from '../../../src/nbd/constants.js';
import { encodeOption } from '../../../src/nbd/handshake.js';
import { optionDataBytesMax } from '../../../src/nbd/handshake-reader.js';
import { decodeInfo, decodeServer, encodeInfoQuery } from '../../../src/nbd/option-data.js';
import { mebibyte, serve, until } from './harness.js';

const goQuery = encodeInfoQuery({ exportName: '', items: [] });

test('the greeting offers fixed newstyle without padding', async (t) => {
  const client = await (await serve(t, mebibyte)).connect();
  assert.equal(await client.greet(), 3);
});

test('options are answered one after the other, and GO begins the transmission phase', async (t) => {
  const client = await (await serve(t, mebibyte)).connect();
  await client.greet();
  const [listed] = await client.option(option.list);
  assert.deepEqual(decodeServer(listed?.data ?? Buffer.alloc(0)), { name: 'disk', description: 'A test' });
  const told = await client.option(option.info, encodeInfoQuery({ exportName: 'x', items: [info.blockSize] }));
  assert.deepEqual(
    told.map(({ type }) => type),
    [optionReply.info, optionReply.info, optionReply.ack],
  );
  const [size] = await client.option(option.go, goQuery);
  const item = decodeInfo(size?.data ?? Buffer.alloc(0));
  assert.ok(item?.item === info.export && item.sizeBytes === mebibyte);
  client.transmit(false);
  assert.deepEqual(await client.read(0, 4096), Buffer.alloc(4096));
});

test('unknown and oversized options are answered, and the next one is understood', async (t) => {
  const client = await (await serve(t, mebibyte)).connect();
  await client.greet();
  const tooLong = Buffer.alloc(optionDataBytesMax + 1);
  for (const [type, data, answer] of [
    [5, Buffer.alloc(0), optionReply.errUnsupported],
    [11, Buffer.alloc(0), optionReply.errUnsupported],
    [4711, tooLong, optionReply.errUnsupported],
    [option.go, tooLong, optionReply.errTooBig],
    [option.go, Buffer.from('nonsense'), optionReply.errInvalid],
  ] as const) {
    const replies = await client.option(type, data);
    assert.deepEqual(
      replies.map((reply) => reply.type),
      [answer],
    );
    assert.ok((replies[0]?.data.length ?? 0) > 0, 'an error says what is wrong');
  }
  await client.option(option.go, goQuery);
  client.transmit(false);
  assert.equal((await client.read(0, 1)).length, 1);
});

for (const [what, flags, zeroes] of [
  ['without NO_ZEROES: with 124 zeroes', 1, 124],
  ['with NO_ZEROES: without padding', 3, 0],
] as const) {
  test(`EXPORT_NAME ${what}`, async (t) => {
    const client = await (await serve(t, mebibyte)).connect();
    await client.greet(flags);
    const reply = await client.exportName('', zeroes);
    assert.equal(reply.sizeBytes, mebibyte);
    assert.deepEqual(reply.tail, Buffer.alloc(zeroes));
    client.transmit(false);
    assert.equal((await client.read(0, 1)).length, 1);
  });
}

test('requests that were sent along with the last option are served', async (t) => {
  const client = await (await serve(t, mebibyte)).connect();
  await client.greet();
  const request = client.encode({ type: command.read, offset: 0, length: 100 });
  client.send(Buffer.concat([encodeOption(option.go, goQuery), request]));
  await client.optionReplies(option.go);
  const reply = await client.take(16 + 100);
  assert.deepEqual(reply.subarray(16), Buffer.alloc(100));
});

test('a handshake that arrives byte by byte is understood', async (t) => {
  const client = await (await serve(t, mebibyte)).connect();
  await client.greet();
  for (const byte of encodeOption(option.go, goQuery)) {
    client.send(Buffer.from([byte]));
    await new Promise((resolve) => void setImmediate(resolve));
  }
  const replies = await client.optionReplies(option.go);
  assert.equal(replies.at(-1)?.type, optionReply.ack);
});

test('ABORT is acknowledged before the connection is closed', async (t) => {
  const { connect, events } = await serve(t, mebibyte);
  const client = await connect();
  await client.greet();
  const replies = await client.option(option.abort);
  assert.deepEqual(
    replies.map(({ type }) => type),
    [optionReply.ack],
  );
  await assert.rejects(client.take(1), /closed the connection, 0 bytes/);
  await until(() => events.length === 2, 'the end of the connection');
  assert.deepEqual(events[1], { type: 'disconnected', client: 'unix socket', fault: undefined });
});

for (const [what, bytes, fault] of [
  ['unknown client flags', Buffer.from('80000003', 'hex'), /unknown client flags 0x80000000/],
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), /unknown client flags/],
  [
    'a wrong magic number',
    Buffer.concat([Buffer.from('00000003', 'hex'), Buffer.alloc(70_000, 'x')]),
    /magic number is wrong/,
  ],
  [
    'an export name beyond all bounds',
    Buffer.concat([Buffer.from('00000003', 'hex'), encodeOption(option.exportName, Buffer.alloc(5000))]),
    /export name of 5000 bytes/,
  ],
] as const) {
  test(`${what}: the connection is closed, and the next client served`, async (t) => {
    const { connect, open, events, server } = await serve(t, mebibyte);
    const client = await connect();
    await client.take(18);
    client.send(bytes);
    await client.take(1).catch(() => {});
    await client.closed;
    await until(() => server.clients === 0, 'the end of the connection');
    const ended = events.at(-1);
    assert.ok(ended?.type === 'disconnected');
    assert.match(ended.fault ?? '', fault);
    assert.equal((await (await open()).read(0, 1)).length, 1);
  });
}

test('a client that leaves in the middle of the handshake is forgotten', async (t) => {
  const { connect, server, events } = await serve(t, mebibyte);
  const half = await connect();
  await half.greet();
  half.send(encodeOption(option.go, goQuery).subarray(0, 10));
  half.socket.end();
  const gone = await connect();
  gone.destroy();
  await until(() => server.clients === 0, 'the end of both connections');
  assert.ok(events.every((event) => event.type !== 'disconnected' || event.fault === undefined));
});
