/** HTTP in front of the core, over real sockets: what plain clients, old gateways and our own rely on. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { formatAccess } from '../../../src/disk-server/access-log.js';
import { RawHttpClient } from '../../support/raw-http-client.js';
import { SimulatedMedium } from '../../support/simulated-disk.js';
import { chunk, get, HttpBench, put } from './http-bench.js';

const mib = 1024 * 1024;
const sevens = Buffer.alloc(512, 7);

/** Each block of 512 bytes holds its own number. */
function numbered(medium: SimulatedMedium): SimulatedMedium {
  for (let block = 0; block < medium.cached.length / 512; block++)
    medium.cached.fill(block % 251, block * 512, (block + 1) * 512);
  return medium;
}

test('an old gateway finds the disk, reads it and writes it', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send('HEAD / HTTP/1.1\r\nHost: d\r\nUser-Agent: old\r\nAccept: */*\r\n\r\n');
  const head = await client.response({ toHead: true });
  assert.equal(head.status, 200);
  assert.equal(head.fields['accept-ranges'], 'bytes');
  assert.equal(head.fields['content-length'], '65536');
  client.send(
    'PUT / HTTP/1.1\r\nHost: d\r\nContent-Range: bytes 0-511/-1\r\n',
    'Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n',
  );
  assert.equal((await client.response()).status, 100);
  client.send(chunk(sevens), '0\r\n\r\n');
  const written = await client.response();
  assert.equal(written.status, 200);
  assert.equal(written.body.toString(), 'Ok.\n');
  assert.deepEqual(bench.medium.durable.subarray(0, 512), sevens);
  client.send('GET / HTTP/1.1\r\nHost: d\r\nRange: bytes=0-511\r\n\r\n');
  const read = await client.response();
  assert.equal(read.status, 206);
  assert.equal(read.fields['content-range'], 'bytes 0-511/65536');
  assert.equal(read.fields['cache-control'], 'no-store, no-transform');
  assert.deepEqual(read.body, sevens);
});

test('the names of the first lines are spelt as old programs look for them', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send('HEAD / HTTP/1.1\r\nHost: d\r\n\r\n');
  const text = (await client.bytes(100)).toString();
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
  assert.match(text, /\r\nAccept-Ranges: bytes\r\n/);
  assert.match(text, /\r\nContent-Length: 65536\r\n/);
});

test('HEAD announces the server, with the address that the client came to', async (t) => {
  const bench = await HttpBench.started(t, { host: '::1' });
  const client = await bench.client();
  client.send('HEAD /any/path?at=all HTTP/1.1\r\nHost: d\r\n\r\n');
  const { fields } = await client.response({ toHead: true });
  assert.equal(fields['disk-endpoint'], bench.binding.endpoint);
  assert.match(fields['disk-endpoint'] ?? '', /^\[::1\]:\d+$/);
  assert.equal(fields['disk-instance'], 'i1');
  assert.match(fields['disk-features'] ?? '', /\bsession\b/);
});

test('pipelined requests are answered in their order, whatever takes longer', async (t) => {
  const bench = await HttpBench.started(t, { medium: numbered(new SimulatedMedium(65_536)) });
  const slow = bench.hold(({ op, offset }) => op === 'read' && offset === 0);
  const client = await bench.client();
  client.send(
    ...Array.from({ length: 128 }, (_, block) => get(block * 512, 512)),
    'HEAD / HTTP/1.1\r\nHost: d\r\n\r\n',
  );
  await bench.until(() => bench.medium.begun.read === 128);
  assert.equal(client.received.length, 0);
  slow.open();
  for (let block = 0; block < 128; block++) {
    const { status, fields, body } = await client.response();
    assert.equal(status, 206);
    assert.deepEqual(body, Buffer.alloc(512, block));
    // Announced once.
    assert.equal(fields['keep-alive'], block === 0 ? 'timeout=75' : undefined);
  }
  assert.equal((await client.response({ toHead: true })).status, 200);
});

test('reads that need no waiting are pipelined, too', async (t) => {
  const bench = await HttpBench.started(t, { medium: numbered(new SimulatedMedium(65_536, { readsNow: true })) });
  const client = await bench.client();
  for (let round = 0; round < 3; round++) {
    client.send(...Array.from({ length: 500 }, (_, index) => get((index % 128) * 512, 512)));
    for (let index = 0; index < 500; index++) {
      assert.deepEqual((await client.response()).body, Buffer.alloc(512, index % 128));
    }
  }
  assert.equal(bench.medium.begun.read, 0);
  await bench.until(() => bench.binding.heldBytes === 0);
});

test('before requests that have come are begun, it is said that something has arrived', async (t) => {
  const seen: string[] = [];
  const bench = await HttpBench.started(t, { arrived: () => seen.push('arrived') });
  bench.hold(({ op }) => seen.push(op) === 0);
  const client = await bench.client();
  for (let round = 0; round < 3; round++) {
    client.send(get(0, 512));
    await client.response();
  }
  assert.deepEqual(seen, ['arrived', 'read', 'arrived', 'read', 'arrived', 'read']);
});

test('a plain write runs alone: what is pipelined behind it sees it', async (t) => {
  const bench = await HttpBench.started(t);
  const slow = bench.hold(({ op }) => op === 'write');
  const client = await bench.client();
  client.send(get(0, 512), put(0, 512), sevens, get(0, 512), put(512, 512), sevens, get(512, 512));
  assert.deepEqual((await client.response()).body, Buffer.alloc(512));
  await bench.until(() => bench.medium.begun.write === 1);
  assert.equal(bench.medium.begun.read, 1);
  slow.open();
  assert.equal((await client.response()).status, 200);
  assert.deepEqual((await client.response()).body, sevens);
  assert.equal((await client.response()).status, 200);
  assert.deepEqual((await client.response()).body, sevens);
});

test('stamped writes on one connection run at the same time', async (t) => {
  const bench = await HttpBench.started(t);
  const slow = bench.hold(({ op }) => op === 'write');
  const client = await bench.client();
  const stamp = `Disk-Stamp: s 1.1 i1 ${Math.floor(performance.now()) + 30_000}\r\nContent-Length: 512\r\n`;
  client.send(put(0, 512, stamp), sevens, put(512, 512, stamp), sevens);
  await bench.until(() => bench.medium.begun.write === 2);
  slow.open();
  for (let count = 0; count < 2; count++) {
    const { status, fields } = await client.response();
    assert.equal(status, 200);
    assert.equal(fields['disk-instance'], 'i1');
    assert.match(fields['disk-clock'] ?? '', /^\d+$/);
  }
});

test('a refusal names the instance to a client that speaks of instances', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  const late = 'Disk-Stamp: s 1.1 i1 1\r\nContent-Length: 512\r\n';
  client.send(
    put(0, 512, late),
    sevens,
    get(0, 512, 'Disk-If-Instance: i0\r\n'),
    get(99_999, 1, 'Disk-If-Instance: i1\r\n'),
  );
  const expected = [
    [412, 'deadline-passed'],
    [412, 'other-instance'],
    [416, 'out-of-range'],
  ];
  for (const [status, error] of expected) {
    const response = await client.response();
    assert.deepEqual([response.status, response.fields['disk-error']], [status, error]);
    assert.equal(response.fields['disk-instance'], 'i1');
  }
});

test('the operations of the extended protocol work', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  const post = (lines: string) => client.send(`POST / HTTP/1.1\r\nHost: d\r\n${lines}Content-Length: 0\r\n\r\n`);
  bench.medium.cached.fill(1, 0, 2048);
  post('Disk-Operation: zero; fast\r\nContent-Range: bytes 512-1023/*\r\n');
  assert.equal((await client.response()).status, 200);
  post('Disk-Operation: trim\r\nContent-Range: bytes 1024-1535/*\r\n');
  assert.equal((await client.response()).status, 200);
  post('Disk-Operation: flush\r\n');
  assert.equal((await client.response()).status, 200);
  post('Disk-Operation: map\r\nRange: bytes=0-2047\r\n');
  const map = await client.response();
  assert.equal(map.fields['content-type'], 'application/json');
  assert.deepEqual(JSON.parse(map.body.toString()), [
    [512, 'data'],
    [1024, 'hole'],
    [512, 'data'],
  ]);
});

test('an operation with an empty chunked body works, as proxies may send it', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send(
    'POST / HTTP/1.1\r\nHost: d\r\nDisk-Operation: flush\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    get(0, 1),
  );
  assert.equal((await client.response()).status, 200);
  assert.equal((await client.response()).status, 206);
});

test('the whole of a disk is sent in bounded memory', async (t) => {
  const medium = numbered(new SimulatedMedium(64 * mib));
  const bench = await HttpBench.started(t, { medium, front: { pieceBytesMax: mib, responseBytesMax: 3 * mib } });
  const client = await bench.client();
  client.pause();
  client.send('GET / HTTP/1.1\r\nHost: d\r\n\r\n', get(512, 512));
  await bench.until(() => bench.core.counters.reads > 1);
  const other = await bench.client();
  for (let count = 0; count < 100; count++) {
    other.send(get(512, 512));
    await other.response();
  }
  // What the sockets' own buffers take is no memory of ours.
  assert.ok(bench.core.counters.readBytes < 32 * mib);
  assert.equal(bench.binding.heldBytes, 2 * mib + 512);
  client.resume();
  const whole = await client.response();
  assert.equal(whole.status, 200);
  assert.equal(whole.fields['content-range'], undefined);
  assert.deepEqual(whole.body, medium.cached);
  assert.deepEqual((await client.response()).body, Buffer.alloc(512, 1));
  await bench.until(() => bench.binding.heldBytes === 0);
});

test('a disk that fails in the middle of a long answer breaks the connection', async (t) => {
  const bench = await HttpBench.started(t, { front: { pieceBytesMax: 16_384, responseBytesMax: 32_768 } });
  bench.medium.before = ({ op, offset }) =>
    op === 'read' && offset > 0 ? Promise.reject(new Failure('disk-error', 'EIO')) : undefined;
  const client = await bench.client();
  client.send('GET / HTTP/1.1\r\nHost: d\r\n\r\n');
  await assert.rejects(client.response());
  assert.ok(client.received.length < 65_536);
  assert.equal(bench.binding.heldBytes, 0);
});

test('errors of the disk have their own statuses', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  const cases = [
    ['disk-error', 500, 'disk-error'],
    ['no-space', 507, 'no-space'],
    ['unavailable', 500, undefined],
  ] as const;
  for (const [code, status, error] of cases) {
    bench.medium.before = ({ op }) => (op === 'write' ? Promise.reject(new Failure(code, 'told so')) : undefined);
    client.send(put(0, 512), sevens);
    const response = await client.response();
    assert.deepEqual([response.status, response.fields['disk-error']], [status, error]);
    assert.equal(response.body.toString(), 'told so\n');
  }
});

test('while there is no disk, the answer is 503 with the reason, at once', async (t) => {
  const medium = new SimulatedMedium(4096);
  medium.before = ({ op }) =>
    op === 'open' ? Promise.reject(new Failure('unavailable', 'No such device yet')) : undefined;
  const bench = await HttpBench.started(t, { medium });
  const client = await bench.client();
  client.send('HEAD / HTTP/1.1\r\nHost: d\r\n\r\n');
  const probed = await client.response({ toHead: true });
  assert.equal(probed.status, 503);
  assert.equal(probed.fields['disk-endpoint'], bench.binding.endpoint, 'no instance is here any more (rule T5)');
  client.send(get(0, 512), put(0, 512), sevens);
  for (let count = 0; count < 2; count++) {
    const { status, fields, body } = await client.response();
    assert.equal(status, 503);
    assert.equal(fields['retry-after'], '1');
    assert.equal(fields['disk-endpoint'], undefined);
    assert.match(body.toString(), /No such device yet/);
  }
});

test('a read-only disk has a validator, and refuses writes before their body', async (t) => {
  const bench = await HttpBench.started(t, { medium: new SimulatedMedium(4096, { readOnly: true }) });
  const client = await bench.client();
  client.send(get(0, 512));
  const { fields } = await client.response();
  assert.equal(fields['etag'], '"i1"');
  client.send(get(0, 512, 'If-None-Match: "i1"\r\n'));
  assert.equal((await client.response()).status, 304);
  client.send(get(0, 512, 'If-Range: "i0"\r\n'));
  const whole = await client.response();
  assert.deepEqual([whole.status, whole.body.length], [200, 4096]);
  client.send(get(0, 512, 'If-Match: "i0"\r\n'));
  const failed = await client.response();
  assert.deepEqual([failed.status, failed.fields['disk-error']], [412, undefined]);
  client.send(put(0, 512, 'Content-Length: 512\r\nExpect: 100-continue\r\n'));
  const refused = await client.response();
  assert.deepEqual([refused.status, refused.fields['disk-error']], [403, 'read-only']);
});

test('what was asked of one life of the disk is not done in the next', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send(put(0, 512), sevens.subarray(1));
  await bench.until(() => bench.binding.heldBytes === 512);
  bench.medium.before = ({ op }) => (op === 'read' ? Promise.reject(new Failure('unavailable', 'gone')) : undefined);
  const other = await bench.client();
  other.send(get(0, 512));
  assert.equal((await other.response()).status, 503);
  await bench.until(() => bench.core.disk?.instance === 'i2');
  client.send(sevens.subarray(0, 1));
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['disk-error']], [503, 'unavailable']);
  assert.equal(bench.medium.begun.write, 0);
  assert.equal(bench.binding.heldBytes, 0);
});

test('a read that waits for memory while the disk is opened anew is refused', async (t) => {
  const front = { pieceBytesMax: 65_536, responseBytesMax: 131_072, slowGraceMs: 60_000 };
  const bench = await HttpBench.started(t, { front, limits: { newsAgeMaxMs: 0 } });
  const gate = bench.hold(({ op }) => op === 'read');
  const [holder, waiting, prober] = [await bench.client(), await bench.client(), await bench.client()];
  holder.send(get(0, 65_536), get(0, 65_536));
  await bench.until(() => bench.binding.heldBytes === 131_072);
  waiting.send(get(0, 512));
  const { before } = bench.medium;
  bench.medium.before = (operation) =>
    operation.op === 'size' ? Promise.reject(new Failure('unavailable', 'gone')) : before(operation);
  prober.send('HEAD / HTTP/1.1\r\nHost: d\r\n\r\n');
  const probed = await prober.response({ toHead: true });
  assert.deepEqual([probed.status, probed.fields['disk-endpoint']], [503, bench.binding.endpoint]);
  gate.open();
  assert.equal((await holder.response()).status, 206);
  assert.equal((await waiting.response()).status, 503);
  await bench.until(() => bench.core.disk?.instance === 'i2');
});

test('an HTTP/1.0 client is answered, and the connection closed', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send('GET / HTTP/1.0\r\nRange: bytes=0-9\r\n\r\n');
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['connection']], [206, 'close']);
  await client.closed;
});

test('Connection: close is honoured, also on a write', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send(put(0, 512, 'Connection: Close\r\nContent-Length: 512\r\n'), sevens, get(0, 512));
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['connection']], [200, 'close']);
  await client.closed;
  assert.equal(client.received.length, 0);
});

test('a client that has closed its sending side is answered', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send(get(0, 512));
  client.socket.end();
  assert.equal((await client.response()).status, 206);
  await client.closed;
});

test('access lines are published in the form of old, only if somebody listens', async (t) => {
  const bench = await HttpBench.started(t);
  const lines: string[] = [];
  const at = new Date(2022, 0, 20, 11, 21, 58);
  bench.binding.accesses.subscribe((access) => lines.push(formatAccess(access, at)));
  const client = await bench.client();
  client.send('HEAD / HTTP/1.1\r\nHost: d\r\n\r\n');
  await client.response({ toHead: true });
  client.send('GET /"\xe9 HTTP/1.1\r\nHost: d\r\n\r\n');
  await client.response();
  assert.deepEqual(lines, [
    '127.0.0.1 - - [20/Jan/2022 11:21:58] "HEAD / HTTP/1.1" 200 -',
    '127.0.0.1 - - [20/Jan/2022 11:21:58] "GET /\\x22\\xe9 HTTP/1.1" 200 -',
  ]);
});

test('close ends every connection at once, also one whose request is stuck', async (t) => {
  const bench = await HttpBench.started(t);
  bench.hold(({ op }) => op === 'read');
  const idle = await bench.client();
  const stuck = await bench.client();
  stuck.send(get(0, 512));
  await bench.until(() => bench.medium.begun.read === 1);
  await bench.binding.close();
  await Promise.all([idle.closed, stuck.closed]);
  await assert.rejects(RawHttpClient.connect(t, '127.0.0.1:1'));
});

test('a port that is in use is an error, and can be tried again', async (t) => {
  const first = await HttpBench.started(t);
  const second = await HttpBench.started(t);
  await second.binding.close();
  const port = Number(first.binding.endpoint.split(':')[1]);
  await assert.rejects(second.binding.listen({ host: '127.0.0.1', port }), { code: 'EADDRINUSE' });
  await first.binding.close();
  await second.binding.listen({ host: '127.0.0.1', port });
  const client = await second.client();
  client.send(get(0, 512));
  assert.equal((await client.response()).status, 206);
});
