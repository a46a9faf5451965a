/** Finding a server: names, addresses, redirects, credentials, and whether it still serves the same file. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import test, { type TestContext } from 'node:test';
import { systemClock } from '../../../src/base/clock.js';
import { Resolver } from '../../../src/http-client/addresses.js';
import { NoDisk } from '../../../src/http-disk/failure-codec.js';
import { ManualClock } from './manual-clock.js';
import { backendFor, codeOf, diskAnswer, instance, RawServer, read, session, testDisk, write } from './raw-server.js';

const disk = testDisk(1 << 16);

function resolving(addresses: Record<string, readonly string[]>): Resolver {
  return new Resolver((host) => {
    const found = addresses[host];
    return found === undefined
      ? Promise.reject(Object.assign(new Error(host), { code: 'ENOTFOUND' }))
      : Promise.resolve(found);
  }, systemClock);
}

test('a probe tells what the server announces, when, and where it was', async (t) => {
  const clock = new ManualClock();
  clock.advance(500);
  const proper = diskAnswer(disk, { announces: session });
  const server = await RawServer.start(t, (request) => {
    clock.advance(30);
    proper(request);
  });
  const probe = await backendFor(t, server.url, { clock }).probe();
  assert.equal(probe.description.sizeBytes, disk.length);
  assert.deepEqual([...probe.description.features].sort(), ['flush', 'map', 'session', 'trim', 'zero']);
  assert.equal(probe.description.instance, 'one');
  assert.deepEqual([probe.sentAtMs, probe.receivedAtMs], [500, 530]);
  assert.equal(probe.endpoint, `127.0.0.1:${server.port}`);
  assert.equal(server.requests[0]?.fields['accept-encoding'], 'identity');
});

test('every address of a name is tried until one answers, and that one is kept', async (t) => {
  const server = await RawServer.start(t, diskAnswer(disk), '::1');
  const resolver = resolving({ 'disk.test': ['127.0.0.1', '::1'] });
  const backend = backendFor(t, `http://disk.test:${server.port}`, { resolver });
  assert.equal((await backend.probe()).endpoint, `[::1]:${server.port}`);
  await read(backend, 0, 512);
  assert.equal(server.requests[0]?.fields['host'], `disk.test:${server.port}`);
});

test('a name is resolved again at each probe', async (t) => {
  const first = await RawServer.start(t, diskAnswer(disk));
  const second = await RawServer.start(t, diskAnswer(disk), '127.0.0.2', first.port);
  const addresses = { 'disk.test': ['127.0.0.1'] };
  const backend = backendFor(t, `http://disk.test:${first.port}`, { resolver: resolving(addresses) });
  await backend.probe();
  addresses['disk.test'] = ['127.0.0.2'];
  await Promise.all([read(backend, 0, 512), write(backend, 0, Buffer.from(disk.subarray(0, 512)))]);
  assert.equal(second.requests.length, 0);
  assert.equal((await backend.probe()).endpoint, `127.0.0.2:${first.port}`);
  await read(backend, 0, 512);
  assert.equal(second.requests.length, 2);
});

test('a name that does not exist, and addresses that all refuse, are told apart', async (t) => {
  const gone = await RawServer.start(t, diskAnswer(disk));
  const { port } = gone;
  await gone.close();
  const resolver = resolving({ both: ['127.0.0.1', '::1'] });
  const options = { resolver };
  assert.equal(await codeOf(backendFor(t, `http://nowhere:${port}`, options).probe()), 'name-not-resolved');
  assert.equal(await codeOf(backendFor(t, `http://both:${port}`, options).probe()), 'connection-refused');
});

/** A port of `address` whose connection queue is full: the kernel drops what else comes, as a firewall would. */
async function blackHole(t: TestContext, address: string, port: number): Promise<number> {
  const script = `
    const server = require('node:net').createServer();
    server.listen({ host: '${address}', port: ${port}, backlog: 1 }, () => {
      require('node:fs').writeSync(1, String(server.address().port) + '\\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child: ChildProcess = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const fillers: Socket[] = [];
  t.after(async () => {
    for (const filler of fillers) filler.destroy();
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  assert.ok(child.stdout !== null);
  const [printed] = (await once(child.stdout, 'data')) as [Buffer];
  const chosen = Number(printed.toString());
  for (let open = true; open; ) {
    const filler = connect({ host: address, port: chosen });
    filler.on('error', () => undefined);
    fillers.push(filler);
    // On loopback a connection that the queue has room for is there at once.
    open = await Promise.race([
      once(filler, 'connect').then(() => true),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300)),
    ]);
  }
  return chosen;
}

test('an address that does not answer costs a moment, not its time-out', async (t) => {
  const port = await blackHole(t, '127.0.0.2', 0);
  const server = await RawServer.start(t, diskAnswer(disk), '127.0.0.1', port);
  const resolver = resolving({ 'disk.test': ['127.0.0.2', '127.0.0.1'] });
  const clock = new ManualClock();
  const backend = backendFor(t, `http://disk.test:${port}`, { resolver, clock });
  const probing = backend.probe();
  // The clock stands still but for the head start, so a time-out can never be what ends the first attempt.
  while (server.sockets.length === 0) {
    clock.advance(1);
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(clock.nowMs() < 2000);
  }
  assert.ok(clock.nowMs() >= 250);
  assert.equal((await probing).endpoint, `127.0.0.1:${port}`);
});

test('a connect is bounded, and silence is no refusal', async (t) => {
  const port = await blackHole(t, '127.0.0.1', 0);
  const clock = new ManualClock();
  const backend = backendFor(t, `http://127.0.0.1:${port}`, { clock, connectTimeoutMs: 700 });
  const outcomes: Promise<unknown>[] = [codeOf(backend.probe()), backend.refuses(`127.0.0.1:${port}`)];
  // The second one does not wait for its own turn to find the same.
  outcomes.push(codeOf(read(backend, 0, 512)), codeOf(read(backend, 0, 512)));
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(699);
  clock.advance(1);
  assert.deepEqual(await Promise.all(outcomes), ['connection-lost', false, 'unavailable', 'unavailable']);
});

test('an address that is silent, beside one that refuses, is no refusal', async (t) => {
  const port = await blackHole(t, '127.0.0.2', 0);
  const clock = new ManualClock();
  const resolver = resolving({ 'disk.test': ['127.0.0.1', '127.0.0.2'] });
  const backend = backendFor(t, `http://disk.test:${port}`, { clock, resolver, connectTimeoutMs: 700 });
  let code: string | undefined;
  const probing = codeOf(backend.probe()).then((found) => (code = found));
  while (code === undefined) {
    clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await probing, 'connection-lost');
});

test('only a refusal is a refusal', async (t) => {
  const server = await RawServer.start(t, diskAnswer(disk));
  const proxied = backendFor(t, server.url, { environment: { http_proxy: 'http://127.0.0.1:9' } });
  assert.equal(await proxied.refuses(`127.0.0.1:${server.port}`), false);
  await server.until(() => server.sockets[0]?.destroyed === true);
  assert.equal(server.heads.length, 0);
  const { port } = server;
  await server.close();
  assert.equal(await proxied.refuses(`127.0.0.1:${port}`), true);
  assert.equal(await proxied.refuses('nonsense'), false);
  const givenUp = proxied.refuses(`127.0.0.1:${port}`);
  proxied.abandon();
  assert.equal(await givenUp, false);
});

test('that a server has no disk is its own word only from the address that it says is its own', async (t) => {
  const server = await RawServer.start(t, () => undefined);
  const own = `127.0.0.1:${server.port}`;
  const answers = (status: number, endpoint: string): void => {
    server.answer = ({ reply }) =>
      reply(`HTTP/1.1 ${status} No\r\nDisk-Endpoint: ${endpoint}\r\nContent-Length: 0\r\n\r\n`);
  };
  const isOwnWord = (environment = {}) =>
    backendFor(t, server.url, { environment })
      .probe()
      .then(
        () => assert.fail('there is no disk'),
        (error: unknown) => error instanceof NoDisk && error.endpoint === own,
      );
  answers(503, own);
  assert.equal(await isOwnWord(), true);
  assert.equal(await isOwnWord({ http_proxy: server.url }), false);
  answers(502, own);
  assert.equal(await isOwnWord(), false);
  answers(503, '10.0.0.1:80');
  assert.equal(await isOwnWord(), false);
});

test('redirects are followed when a server is chosen, and not again for each request', async (t) => {
  const server = await RawServer.start(t, (request) => {
    const hop = Number(/^\/hop(\d)/.exec(request.path)?.[1] ?? 0);
    if (hop === 0) diskAnswer(disk)(request);
    else {
      const status = [301, 302, 303, 307, 308][(hop - 1) % 5];
      const location = hop === 1 ? '/disk?v=1' : `/hop${hop - 1}`;
      request.reply(`HTTP/1.1 ${status} Moved\r\nLocation: ${location}\r\nContent-Length: 0\r\n\r\n`);
    }
  });
  const backend = backendFor(t, `${server.url}/hop5`);
  await backend.probe();
  await read(backend, 0, 512);
  await write(backend, 0, Buffer.from(disk.subarray(0, 512)));
  assert.deepEqual(
    server.requests.map(({ method, path }) => `${method} ${path}`),
    [5, 4, 3, 2, 1].map((hop) => `HEAD /hop${hop}`).concat('HEAD /disk?v=1', 'GET /disk?v=1', 'PUT /disk?v=1'),
  );
  assert.equal(await codeOf(backendFor(t, `${server.url}/hop6`).probe()), 'server-error');
});

for (const location of ['ftp://127.0.0.1/', 'http://:x']) {
  test(`a redirect to ${location} is malformed`, async (t) => {
    const server = await RawServer.start(t, ({ reply }) =>
      reply(`HTTP/1.1 302 Found\r\nLocation: ${location}\r\nContent-Length: 0\r\n\r\n`),
    );
    assert.equal(await codeOf(backendFor(t, server.url).probe()), 'malformed-response');
    await server.until(() => server.open === 0);
  });
}

test('a redirect without a place to go is a failure of the server', async (t) => {
  const server = await RawServer.start(t, ({ reply }) => reply('HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n'));
  assert.equal(await codeOf(backendFor(t, server.url).probe()), 'server-error');
});

test('credentials are sent to their own origin only, also with the requests after a redirect', async (t) => {
  const other = await RawServer.start(t, diskAnswer(disk));
  const own = await RawServer.start(t, (request) => {
    if (request.path === '/disk') diskAnswer(disk)(request);
    else {
      const location = request.path === '/away' ? `http://a:b@127.0.0.1:${other.port}/x` : '/disk';
      request.reply(`HTTP/1.1 302 Found\r\nLocation: ${location}\r\nContent-Length: 0\r\n\r\n`);
    }
  });
  const expected = `Basic ${Buffer.from('us er:pä:ss').toString('base64')}`;
  for (const path of ['/away', '/stay']) {
    const backend = backendFor(t, `http://us%20er:p%C3%A4:ss@127.0.0.1:${own.port}${path}`);
    await backend.probe();
    await read(backend, 0, 512);
    assert.equal(backend.name, `http://127.0.0.1:${own.port}${path}`);
  }
  assert.equal(other.requests.length, 2);
  for (const { fields } of other.requests) assert.equal(fields['authorization'], undefined);
  assert.equal(own.requests.length, 4);
  for (const { fields } of own.requests) assert.equal(fields['authorization'], expected);
});

test('a server that wants other credentials denies access, and the message holds none', async (t) => {
  const server = await RawServer.start(t, ({ reply }) =>
    reply('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n'),
  );
  const backend = backendFor(t, `http://user:geheim@127.0.0.1:${server.port}`);
  await assert.rejects(backend.probe(), (error: Error & { code?: string }) => {
    return error.code === 'access-denied' && !error.message.includes('geheim');
  });
});

const etag = 'ETag: "v1"';
const modified = 'Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT';

test('a plain server is asked for the file that it had at first', async (t) => {
  const server = await RawServer.start(t, diskAnswer(disk, { announces: [etag, modified], fields: [etag, modified] }));
  const strong = backendFor(t, server.url);
  await strong.probe();
  await read(strong, 0, 512);
  assert.equal(server.requests.at(-1)?.fields['if-match'], '"v1"');
  assert.equal(server.requests.at(-1)?.fields['if-unmodified-since'], undefined);
  const weakly = ['ETag: W/"v1"', modified];
  server.answer = diskAnswer(disk, { announces: weakly, fields: weakly });
  const weak = backendFor(t, server.url);
  await weak.probe();
  await read(weak, 0, 512);
  assert.equal(server.requests.at(-1)?.fields['if-match'], undefined);
  assert.equal(server.requests.at(-1)?.fields['if-unmodified-since'], 'Mon, 01 Jan 2024 00:00:00 GMT');
});

for (const [what, announces, fields] of [
  ['another ETag', ['ETag: "v2"', modified], ['ETag: "v2"', modified]],
  [
    'another date',
    [etag, 'Last-Modified: Tue, 02 Jan 2024 00:00:00 GMT'],
    [etag, 'Last-Modified: Tue, 02 Jan 2024 00:00:00 GMT'],
  ],
  ['no validators any more', [], []],
] as const) {
  test(`a file with ${what} is another disk, for reads and probes`, async (t) => {
    const server = await RawServer.start(
      t,
      diskAnswer(disk, { announces: [etag, modified], fields: [etag, modified] }),
    );
    const backend = backendFor(t, server.url);
    await backend.probe();
    await read(backend, 0, 512);
    server.answer = diskAnswer(disk, { announces, fields });
    assert.equal(await codeOf(read(backend, 0, 512)), 'wrong-disk');
    assert.equal(await codeOf(backend.probe()), 'wrong-disk');
    server.answer = diskAnswer(disk, { announces: [etag, modified], fields: [etag, modified] });
    await backend.probe();
    await read(backend, 0, 512);
  });
}

test('a file of another size is another disk', async (t) => {
  const server = await RawServer.start(t, diskAnswer(disk, { announces: [etag], fields: [etag] }));
  const backend = backendFor(t, server.url);
  await backend.probe();
  server.answer = diskAnswer(testDisk(1 << 17), { announces: [etag], fields: [etag] });
  assert.equal(await codeOf(read(backend, 0, 512)), 'wrong-disk');
  assert.equal(await codeOf(backend.probe()), 'wrong-disk');
});

test('a failed precondition is another disk', async (t) => {
  const server = await RawServer.start(t, diskAnswer(disk, { announces: [etag] }));
  const backend = backendFor(t, server.url);
  await backend.probe();
  server.answer = ({ reply }) => reply('HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n');
  assert.equal(await codeOf(read(backend, 0, 512)), 'wrong-disk');
});

test('what is written through the gateway is not taken for another disk', async (t) => {
  const server = await RawServer.start(t, diskAnswer(Buffer.from(disk), { announces: [etag], fields: [etag] }));
  const backend = backendFor(t, server.url);
  await backend.probe();
  server.answer = diskAnswer(Buffer.from(disk), { announces: ['ETag: "v2"'], fields: ['ETag: "v2"'] });
  await write(backend, 0, Buffer.alloc(512));
  await read(backend, 0, 512);
  await backend.probe();
});

test('a server with an instance, and one without any validator, may change', async (t) => {
  const ours = await RawServer.start(
    t,
    diskAnswer(disk, { announces: [...session, etag], fields: [...instance, etag] }),
  );
  const backend = backendFor(t, ours.url);
  await backend.probe();
  ours.answer = diskAnswer(testDisk(1 << 17), { announces: session, fields: instance });
  await backend.probe();
  await read(backend, 0, 512);
  const old = await RawServer.start(t, diskAnswer(disk));
  const best = backendFor(t, old.url);
  await best.probe();
  old.answer = diskAnswer(testDisk(1 << 17));
  assert.equal((await best.probe()).description.sizeBytes, 1 << 17);
});
