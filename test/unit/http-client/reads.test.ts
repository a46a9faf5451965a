/** What is accepted as the answer to a read, and what is not: invariant 6, no fabricated data. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { HttpBackend } from '../../../src/http-client/http-backend.js';
import {
  type Answer,
  backendFor,
  codeOf,
  diskAnswer,
  instance,
  RawServer,
  read,
  session,
  testDisk,
} from './raw-server.js';

const disk = testDisk(1 << 20);

async function start(t: TestContext, answer: Answer): Promise<{ server: RawServer; backend: HttpBackend }> {
  const server = await RawServer.start(t, answer);
  const backend = backendFor(t, server.url);
  await backend.probe();
  return { server, backend };
}

/** A server of ours, or a plain one, that answers GET with exactly these lines and bytes. */
function answering(kind: 'ours' | 'plain', lines: readonly string[], body: Buffer | string): Answer {
  const proper = diskAnswer(disk, kind === 'ours' ? { announces: session } : {});
  return (request) => {
    if (request.method === 'GET') request.reply([...lines, '', ''].join('\r\n'), body);
    else proper(request);
  };
}

test('reads of many sizes, all at once, each get exactly their bytes', async (t) => {
  const { backend, server } = await start(t, diskAnswer(disk, { announces: session, fields: instance }));
  const ranges = [512, 1, 4096, 65_536, 65_537, 300_000, 4096].map((length, index) => ({
    offset: index * 4099,
    length,
  }));
  const answers = await Promise.all(ranges.map(({ offset, length }) => read(backend, offset, length, 'one')));
  answers.forEach(({ data, instance: from }, index) => {
    const { offset, length } = ranges[index] ?? { offset: 0, length: 0 };
    assert.ok(data.equals(disk.subarray(offset, offset + length)), `read ${index}`);
    assert.equal(from, 'one');
  });
  assert.equal(server.requests.find(({ method }) => method === 'GET')?.fields['disk-if-instance'], 'one');
});

test('requests are pipelined: the next ones arrive before the first is answered', async (t) => {
  const proper = diskAnswer(disk);
  const waiting: (() => void)[] = [];
  const { backend } = await start(t, (request) => {
    if (request.method !== 'GET') return proper(request);
    waiting.push(() => proper(request));
    if (waiting.length === 4) for (const answer of waiting) answer();
  });
  const answers = await Promise.all([0, 1, 2, 3].map((index) => read(backend, index * 512, 512)));
  answers.forEach(({ data }, index) => assert.ok(data.equals(disk.subarray(index * 512, index * 512 + 512))));
});

const data = disk.subarray(4096, 4096 + 512);
const label = 'Content-Range: bytes 4096-4607/1048576';
const partial = 'HTTP/1.1 206 Partial Content';
const fits = 'Content-Length: 512';

for (const [what, kind, lines, body] of [
  ['garbage', 'plain', ['garbage'], data],
  ['the whole disk instead of a range', 'plain', ['HTTP/1.1 200 OK', 'Content-Length: 1048576'], disk],
  ['the right length with status 200', 'plain', ['HTTP/1.1 200 OK', fits], data],
  ['no content', 'plain', ['HTTP/1.1 204 No Content'], ''],
  ['a body announced too short', 'plain', [partial, label, 'Content-Length: 511'], data],
  ['a body announced too long', 'plain', [partial, label, 'Content-Length: 513'], data],
  [
    'a chunked body that is too short',
    'plain',
    [partial, label, 'Transfer-Encoding: chunked'],
    '3\r\nabc\r\n0\r\n\r\n',
  ],
  ['a body in another encoding', 'plain', [partial, label, fits, 'Content-Encoding: gzip'], data],
  ['several ranges', 'plain', [partial, fits, 'Content-Type: multipart/byteranges; boundary=x'], data],
  ['data of another place', 'plain', [partial, 'Content-Range: bytes 0-511/1048576', fits], data],
  [
    'data of another place, from ours',
    'ours',
    [partial, 'Content-Range: bytes 0-511/1048576', fits, ...instance],
    data,
  ],
  [
    'a range that ends elsewhere, from ours',
    'ours',
    [partial, 'Content-Range: bytes 4096-511/9', fits, ...instance],
    data,
  ],
  ['data without its place, from ours', 'ours', [partial, fits, ...instance], data],
  ['data without its place and instance, from ours', 'ours', [partial, fits], data],
  [
    'a range that starts elsewhere, from ours',
    'ours',
    [partial, 'Content-Range: bytes 0-4607/9', fits, ...instance],
    data,
  ],
  ['no instance, from ours', 'ours', [partial, label, fits], data],
  ['an instance that is none', 'plain', [partial, label, fits, 'Disk-Instance: a b', 'Disk-Clock: 1'], data],
] as const) {
  test(`never data: ${what}; the connection is not used again`, async (t) => {
    const { backend, server } = await start(t, answering(kind, lines, body));
    assert.equal(await codeOf(read(backend, 4096, 512, kind === 'ours' ? 'one' : undefined)), 'malformed-response');
    server.answer = diskAnswer(disk, { fields: instance });
    const again = await read(backend, 4096, 512, kind === 'ours' ? 'one' : undefined);
    assert.ok(again.data.equals(data));
    const connections = server.requests.filter(({ method }) => method === 'GET').map(({ connection }) => connection);
    assert.notEqual(connections[0], connections[1]);
  });
}

for (const [what, kind, lines, body] of [
  ['of a plain server', 'plain', [partial, label, fits], data],
  ['with the end that the old server writes', 'plain', [partial, 'Content-Range: bytes 4096-511/1048576', fits], data],
  ['of HTTP/1.0 until the close', 'plain', ['HTTP/1.0 206 Partial Content', label], data],
  [
    'in chunks',
    'plain',
    [partial, label, 'Transfer-Encoding: chunked'],
    `200\r\n${data.toString('latin1')}\r\n0\r\n\r\n`,
  ],
  ['behind an interim response', 'ours', ['HTTP/1.1 102 Processing', '', partial, label, fits, ...instance], data],
] as const) {
  test(`data: an answer ${what}`, async (t) => {
    const answer = answering(kind, lines, typeof body === 'string' ? Buffer.from(body, 'latin1') : body);
    const { backend } = await start(t, (request) => {
      answer(request);
      if (lines[0].startsWith('HTTP/1.0') && request.method === 'GET') request.socket.end();
    });
    assert.ok((await read(backend, 4096, 512)).data.equals(data));
  });
}

test('our own server is taken literally also where no instance was asked for', async (t) => {
  const { backend } = await start(t, answering('ours', [partial, fits], data));
  assert.equal(await codeOf(read(backend, 4096, 512)), 'malformed-response');
});

test('status 200 is data when the whole disk was asked for', async (t) => {
  const small = testDisk(512);
  const proper = diskAnswer(small);
  const { backend } = await start(t, (request) => {
    if (request.method === 'GET') request.reply('HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n', small);
    else proper(request);
  });
  assert.ok((await read(backend, 0, 512)).data.equals(small));
  assert.equal(await codeOf(read(backend, 0, 511)), 'malformed-response');
});

test('bytes behind an answer are not taken for the next one', async (t) => {
  const proper = diskAnswer(disk);
  const { backend, server } = await start(t, (request) => {
    proper(request);
    if (request.method === 'GET' && request.index === 1) request.reply('0123456789');
  });
  assert.ok((await read(backend, 4096, 512)).data.equals(data));
  await server.until(() => server.sockets[0]?.destroyed === true);
  assert.ok((await read(backend, 4096, 512)).data.equals(data));
});

test('an answer that is malformed ends the requests behind it as lost', async (t) => {
  const { backend } = await start(t, answering('plain', [partial, label, 'Content-Length: 511'], data));
  const codes = await Promise.all([codeOf(read(backend, 4096, 512)), codeOf(read(backend, 4096, 512))]);
  assert.deepEqual(codes, ['malformed-response', 'connection-lost']);
});

test('an answer that breaks off is lost', async (t) => {
  const { backend } = await start(t, (request) => {
    if (request.method === 'HEAD') diskAnswer(disk)(request);
    else {
      request.reply([partial, label, fits, '', ''].join('\r\n'), data.subarray(0, 100));
      request.socket.end();
    }
  });
  assert.equal(await codeOf(read(backend, 4096, 512)), 'connection-lost');
});

for (const [status, fields, code] of [
  ['404 Not Found', [], 'not-found'],
  ['416 Range Not Satisfiable', ['Disk-Error: out-of-range'], 'out-of-range'],
  ['412 Precondition Failed', ['Disk-Error: other-instance'], 'other-instance'],
  ['500 Internal Server Error', ['Disk-Error: disk-error'], 'disk-error'],
  ['503 Service Unavailable', [], 'unavailable'],
  ['302 Found', ['Location: /elsewhere'], 'server-error'],
] as const) {
  test(`status ${status} is a failure, and the connection goes on`, async (t) => {
    const { backend, server } = await start(t, (request) => {
      const head = [`HTTP/1.1 ${status}`, ...fields, 'Content-Type: text/plain', 'Content-Length: 8', '', ''].join(
        '\r\n',
      );
      if (request.method === 'HEAD') diskAnswer(disk)(request);
      else request.reply(head, 'because\n');
    });
    const failure = read(backend, 4096, 512);
    await assert.rejects(failure, { code, message: /because/ });
    server.answer = diskAnswer(disk);
    await read(backend, 4096, 512);
    assert.deepEqual([...new Set(server.requests.map(({ connection }) => connection))], [0]);
  });
}

test('a refusal with an endless page is that refusal; its connection ends', async (t) => {
  const { backend, server } = await start(t, (request) => {
    if (request.method === 'HEAD') diskAnswer(disk)(request);
    else request.reply('HTTP/1.1 403 Forbidden\r\nContent-Length: 99999999\r\n\r\n<html>');
  });
  assert.equal(await codeOf(read(backend, 4096, 512)), 'access-denied');
  await server.until(() => server.open === 0);
});
