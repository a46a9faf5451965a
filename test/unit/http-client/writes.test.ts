/** What goes out for a write, and when its bytes are the caller's again. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { HttpBackend } from '../../../src/http-client/http-backend.js';
import type { WriteStamp } from '../../../src/http-disk/messages.js';
import {
  type Answer,
  ask,
  backendFor,
  codeOf,
  diskAnswer,
  instance,
  RawServer,
  read,
  session,
  testDisk,
  write,
} from './raw-server.js';

const sizeBytes = 64 << 20;

async function start(t: TestContext, answer: Answer): Promise<{ server: RawServer; backend: HttpBackend }> {
  const server = await RawServer.start(t, answer);
  const backend = backendFor(t, server.url);
  await backend.probe();
  return { server, backend };
}

const stamp: WriteStamp = { session: 's', epoch: { generation: 1, counter: 2 }, instance: 'one', deadlineMs: 5000 };

test('writes of many sizes, all at once, arrive as they are, with their length and nothing else', async (t) => {
  const disk = Buffer.alloc(sizeBytes);
  const { backend, server } = await start(t, diskAnswer(disk, { announces: session }));
  const lengths = [1, 512, 4096, 16_384, 16_385, 70_000, 4096, 5 << 20, 512, 300_000, 1 << 20];
  let offset = 0;
  const expected = Buffer.alloc(sizeBytes);
  await Promise.all(
    lengths.map((length, index) => {
      const bytes = testDisk(length).fill(index + 1, 0, Math.min(length, 8));
      bytes.copy(expected, offset);
      const sent = write(backend, offset, bytes);
      offset += length + 3;
      return sent;
    }),
  );
  assert.ok(disk.equals(expected));
  for (const { method, fields, body } of server.requests) {
    if (method !== 'PUT') continue;
    assert.equal(fields['content-length'], String(body.length));
    assert.equal(fields['transfer-encoding'], undefined);
    assert.equal(fields['expect'], undefined);
  }
});

test('each operation is sent as the protocol has it', async (t) => {
  const { backend, server } = await start(t, diskAnswer(Buffer.alloc(8192), { announces: session, fields: instance }));
  const range = { offset: 4096, length: 512 };
  await ask(backend, { op: 'write', ...range, deferred: true, stamp }, Buffer.alloc(512), null);
  await ask(backend, { op: 'zero', ...range, deferred: false, stamp, mayTrim: true, fast: false }, null, null);
  await ask(backend, { op: 'trim', ...range, deferred: false, stamp }, null, null);
  const flushed = await ask(backend, { op: 'flush', instance: 'one' }, null, null);
  assert.deepEqual(flushed, { instance: 'one', clockMs: 1001 });
  const seen = server.requests.map(({ method, fields }) => [
    method,
    fields['disk-operation'],
    fields['content-range'],
    fields['content-length'],
    fields['disk-stamp'] ?? fields['disk-if-instance'],
  ]);
  assert.deepEqual(seen, [
    ['HEAD', undefined, undefined, undefined, undefined],
    ['PUT', undefined, 'bytes 4096-4607/*', '512', 's 1.2 one 5000'],
    ['POST', 'zero; may-trim', 'bytes 4096-4607/*', '0', 's 1.2 one 5000'],
    ['POST', 'trim', 'bytes 4096-4607/*', '0', 's 1.2 one 5000'],
    ['POST', 'flush', undefined, '0', 'one'],
  ]);
});

test('a map is decoded', async (t) => {
  const proper = diskAnswer(Buffer.alloc(8192), { announces: session });
  const { backend } = await start(t, (request) => {
    if (request.method === 'HEAD') return proper(request);
    const body = '[[4096,"data"],[4096,"hole"]]';
    request.reply(['HTTP/1.1 200 OK', `Content-Length: ${body.length}`, ...instance, '', body].join('\r\n'));
  });
  const answer = await ask(backend, { op: 'map', offset: 0, length: 8192, instance: 'one' }, null, null);
  assert.deepEqual(answer.extents, [
    { offset: 0, length: 4096, kind: 'data' },
    { offset: 4096, length: 4096, kind: 'hole' },
  ]);
});

test('a stamped write that is answered without an instance is not taken as done', async (t) => {
  const { backend } = await start(t, diskAnswer(Buffer.alloc(8192), { announces: session }));
  const sent = ask(backend, { op: 'write', offset: 0, length: 4, deferred: false, stamp }, Buffer.alloc(4), null);
  assert.equal(await codeOf(sent), 'malformed-response');
});

test('nothing is written behind the end of the disk, nor before the disk is known', async (t) => {
  const server = await RawServer.start(t, diskAnswer(Buffer.alloc(8192)));
  const backend = backendFor(t, server.url);
  assert.equal(await codeOf(write(backend, 0, Buffer.alloc(512))), 'out-of-range');
  await backend.probe();
  assert.equal(await codeOf(write(backend, 8191, Buffer.alloc(2))), 'out-of-range');
  assert.equal(server.requests.length, 1);
});

/** Answers a write as soon as its head has arrived, and does not read its body. */
async function startImpatient(
  t: TestContext,
  answer: string,
): Promise<{ backend: HttpBackend; server: RawServer; resume: () => void; cut: () => void }> {
  const proper = diskAnswer(Buffer.alloc(sizeBytes));
  const { backend, server } = await start(t, proper);
  let impatient: (typeof server.sockets)[number] | undefined;
  server.onHead = ({ method, socket }) => {
    if (method !== 'PUT' || impatient !== undefined) return;
    impatient = socket;
    socket.pause();
    socket.write(answer);
  };
  return {
    backend,
    server,
    resume: () => impatient?.resume(),
    cut: () => impatient?.resetAndDestroy(),
  };
}

const busy = 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n';
const done = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';

/** Sends a write that no socket buffer holds, and waits until its early answer has certainly been received. */
async function startLongWrite(
  backend: HttpBackend,
  server: RawServer,
): Promise<{ code: Promise<string>; readonly settled: () => boolean }> {
  let isSettled = false;
  const code = codeOf(write(backend, 0, Buffer.alloc(32 << 20))).finally(() => (isSettled = true));
  await server.until(() => server.heads.some(({ method }) => method === 'PUT'));
  for (let round = 0; round < 3; round++) await read(backend, 0, 512);
  return { code, settled: () => isSettled };
}

test('an early refusal is told only when the socket has finished with the bytes', async (t) => {
  const { backend, server, resume } = await startImpatient(t, busy);
  const { code, settled } = await startLongWrite(backend, server);
  assert.equal(settled(), false);
  resume();
  assert.equal(await code, 'unavailable');
});

test('an early refusal holds when the connection ends then', async (t) => {
  const { backend, server, cut } = await startImpatient(t, busy);
  const { code } = await startLongWrite(backend, server);
  cut();
  assert.equal(await code, 'unavailable');
});

test('an early success is none when the connection ends then', async (t) => {
  const { backend, server, cut } = await startImpatient(t, done);
  const { code } = await startLongWrite(backend, server);
  cut();
  assert.equal(await code, 'connection-lost');
});
