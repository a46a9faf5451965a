/** The old server (its stand-in), and a real web server. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { OldServer } from '../../support/old-server.js';
import { findProgram, needs } from '../../support/tools.js';
import { ask, backendFor, codeOf, diskAnswer, RawServer, read, session, testDisk, write } from './raw-server.js';

const disk = testDisk(1 << 20);

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'http-client-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

async function startOld(t: TestContext): Promise<{ server: OldServer; file: string }> {
  const file = join(temporaryFolder(t), 'disk');
  writeFileSync(file, disk);
  const server = await OldServer.start(file);
  t.after(() => server.close());
  return { server, file };
}

test('the old server is read and written, one request and one connection at a time', async (t) => {
  const { server, file } = await startOld(t);
  const backend = backendFor(t, server.url);
  const { description, oneAtATime } = await backend.probe();
  assert.equal(description.sizeBytes, disk.length);
  assert.equal(description.features.size, 0);
  assert.ok(oneAtATime);
  const bytes = Buffer.alloc(200_000, 7);
  const [first, second] = await Promise.all([
    read(backend, 4096, 512),
    read(backend, 300_000, 100_001),
    write(backend, 500_000, bytes),
    write(backend, disk.length - 512, bytes.subarray(0, 512)),
  ]);
  assert.ok(first.data.equals(disk.subarray(4096, 4608)));
  assert.ok(second.data.equals(disk.subarray(300_000, 400_001)));
  assert.ok(readFileSync(file).subarray(500_000, 700_000).equals(bytes));
  assert.equal(statSync(file).size, disk.length);
  assert.equal(server.connections, 5);
  assert.equal(server.requests.length, 5);
  const put = server.requests.find(({ line }) => line.startsWith('PUT'));
  assert.equal(put?.fields['content-length'] !== undefined && put.fields['transfer-encoding'] === undefined, true);
});

test('no idle connection blocks the old server for others', async (t) => {
  const { server } = await startOld(t);
  const backend = backendFor(t, server.url);
  await backend.probe();
  await read(backend, 0, 512);
  const other = backendFor(t, server.url);
  await other.probe();
  assert.equal(await codeOf(write(backend, 0, Buffer.from(disk.subarray(0, 512)))), 'no failure');
});

test('behind somebody else who blocks it, the old server is waited for', async (t) => {
  const { server } = await startOld(t);
  const backend = backendFor(t, server.url);
  await backend.probe();
  const idle = connect({ host: '127.0.0.1', port: server.port });
  await once(idle, 'connect');
  const reads = [read(backend, 0, 512), read(backend, 512, 512)];
  while (server.connections < 3) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(server.requests.length, 1);
  idle.destroy();
  await Promise.all(reads);
  assert.equal(server.connections, 4);
});

test('what the old server does not have is a certain refusal', async (t) => {
  const { server } = await startOld(t);
  const backend = backendFor(t, server.url);
  await backend.probe();
  assert.equal(await codeOf(ask(backend, { op: 'flush' }, null, null)), 'unsupported');
  assert.equal(await codeOf(read(backend, disk.length - 100, 512)), 'out-of-range');
});

test('ours where an old server was, while nobody asked: it is not taken for the old one', async (t) => {
  const { server, file } = await startOld(t);
  const backend = backendFor(t, server.url);
  await backend.probe();
  await read(backend, 0, 512);
  await server.close();
  const ours = await RawServer.start(t, diskAnswer(disk, { announces: session }), '127.0.0.1', server.port);
  assert.equal(await codeOf(read(backend, 0, 512)), 'connection-lost');
  assert.equal(await codeOf(write(backend, 0, Buffer.alloc(512))), 'connection-lost');
  assert.ok((await backend.probe()).description.features.has('session'));
  await read(backend, 0, 512);
  // And back.
  await ours.close();
  const again = await OldServer.start(file, server.port);
  t.after(() => again.close());
  const zero = { op: 'zero', offset: 0, length: 512, mayTrim: true, fast: false, deferred: false } as const;
  assert.equal(
    await codeOf(ask(backend, zero, null, null)),
    'connection-lost',
    'it is not the answer of the server asked',
  );
  assert.equal(await codeOf(read(backend, 0, 512)), 'connection-lost');
  assert.equal((await backend.probe()).description.features.size, 0);
  assert.equal(await codeOf(write(backend, 0, Buffer.alloc(512))), 'no failure');
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

interface Nginx {
  readonly url: string;
  readonly file: string;
}

/** A real nginx over one file. It is stopped, and its folder removed, when the test is over. */
async function startNginx(t: TestContext, settings = ''): Promise<Nginx> {
  const folder = temporaryFolder(t);
  const port = await freePort();
  mkdirSync(join(folder, 'files'));
  const file = join(folder, 'files', 'disk.img');
  writeFileSync(file, disk);
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log;
     events { worker_connections 64; }
     http { access_log off; ${paths.join(' ')} server { listen 127.0.0.1:${port}; root ${folder}/files; ${settings} } }`,
  );
  const program = findProgram('nginx');
  assert.ok(program !== undefined);
  const nginx = spawn(program, ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  t.after(() => stop(nginx));
  await listening(port, nginx);
  return { url: `http://127.0.0.1:${port}/disk.img`, file };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

async function listening(port: number, child: ChildProcess): Promise<void> {
  while (child.exitCode === null) {
    const socket = connect({ host: '127.0.0.1', port });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.on('connect', () => resolve(true));
      socket.on('error', () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('nginx has exited');
}

test('nginx is read, pipelined, also beyond the number of requests that it takes on a connection', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light')) return;
  const { url } = await startNginx(t, 'keepalive_requests 7;');
  const backend = backendFor(t, url);
  const { description, oneAtATime } = await backend.probe();
  assert.equal(description.sizeBytes, disk.length);
  assert.ok(!oneAtATime);
  const offsets = Array.from({ length: 200 }, (_, index) => index * 4096);
  const answers = await Promise.all(offsets.map((offset) => read(backend, offset, 4096)));
  answers.forEach(({ data }, index) => assert.ok(data.equals(disk.subarray(index * 4096, index * 4096 + 4096))));
  assert.ok((await read(backend, 1, 900_000)).data.equals(disk.subarray(1, 900_001)));
  assert.ok((await read(backend, 0, disk.length)).data.equals(disk));
});

test('nginx that keeps no connections is read', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light')) return;
  const { url } = await startNginx(t, 'keepalive_timeout 0;');
  const backend = backendFor(t, url);
  await backend.probe();
  const answers = await Promise.all([0, 4096, 8192].map((offset) => read(backend, offset, 4096)));
  answers.forEach(({ data }, index) => assert.ok(data.equals(disk.subarray(index * 4096, index * 4096 + 4096))));
});

test('a file that is replaced behind nginx is another disk', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light')) return;
  const { url, file } = await startNginx(t);
  const backend = backendFor(t, url);
  await backend.probe();
  await read(backend, 0, 512);
  writeFileSync(file, Buffer.alloc(disk.length + 512));
  assert.equal(await codeOf(read(backend, 0, 512)), 'wrong-disk');
  assert.equal(await codeOf(backend.probe()), 'wrong-disk');
});

test('nginx refuses what it cannot do: writes, missing files, passwords', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light')) return;
  const { url } = await startNginx(t, 'location /private { auth_basic x; auth_basic_user_file /dev/null; }');
  const backend = backendFor(t, url);
  await backend.probe();
  assert.equal(await codeOf(write(backend, 0, Buffer.alloc(512))), 'read-only');
  assert.equal(await codeOf(backendFor(t, `${url}.gone`).probe()), 'not-found');
  assert.equal(await codeOf(backendFor(t, url.replace('/disk.img', '/private')).probe()), 'access-denied');
});
