/**
 * What an old gateway of a mixed pool meets at our http-disk-server: the real curl with the options of the old plugin, and a stand-in for
 * the whole of it (test/support/old-gateway.ts).
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CheckedLoad } from '../support/checked-load.js';
import { run } from '../support/commands.js';
import { OldGateway } from '../support/old-gateway.js';
import { freePort, startProgram, temporaryFolder } from '../support/processes.js';
import { RawHttpClient } from '../support/raw-http-client.js';
import { type DiskServer, seededBytes, seededFile, startDiskServer, untilListening } from '../support/stack.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { needs } from '../support/tools.js';

const mebibyte = 2 ** 20;
/** Where a time-out would hide what is looked at: the old gateway's 3 s are no promise of this machine. */
const patient = { requestTimeoutMs: 60_000 };

/** A server whose disk has not come: it answers 503. */
async function startWaiting(t: TestContext): Promise<{ url: string; port: number; path: string }> {
  const path = join(temporaryFolder(t, '/dev/shm'), 'disk.img');
  const port = await freePort();
  const program = startProgram(t, 'http-disk-server', ['--disk', path, '--ip', '127.0.0.1', '--port', String(port)]);
  await program.line('stderr', /Server ready!$/);
  await untilListening({ host: '127.0.0.1', port }, program);
  return { url: `http://127.0.0.1:${port}`, port, path };
}

/** curl as the old plugin sets it up; what it says with -v comes first, what it has received lies in the file `out`. */
async function oldCurl(out: string, seconds: number, ...args: string[]): Promise<string> {
  const options = ['-v', '--fail', '--location', '--max-time', String(seconds), '-o', out];
  return run('sh', ['-c', 'exec curl -sS "$@" 2>&1', 'curl', ...options, ...args]);
}

async function assertStored(load: CheckedLoad, disk: string): Promise<void> {
  const expected = await load.finish();
  assert.ok(readFileSync(disk).equals(expected), 'the disk holds what was acknowledged');
}

test('the real curl with the options of the old plugin: HEAD, GET, and a PUT that is told to continue', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const expected = seededBytes(1, mebibyte);
  const disk = seededFile(t, 1, mebibyte);
  const { url } = await startDiskServer(t, disk);
  const folder = temporaryFolder(t);
  const [sector, out] = [join(folder, 'sector'), join(folder, 'out')];
  const head = await oldCurl(out, 3, '--head', url);
  assert.match(head, /< HTTP\/1\.1 200 /);
  assert.match(head, /< Accept-Ranges: bytes\r?\n/);
  assert.match(head, /< Content-Length: 1048576\r?\n/);

  writeFileSync(sector, Buffer.alloc(512, 0x5a));
  expected.fill(0x5a, 8192, 8192 + 512);
  // From a pipe, as the plugin's read callback: of unknown length.
  const put = await run('sh', [
    '-c',
    'exec curl -sSv --fail --location --max-time 3 -r 8192-8703 -T - -o "$1" "$2" <"$3" 2>&1',
    'curl',
    out,
    url,
    sector,
  ]);
  assert.match(put, /> Content-Range: bytes 8192-8703\/-1\r?\n/, 'the total that only curl writes');
  assert.match(put, /> Transfer-Encoding: chunked\r?\n/);
  assert.match(put, /> Expect: 100-continue\r?\n/);
  assert.match(put, /< HTTP\/1\.1 100 Continue/, 'it did not have to wait until its second was over');
  assert.match(put, /< HTTP\/1\.1 200 /);
  assert.ok(readFileSync(disk).equals(expected));

  const get = await oldCurl(out, 3, '-r', '8000-9000', url);
  assert.match(get, /< HTTP\/1\.1 206 /);
  assert.ok(readFileSync(out).equals(expected.subarray(8000, 9001)));
});

test('the real curl moves 64 MiB in one request, both ways', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const length = 64 * mebibyte;
  const disk = seededFile(t, 2, length + mebibyte);
  const { url } = await startDiskServer(t, disk);
  const folder = temporaryFolder(t);
  const [body, out] = [join(folder, 'body'), join(folder, 'out')];
  const bytes = seededBytes(3, length);
  writeFileSync(body, bytes);
  const script = 'exec curl -sS --fail --max-time 60 -r "$1" -T - -o "$2" "$3" <"$4"';
  await run('sh', ['-c', script, 'curl', `512-${length + 511}`, out, url, body]);
  await oldCurl(out, 60, '-r', `512-${length + 511}`, url);
  assert.ok(readFileSync(out).equals(bytes));
  assert.ok(
    readFileSync(disk)
      .subarray(512, length + 512)
      .equals(bytes),
  );
});

test('an old gateway: every write is told to continue, and the connection is kept', async (t) => {
  const disk = seededFile(t, 4, mebibyte);
  const { url } = await startDiskServer(t, disk);
  const gateway = await OldGateway.open(t, [url], patient);
  const load = new CheckedLoad(gateway, readFileSync(disk), { sizeBytes: mebibyte });
  await load.progress(500);
  await assertStored(load, disk);
  assert.ok(gateway.puts.continued > 100);
  assert.equal(gateway.puts.unanswered, 0);
  assert.equal(gateway.connections, 1);
  assert.deepEqual(gateway.failures, []);
});

test('kill -9 of the server that an old gateway uses, five times: it goes on with the next', async (t) => {
  const disk = seededFile(t, 5, mebibyte);
  const servers = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
  const gateway = await OldGateway.open(
    t,
    servers.map(({ url }) => url),
    patient,
  );
  const load = new CheckedLoad(gateway, readFileSync(disk), { sizeBytes: mebibyte });
  for (let round = 0; round < 5; round += 1) {
    await load.progress(100);
    const victim = servers.findIndex(({ url }) => url === gateway.url);
    const { program, port } = servers[victim] as DiskServer;
    await program.kill();
    await load.progress(100);
    servers[victim] = await startDiskServer(t, disk, [], port);
  }
  await assertStored(load, disk);
  assert.ok(gateway.failures.length >= 5);
});

test('SIGTERM with the idle connection of an old gateway open: the server ends, the gateway goes on elsewhere', async (t) => {
  const disk = seededFile(t, 6, mebibyte);
  const servers = [await startDiskServer(t, disk), await startDiskServer(t, disk)] as const;
  const gateway = await OldGateway.open(t, [servers[0].url, servers[1].url], patient);
  await gateway.write(0, Buffer.alloc(512, 1));
  assert.deepEqual(await servers[0].program.stop(), { code: 0, signal: null });
  await gateway.write(512, Buffer.alloc(512, 2));
  assert.equal(gateway.url, servers[1].url);
  assert.deepEqual(readFileSync(disk).subarray(0, 1024), Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2)]));
});

test('a server that waits for its disk says so at once, also to a PUT that waits to continue', async (t) => {
  const disk = seededFile(t, 7, mebibyte);
  const [waiting, ready] = [await startWaiting(t), await startDiskServer(t, disk)];
  const gateway = await OldGateway.open(t, [waiting.url, ready.url], patient);
  assert.equal(gateway.url, ready.url);
  assert.deepEqual(gateway.failures, [`${waiting.url}: status: 503`]);

  const client = await RawHttpClient.connect(t, `127.0.0.1:${waiting.port}`);
  const lines = ['Host: x', 'Content-Range: bytes 0-511/-1', 'Transfer-Encoding: chunked', 'Expect: 100-continue'];
  client.send(`PUT / HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
  assert.equal((await client.response()).status, 503, 'the first thing that it hears');

  // The disk comes, the other server goes: the old gateway returns.
  writeFileSync(waiting.path, readFileSync(disk));
  while ((await fetch(waiting.url, { method: 'HEAD' })).status !== 200) await delay(20);
  await ready.program.kill();
  await gateway.write(0, Buffer.alloc(512, 9));
  assert.equal(gateway.url, waiting.url);
  assert.deepEqual(readFileSync(waiting.path).subarray(0, 512), Buffer.alloc(512, 9));
});

test('a range that ends beyond the disk is 416, and changes nothing', async (t) => {
  const disk = seededFile(t, 8, mebibyte);
  const { url } = await startDiskServer(t, disk);
  const before = readFileSync(disk);
  for (const offset of [mebibyte - 256, mebibyte, 2 * mebibyte]) {
    const gateway = await OldGateway.open(t, [url]);
    await assert.rejects(gateway.write(offset, Buffer.alloc(512, 1)));
    assert.deepEqual(gateway.failures, [`${url}: status: 416`]);
  }
  const gateway = await OldGateway.open(t, [url]);
  await assert.rejects(gateway.read(mebibyte, 512));
  assert.deepEqual(gateway.failures, [`${url}: status: 416`]);
  assert.ok(readFileSync(disk).equals(before));
});

test('30 connections that are reset in the middle of 64 MiB, without a pause: nothing is changed, nothing is kept', async (t) => {
  const length = 64 * mebibyte;
  const disk = seededFile(t, 9, length + mebibyte);
  const before = readFileSync(disk);
  const { url, port } = await startDiskServer(t, disk);
  const fields = `Content-Range: bytes 0-${length - 1}/-1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue`;
  const chunk = Buffer.alloc(256 * 1024, 1);
  for (let reset = 0; reset < 30; reset += 1) {
    const client = await RawHttpClient.connect(t, `127.0.0.1:${port}`);
    client.send(`PUT / HTTP/1.1\r\nHost: x\r\n${fields}\r\n\r\n`);
    assert.equal((await client.response()).status, 100);
    client.send(`${chunk.length.toString(16)}\r\n`, chunk, '\r\n');
    client.socket.resetAndDestroy();
  }
  assert.ok(readFileSync(disk).equals(before));
  // Each of them had taken most of the memory for uploads.
  const gateway = await OldGateway.open(t, [url], patient);
  const bytes = seededBytes(10, length);
  await gateway.write(512, bytes);
  assert.ok((await gateway.read(512, length)).equals(bytes));
  assert.deepEqual(gateway.failures, []);
});

test('an old gateway whose connections are reset comes through when that ends', async (t) => {
  const disk = seededFile(t, 11, mebibyte);
  const server = await startDiskServer(t, disk);
  const proxy = await TcpProxy.start(server.port);
  t.after(() => proxy.close());
  const gateway = await OldGateway.open(t, [proxy.url], patient);
  let resets = 0;
  proxy.change({
    toServer: {
      corrupt: (piece) => {
        if (resets < 20 && piece.includes('PUT ')) {
          resets += 1;
          setImmediate(() => proxy.cut());
        }
        return piece;
      },
    },
  });
  await gateway.write(4096, Buffer.alloc(4096, 7));
  assert.equal(resets, 20);
  assert.ok(gateway.failures.every((failure) => failure.includes('reset')));
  assert.deepEqual(readFileSync(disk).subarray(4096, 8192), Buffer.alloc(4096, 7));
});

test('two old gateways write 64 MiB each at the same time: one waits for the other, none is refused', async (t) => {
  const length = 64 * mebibyte;
  const disk = seededFile(t, 12, 2 * length);
  const { url } = await startDiskServer(t, disk);
  const halves = [seededBytes(13, length), seededBytes(14, length)];
  const gateways = await Promise.all(halves.map(() => OldGateway.open(t, [url], patient)));
  await Promise.all(gateways.map((gateway, half) => gateway.write(half * length, halves[half] ?? Buffer.alloc(0))));
  assert.ok(readFileSync(disk).equals(Buffer.concat(halves)));
  for (const { failures } of gateways) assert.deepEqual(failures, []);
});
