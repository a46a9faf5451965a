/** HTTP clients that send garbage, too much, too little or nothing: an error of HTTP's own, and nobody else notices. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { SimulatedMedium } from '../../support/simulated-disk.js';
import { chunk, get, HttpBench, put } from './http-bench.js';

const sevens = Buffer.alloc(512, 7);

test('what is not HTTP is refused, and the connection closed', async (t) => {
  const bench = await HttpBench.started(t);
  const host = 'Host: d\r\n';
  const cases: [number, string][] = [
    [400, 'GARBAGE\r\n\r\n'],
    [400, 'GET / HTTP/1.1\r\n\r\n'],
    [400, `GET / HTTP/1.1\r\n${host}${host}\r\n`],
    [400, `GET  / HTTP/1.1\r\n${host}\r\n`],
    [400, `GET / HTTP/1.1\r\n${host}Range : bytes=0-1\r\n\r\n`],
    [400, `GET / HTTP/1.1\r\n${host}Range:\r\n bytes=0-1\r\n\r\n`],
    [400, `GET / HTTP/1.1\r\n${host}X: \0\r\n\r\n`],
    [400, `GET / HTTP/1.1\r\n${host}Range: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n`],
    [400, put(0, 4, 'Content-Length: 4\r\nContent-Length: 5\r\n')],
    [400, `${put(0, 4, 'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n')}4\r\nabcd\r\n0\r\n\r\n`],
    [400, put(0, 4, 'Content-Length: -4\r\n')],
    [400, put(0, 4, 'Content-Length: 0x4\r\n')],
    [413, put(0, 4, 'Content-Length: 99999999999999999999\r\n')],
    [501, put(0, 4, 'Transfer-Encoding: gzip, chunked\r\n')],
    [400, `${put(0, 1, 'Transfer-Encoding: chunked\r\n').replace('1.1', '1.0')}1\r\na\r\n0\r\n\r\n`],
    [417, put(0, 4, 'Content-Length: 4\r\nExpect: miracles\r\n')],
    [505, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    [431, `GET / HTTP/1.1\r\n${host}X: ${'x'.repeat(17_000)}\r\n\r\n`],
    [431, `GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(101)}\r\n`],
    [400, `${put(0, 4, 'Transfer-Encoding: chunked\r\n')}+4\r\n`],
    [400, `${put(0, 4, 'Transfer-Encoding: chunked\r\n')}2\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`],
    [431, `${put(0, 4, 'Transfer-Encoding: chunked\r\n')}0\r\n${'X: yyyyyyyyyyyyy\r\n'.repeat(1000)}\r\n`],
  ];
  for (const [status, text] of cases) {
    const client = await bench.client();
    client.send(text, get(0, 1));
    const response = await client.response();
    assert.equal(response.status, status, text.slice(0, 80));
    assert.equal(response.fields['connection'], 'close');
    await client.closed;
    assert.equal(client.received.length, 0, text.slice(0, 80));
  }
  assert.equal(bench.medium.begun.write, 0);
  assert.equal(bench.binding.heldBytes, 0);
});

test('a client that ends its lines with LF is told so, and does not wait for ever', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send('GET / HTTP/1.1\nHost: d\n\n');
  assert.equal((await client.response()).status, 400);
});

test('requests that HTTP allows and the disk does not are refused, and the connection goes on', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  const body = 'Content-Length: 512\r\n';
  const cases: [number, string, ...Buffer[]][] = [
    [416, get(65_536, 1)],
    [416, get(Number.MAX_SAFE_INTEGER, 1)],
    [400, `PUT / HTTP/1.1\r\nHost: d\r\n${body}\r\n`, sevens],
    [400, put(0, 511, body), sevens],
    [400, put(0, 513, body), sevens],
    [416, put(65_536, 512), sevens],
    [416, `PUT / HTTP/1.1\r\nHost: d\r\nContent-Range: bytes 0-18446744073709551615/*\r\n${body}\r\n`, sevens],
    [400, put(0, 513, 'Transfer-Encoding: chunked\r\n'), chunk(sevens), Buffer.from('0\r\n\r\n')],
    [400, put(0, 511, 'Transfer-Encoding: chunked\r\n'), chunk(sevens), Buffer.from('0\r\n\r\n')],
    [400, put(0, 512, ''), Buffer.alloc(0)],
    [501, `DELETE / HTTP/1.1\r\nHost: d\r\n${body}\r\n`, sevens],
    [501, 'POST / HTTP/1.1\r\nHost: d\r\nDisk-Operation: format\r\n\r\n'],
  ];
  for (const [status, head, ...bodies] of cases) {
    client.send(head, ...bodies);
    assert.equal((await client.response()).status, status, head);
  }
  client.send(get(0, 512));
  assert.deepEqual((await client.response()).body, Buffer.alloc(512));
  assert.equal(bench.medium.begun.write, 0);
  assert.equal(bench.binding.heldBytes, 0);
});

test('416 tells how large the disk is', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  client.send(get(65_536, 1));
  assert.equal((await client.response()).fields['content-range'], 'bytes */65536');
});

test('a client that asks before it sends its body is refused before', async (t) => {
  const bench = await HttpBench.started(t);
  for (const [offset, length, bodyBytes, status] of [
    [65_536, 512, 512, 416],
    [0, 65 * 1024 * 1024, 65 * 1024 * 1024, 416],
    [0, 512, 511, 400],
  ] as const) {
    const client = await bench.client();
    client.send(put(offset, length, `Content-Length: ${bodyBytes}\r\nExpect: 100-continue\r\n`));
    const { status: said, fields } = await client.response();
    assert.deepEqual([said, fields['connection']], [status, 'close']);
    await client.closed;
  }
});

test('a body that is too large is refused with 413, which the client gets to see', async (t) => {
  const bench = await HttpBench.started(t, { medium: new SimulatedMedium(66 * 1024 * 1024), front: { lingerMs: 20 } });
  const length = 64 * 1024 * 1024 + 1;
  const client = await bench.client();
  client.send(put(0, length), sevens);
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['disk-error'], fields['connection']], [413, 'too-large', 'close']);
  await client.closed;
});

test('a refused body that does not end is not read for ever', async (t) => {
  const bench = await HttpBench.started(t, { front: { lingerMs: 20 } });
  const client = await bench.client();
  const mibs = Array.from({ length: 65 }, () => chunk(Buffer.alloc(1024 * 1024)));
  client.send(put(65_536, 512, 'Transfer-Encoding: chunked\r\n'), ...mibs);
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['connection']], [413, 'close']);
  await client.closed;
});

test('an upload that is cut off changes nothing', async (t) => {
  const bench = await HttpBench.started(t);
  for (const cut of [put(0, 512), put(0, 512, 'Transfer-Encoding: chunked\r\n')]) {
    const client = await bench.client();
    client.send(cut, cut.includes('chunked') ? chunk(sevens) : sevens.subarray(1));
    await bench.until(() => bench.binding.heldBytes === 512);
    client.socket.destroy();
    await bench.until(() => bench.binding.connections === 0);
  }
  assert.equal(bench.binding.heldBytes, 0);
  assert.equal(bench.medium.begun.write, 0);
});

test('bytes that come one by one are as good as any', async (t) => {
  const bench = await HttpBench.started(t);
  const client = await bench.client();
  const body = Buffer.from('0123456789');
  const text = Buffer.concat([
    Buffer.from(put(0, 10, 'Transfer-Encoding: chunked\r\n')),
    chunk(body.subarray(0, 3)),
    Buffer.from('7 ; name="value"\r\n'),
    body.subarray(3),
    Buffer.from('\r\n000\r\nTrailer: yes\r\n\r\n'),
    Buffer.from(get(0, 10)),
  ]);
  for (const byte of text) {
    client.send(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  assert.equal((await client.response()).status, 200);
  assert.deepEqual((await client.response()).body, body);
});

test('heads that do not come are given up, and disturb nobody', async (t) => {
  const bench = await HttpBench.started(t, { front: { headMs: 50 } });
  const slow = await bench.client();
  slow.send('GET / HTTP/1.1\r\nHost: ');
  const client = await bench.client();
  client.send(get(0, 512));
  assert.equal((await client.response()).status, 206);
  assert.equal((await slow.response()).status, 408);
  await slow.closed;
});

test('a body that does not come is given up', async (t) => {
  const bench = await HttpBench.started(t, { front: { bodyStallMs: 50 } });
  const client = await bench.client();
  client.send(put(0, 512), sevens.subarray(1));
  assert.equal((await client.response()).status, 408);
  await client.closed;
  assert.equal(bench.binding.heldBytes, 0);
});

test('an idle connection is closed after the announced time, a busy one is not', async (t) => {
  const bench = await HttpBench.started(t, { front: { keepAliveMs: 50 } });
  const gate = bench.hold(({ op }) => op === 'read');
  const [idle, busy] = [await bench.client(), await bench.client()];
  busy.send(get(0, 512));
  await idle.closed;
  gate.open();
  assert.equal((await busy.response()).status, 206);
  await busy.closed;
});

test('with too many connections the one that was idle for longest gives way, and never a busy one', async (t) => {
  const bench = await HttpBench.started(t, { front: { connectionsMax: 2 } });
  const gate = bench.hold(({ op }) => op === 'read');
  const busy = await bench.client();
  busy.send(get(0, 512));
  await bench.until(() => bench.medium.begun.read === 1);
  const idle = await bench.client();
  await bench.until(() => bench.binding.connections === 2);
  const newcomer = await bench.client();
  await idle.closed;
  newcomer.send(get(512, 512));
  await bench.until(() => bench.medium.begun.read === 2);
  await (await bench.client()).closed;
  gate.open();
  assert.equal((await newcomer.response()).status, 206);
  assert.equal((await busy.response()).status, 206);
});

const mib = 1024 * 1024;

test('a slow upload that holds all the memory gives way when another one waits for it', async (t) => {
  const bench = await HttpBench.started(t, {
    medium: new SimulatedMedium(65 * mib),
    front: { slowGraceMs: 20 },
  });
  const slow = await bench.client();
  slow.send(put(0, 64 * mib), sevens);
  await bench.until(() => bench.binding.heldBytes === 64 * mib);
  const client = await bench.client();
  client.send(put(0, 512), sevens);
  assert.equal((await client.response()).status, 200);
  await slow.closed;
  await bench.until(() => bench.binding.heldBytes === 0);
});

test('a write that gets no memory in time is refused as unavailable', async (t) => {
  const bench = await HttpBench.started(t, {
    medium: new SimulatedMedium(65 * mib),
    front: { budgetWaitMs: 50, slowGraceMs: 60_000 },
  });
  const holder = await bench.client();
  holder.send(put(0, 64 * mib));
  await bench.until(() => bench.binding.heldBytes === 64 * mib);
  const client = await bench.client();
  client.send(put(0, 2 * mib));
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['disk-error']], [503, 'unavailable']);
  const small = await bench.client();
  small.send(put(0, 512), sevens);
  assert.equal((await small.response()).status, 200, 'a small one is not shut out by a large one');
});

test('a client that does not read is held back, then gives way, and disturbs nobody', async (t) => {
  const medium = new SimulatedMedium(mib, { readsNow: true });
  const front = { responseBytesMax: 2 * mib, pieceBytesMax: mib, slowGraceMs: 50 };
  const bench = await HttpBench.started(t, { medium, front });
  const deaf = await bench.client();
  deaf.pause();
  // More than the sockets' own buffers take.
  deaf.send(...Array.from({ length: 64 }, () => get(0, mib)));
  await bench.until(() => bench.binding.heldBytes === 2 * mib);
  assert.ok(bench.core.counters.reads < 64);
  const client = await bench.client();
  client.send(get(0, mib));
  assert.equal((await client.response()).body.length, mib);
  await bench.until(() => bench.binding.connections === 1);
  await bench.until(() => bench.binding.heldBytes === 0);
});

test('a client that does not read for a long time is given up even if nobody waits', async (t) => {
  const bench = await HttpBench.started(t, { medium: new SimulatedMedium(mib), front: { responseStallMs: 50 } });
  const deaf = await bench.client();
  deaf.pause();
  deaf.send(...Array.from({ length: 64 }, () => get(0, mib)));
  await bench.until(() => bench.binding.connections === 1);
  await bench.until(() => bench.binding.connections === 0);
  assert.equal(bench.binding.heldBytes, 0);
});

test('one connection cannot hold all the memory for answers', async (t) => {
  const front = { unsentBytesMax: 4 * mib };
  const bench = await HttpBench.started(t, { medium: new SimulatedMedium(mib), front, limits: { slots: 64 } });
  const gate = bench.hold(({ op }) => op === 'read');
  const client = await bench.client();
  client.send(...Array.from({ length: 64 }, () => get(0, mib)));
  await bench.until(() => bench.binding.heldBytes === 4 * mib);
  await new Promise(setImmediate);
  assert.equal(bench.medium.begun.read, 4);
  gate.open();
  for (let count = 0; count < 64; count++) assert.equal((await client.response()).body.length, mib);
});

test('requests that are not answered are not read in any number', async (t) => {
  const bench = await HttpBench.started(t, { front: { exchangesMax: 10 }, limits: { slots: 64 } });
  const gate = bench.hold(({ op }) => op === 'read');
  const client = await bench.client();
  client.send(...Array.from({ length: 30 }, (_, index) => get(index * 512, 512)));
  await bench.until(() => bench.medium.begun.read === 10);
  await new Promise(setImmediate);
  assert.equal(bench.medium.begun.read, 10);
  gate.open();
  for (let count = 0; count < 30; count++) assert.equal((await client.response()).status, 206);
});

test('what cannot be answered yet is left to TCP, and not piled up', async (t) => {
  const bench = await HttpBench.started(t, { front: { exchangesMax: 10 }, limits: { slots: 64 } });
  bench.hold(({ op, offset }) => op === 'read' && offset === 0);
  const client = await bench.client();
  client.send(Buffer.alloc(32 * mib, get(0, 512)));
  await bench.until(() => bench.medium.begun.read === 10);
  const other = await bench.client();
  for (let count = 0; count < 100; count++) {
    other.send(get(512, 512));
    await other.response();
  }
  assert.ok(client.socket.writableLength > 0);
});

test('what a connection holds when it ends is given back when the disk has done it', async (t) => {
  const bench = await HttpBench.started(t);
  const gate = bench.hold(({ op }) => op === 'read' || op === 'write');
  const client = await bench.client();
  const stamp = `Disk-Stamp: s 1.1 i1 ${Math.floor(performance.now()) + 30_000}\r\nContent-Length: 512\r\n`;
  // The last write has to wait until it is alone, and so never begins.
  client.send(get(0, 4096), get(4096, 4096), put(0, 512, stamp), sevens, put(512, 512), sevens);
  await bench.until(() => bench.medium.begun.write === 1 && bench.binding.heldBytes === 8192 + 1024);
  await bench.binding.close();
  await bench.until(() => bench.binding.heldBytes === 8192 + 512);
  await new Promise(setImmediate);
  assert.equal(bench.binding.heldBytes, 8192 + 512);
  gate.open();
  await bench.until(() => bench.binding.heldBytes === 0);
  assert.equal(bench.medium.begun.write, 1);
});

test('memory of a write that the disk is stuck with is held until the disk lets it go', async (t) => {
  const bench = await HttpBench.started(t, { limits: { operationMs: 20 } });
  const gate = bench.hold(({ op }) => op === 'write');
  const client = await bench.client();
  client.send(put(0, 512), sevens);
  const { status, fields } = await client.response();
  assert.deepEqual([status, fields['disk-error']], [500, undefined]);
  assert.equal(bench.binding.heldBytes, 512);
  gate.open();
  await bench.until(() => bench.binding.heldBytes === 0);
});
