/** How many connections there are, how long they live, and what becomes of requests when they end. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { HttpBackend, HttpBackendOptions } from '../../../src/http-client/http-backend.js';
import type { DiskRequest } from '../../../src/http-disk/messages.js';
import { ManualClock } from './manual-clock.js';
import {
  type Answer,
  ask,
  backendFor,
  codeOf,
  diskAnswer,
  type RawRequest,
  RawServer,
  read,
  session,
  testDisk,
  write,
} from './raw-server.js';

const disk = testDisk(4 << 20);
const proper = diskAnswer(disk, { announces: session });
const flush: Extract<DiskRequest, { op: 'flush' }> = { op: 'flush' };

async function start(
  t: TestContext,
  answer: Answer,
  options: Partial<HttpBackendOptions> = {},
): Promise<{ server: RawServer; backend: HttpBackend }> {
  const server = await RawServer.start(t, answer);
  const backend = backendFor(t, server.url, options);
  await backend.probe();
  return { server, backend };
}

/** Answers HEAD; keeps the rest, to be answered by the test. */
function holding(): { answer: Answer; held: RawRequest[] } {
  const held: RawRequest[] = [];
  return { held, answer: (request) => void (request.method === 'HEAD' ? proper(request) : held.push(request)) };
}

test('the connection of the probe is the first one that is used', async (t) => {
  const { backend, server } = await start(t, proper);
  await read(backend, 0, 512);
  await read(backend, 512, 512);
  assert.deepEqual(
    server.requests.map(({ connection }) => connection),
    [0, 0, 0],
  );
});

test('a request of one class does not hold back those of another', async (t) => {
  const held: RawRequest[] = [];
  const { backend, server } = await start(t, (request) => {
    const isSmallRead = request.method === 'GET' && request.fields['range']?.endsWith('-511') === true;
    if (request.method === 'HEAD' || isSmallRead) proper(request);
    else held.push(request);
  });
  const others = [ask(backend, flush, null, null), read(backend, 0, 1 << 20), write(backend, 0, Buffer.alloc(512, 1))];
  await server.until(() => held.length === 3);
  await read(backend, 0, 512);
  for (const request of held) proper(request);
  await Promise.all(others);
});

test('connections are bounded, however much is asked for at once', async (t) => {
  const { held, answer } = holding();
  const { backend, server } = await start(t, answer);
  const all: Promise<unknown>[] = [];
  for (let index = 0; index < 64; index++) {
    all.push(read(backend, index * 4096, 4096), read(backend, index * 4096, 100_000));
    all.push(write(backend, index * 4096, Buffer.alloc(8192, index)), ask(backend, flush, null, null));
  }
  await server.until(() => held.length === all.length);
  assert.equal(server.open, 6);
  for (const request of held) proper(request);
  await Promise.all(all);
});

test('requests are sent once more when the server has announced that it does not look at them', async (t) => {
  const { backend, server } = await start(t, (request) => {
    // As nginx does after keepalive_requests: the fourth answer of a connection is its last, what follows is not read.
    if (request.index > 3) return;
    if (request.index < 3) return proper(request);
    diskAnswer(disk, { fields: ['Connection: close'] })(request);
    request.socket.end();
  });
  const offsets = Array.from({ length: 40 }, (_, index) => index * 4096);
  const answers = await Promise.all(offsets.map((offset) => read(backend, offset, 4096)));
  answers.forEach(({ data }, index) => {
    assert.ok(data.equals(disk.subarray(index * 4096, index * 4096 + 4096)), `read ${index}`);
  });
  assert.ok(server.sockets.length >= 10);
});

test('a write behind an announced close is not sent again: its outcome is unknown', async (t) => {
  const { held, answer } = holding();
  const { backend, server } = await start(t, answer);
  const size = 512 * 1024; // each write takes a connection of its own, the third shares one
  const outcomes = [0, 1, 2].map((index) => codeOf(write(backend, index * size, Buffer.alloc(size))));
  await server.until(() => held.length === 3);
  const shared = held.find(({ index }) => index === 1);
  const first = held.find((request) => request.connection === shared?.connection);
  const other = held.find((request) => request !== shared && request !== first);
  assert.ok(first !== undefined && other !== undefined);
  first.reply('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  proper(other);
  assert.deepEqual((await Promise.all(outcomes)).sort(), ['connection-lost', 'no failure', 'no failure']);
  assert.equal(held.length, 3);
});

test('a reset ends what was sent as lost', async (t) => {
  const { held, answer } = holding();
  const { backend, server } = await start(t, answer);
  const outcomes = [codeOf(read(backend, 0, 512)), codeOf(write(backend, 0, Buffer.alloc(512)))];
  await server.until(() => held.length === 2);
  for (const { socket } of held) socket.resetAndDestroy();
  assert.deepEqual(await Promise.all(outcomes), ['connection-lost', 'connection-lost']);
});

test('what had to wait behind a write has certainly not been sent', async (t) => {
  // Longer than what the sockets' buffers hold.
  const bytes = Buffer.alloc(32 << 20);
  const { backend, server } = await start(t, diskAnswer(bytes));
  server.onHead = ({ method, socket }) => void (method === 'PUT' && socket.pause());
  const long = [0, 1].map(() => codeOf(write(backend, 0, bytes)));
  await server.until(() => server.heads.filter(({ method }) => method === 'PUT').length === 2);
  const waiting = codeOf(write(backend, 0, bytes));
  for (const socket of server.sockets) socket.resetAndDestroy();
  assert.deepEqual(await Promise.all([...long, waiting]), ['connection-lost', 'connection-lost', 'unavailable']);
});

test('what could not be connected for is refused or unavailable, which are certain', async (t) => {
  const { backend, server } = await start(t, proper);
  await server.close();
  await server.until(() => server.open === 0);
  // The connection of the probe may still be believed in.
  await codeOf(read(backend, 0, 512));
  assert.equal(await codeOf(read(backend, 0, 512)), 'connection-refused');
  assert.equal(await codeOf(write(backend, 0, Buffer.alloc(512))), 'connection-refused');
  assert.equal(await codeOf(backend.probe()), 'connection-refused');
});

test('an idle connection is used for half of the announced time, and then closed quietly', async (t) => {
  const clock = new ManualClock();
  const announcing = diskAnswer(disk, { announces: ['Keep-Alive: timeout=20'], fields: ['Keep-Alive: timeout=20'] });
  const { backend, server } = await start(t, announcing, { clock });
  for (let round = 0; round < 2; round++) {
    clock.advance(9_900);
    await read(backend, 0, 512);
    assert.equal(server.sockets.length, 1);
  }
  clock.advance(10_100);
  await read(backend, 0, 512);
  assert.equal(server.sockets.length, 2);
  clock.advance(12_000);
  await server.until(() => server.open === 0);
});

test('without an announced time an idle connection is used for two seconds', async (t) => {
  const clock = new ManualClock();
  const { backend, server } = await start(t, proper, { clock });
  clock.advance(1_900);
  await read(backend, 0, 512);
  assert.equal(server.sockets.length, 1);
  clock.advance(2_100);
  await server.until(() => server.open === 0);
  await read(backend, 0, 512);
  assert.equal(server.sockets.length, 2);
});

test('an unasked answer on an idle connection harms nobody', async (t) => {
  const { backend, server } = await start(t, proper);
  server.sockets[0]?.write('HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n');
  await server.until(() => server.open === 0);
  await read(backend, 0, 512);
});

test('after a second probe, the first connections go on; the new one is not kept beside them', async (t) => {
  const { backend, server } = await start(t, proper);
  await backend.probe();
  await server.until(() => server.open === 1);
  await read(backend, 0, 512);
  assert.equal(server.requests.at(-1)?.connection, 0);
});

test('a server that closes after each answer gets one connection and one request at a time', async (t) => {
  const closing = diskAnswer(disk, { announces: ['Connection: close'], fields: ['Connection: close'] });
  let unanswered = 0;
  let unansweredMax = 0;
  const { backend, server } = await start(t, (request) => {
    unanswered += 1;
    unansweredMax = Math.max(unansweredMax, unanswered);
    // Late enough for others to arrive, if there were any.
    setTimeout(() => {
      unanswered -= 1;
      closing(request);
      request.socket.end();
    }, 5);
  });
  const outcomes = await Promise.all([
    ...[0, 1, 2, 3, 4].map(async (index) => (await read(backend, index * 512, 512)).data.readUInt32BE(0)),
    write(backend, 1 << 20, Buffer.alloc(512, 9)).then(() => 'written'),
  ]);
  assert.deepEqual(outcomes, [...[0, 1, 2, 3, 4].map((index) => disk.readUInt32BE(index * 512)), 'written']);
  assert.ok(server.requests.every(({ index }) => index === 0));
  assert.equal(unansweredMax, 1);
});

test('a server that stops keeping connections is believed, and so is one that begins to', async (t) => {
  const closing = diskAnswer(disk, { announces: ['Connection: close'], fields: ['Connection: close'] });
  const { backend, server } = await start(t, closing);
  await read(backend, 0, 512);
  server.answer = diskAnswer(disk);
  const offsets = Array.from({ length: 32 }, (_, index) => index * 4096);
  await Promise.all(offsets.map((offset) => read(backend, offset, 4096)));
  assert.ok(
    server.requests.some(({ index }) => index > 5),
    'pipelined as soon as it was known',
  );
  server.answer = closing;
  const before = server.requests.length;
  await Promise.all(offsets.slice(0, 4).map((offset) => read(backend, offset, 4096)));
  await Promise.all(offsets.slice(0, 4).map((offset) => read(backend, offset, 4096)));
  assert.ok(server.requests.slice(before + 6).every(({ index }) => index === 0));
});

test('a request that was sent before the server was known ends well, and its connection with it', async (t) => {
  const { held, answer } = holding();
  const server = await RawServer.start(t, answer);
  const backend = backendFor(t, server.url, { clock: new ManualClock() });
  const early = read(backend, 0, 512);
  await server.until(() => held.length === 1);
  await backend.probe();
  for (const request of held) proper(request);
  await early;
  await server.until(() => server.open === 1);
  assert.equal(server.sockets[0]?.destroyed, true);
});

test('abandon rejects everything, touches no buffer any more, and leaves a backend that works', async (t) => {
  const { held, answer } = holding();
  const { backend, server } = await start(t, answer);
  const into = Buffer.alloc(100_000, 0xee);
  const outcomes = [
    codeOf(ask(backend, { op: 'read', offset: 0, length: into.length }, null, into)),
    codeOf(read(backend, 0, 512)),
    codeOf(write(backend, 0, Buffer.alloc(3 << 20))),
    codeOf(ask(backend, flush, null, null)),
    codeOf(read(backend, 0, 512)),
  ];
  await server.until(() => held.length >= 3);
  // Half of the answer has come when it is given up.
  const large = held.find(({ fields }) => fields['range'] === 'bytes=0-99999');
  large?.reply(
    `HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99999/${disk.length}\r\nContent-Length: 100000\r\n`,
  );
  outcomes.push(codeOf(backend.probe()));
  backend.abandon();
  outcomes.push(codeOf(read(backend, 0, 512)));
  backend.abandon();
  assert.deepEqual(
    await Promise.all(outcomes),
    Array.from({ length: 7 }, () => 'connection-lost'),
  );
  large?.reply('\r\n', Buffer.alloc(100_000, 0x11));
  server.answer = proper;
  await backend.probe();
  assert.ok((await read(backend, 0, 512)).data.equals(disk.subarray(0, 512)));
  assert.ok(into.every((byte) => byte === 0xee));
  await server.until(() => server.open === 1);
});

test('a server that has moved is used where it is now; what is under way comes to its end', async (t) => {
  const { held, answer } = holding();
  const old = await RawServer.start(t, answer);
  const now = await RawServer.start(t, proper);
  let target = old;
  const entrance = await RawServer.start(t, (request) => {
    request.reply(`HTTP/1.1 307 Moved\r\nLocation: ${target.url}/disk\r\nContent-Length: 0\r\n\r\n`);
  });
  // No connection is closed for being idle: the clock stands still.
  const backend = backendFor(t, entrance.url, { clock: new ManualClock() });
  await backend.probe();
  const slow = read(backend, 0, 512);
  await old.until(() => held.length === 1);
  target = now;
  await backend.probe();
  await read(backend, 512, 512);
  assert.equal(now.requests.at(-1)?.path, '/disk');
  for (const request of held) proper(request);
  await slow;
  await old.until(() => old.open === 0);
});
