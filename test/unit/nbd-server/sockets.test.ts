/** Where the server listens, and the file of its unix socket. */
import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { NbdServer, unixPathBytesMax } from '../../../src/nbd-server/nbd-server.js';
import { FakeClock } from '../../support/fake-clock.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { NbdClient } from '../../support/nbd-client.js';
import { temporaryFolder } from '../../support/processes.js';
import { mebibyte } from './harness.js';

function create(t: TestContext): NbdServer {
  const buffers = new BufferPool(mebibyte);
  const volume = new MemoryVolume(mebibyte, buffers);
  const server = new NbdServer({
    clock: new FakeClock(),
    volume,
    buffers,
    exportName: 'disk',
    exportDescription: 'A test',
  });
  t.after(() => server.close());
  return server;
}

/** A socket file that belongs to another program. */
async function foreign(t: TestContext, path: string): Promise<Server> {
  const server = createServer((socket) => void socket.on('error', () => {}).end('foreign'));
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  t.after(() => void server.close());
  return server;
}

/** A socket file whose program is gone. */
async function stale(t: TestContext, path: string): Promise<void> {
  const server = await foreign(t, `${path}.bound`);
  renameSync(`${path}.bound`, path); // closing removes the other name only
  await new Promise<void>((resolve) => void server.close(() => resolve()));
  assert.ok(lstatSync(path).isSocket());
}

async function isServed(t: TestContext, where: { path: string } | { host: string; port: number }): Promise<void> {
  const client = await NbdClient.open(where);
  t.after(() => client.destroy());
  assert.equal((await client.read(0, 10)).length, 10);
}

test('the socket file appears when clients can connect, alone, and is gone after the close', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'socket');
  const server = create(t);
  await server.listenUnix(path);
  assert.deepEqual(readdirSync(folder), ['socket']);
  await isServed(t, { path });
  await server.close();
  assert.deepEqual(readdirSync(folder), []);
});

test('a socket file that nobody answers on is replaced', async (t) => {
  const path = join(temporaryFolder(t), 'socket');
  await stale(t, path);
  await create(t).listenUnix(path);
  await isServed(t, { path });
});

test('a socket that another program serves is left alone', async (t) => {
  const path = join(temporaryFolder(t), 'socket');
  await foreign(t, path);
  const { ino } = lstatSync(path);
  await assert.rejects(create(t).listenUnix(path), { name: 'Failure', message: `Another program serves \`${path}\`.` });
  assert.equal(lstatSync(path).ino, ino);
});

test('a second server of ours does not take the socket of the first', async (t) => {
  const path = join(temporaryFolder(t), 'socket');
  await create(t).listenUnix(path);
  const second = create(t);
  await assert.rejects(second.listenUnix(path), { name: 'Failure' });
  await second.close();
  await isServed(t, { path });
});

test('whatever is no socket is left alone', async (t) => {
  const folder = temporaryFolder(t);
  const expected = (path: string) => ({ name: 'Failure', message: `\`${path}\` exists and is not a socket.` });
  const file = join(folder, 'file');
  writeFileSync(file, 'precious');
  await assert.rejects(create(t).listenUnix(file), expected(file));
  assert.equal(readFileSync(file, 'utf8'), 'precious');
  const inner = join(folder, 'folder');
  mkdirSync(inner);
  await assert.rejects(create(t).listenUnix(inner), expected(inner));
  const link = join(folder, 'link');
  symlinkSync(join(folder, 'nowhere'), link);
  await assert.rejects(create(t).listenUnix(link), expected(link));
  assert.ok(lstatSync(link).isSymbolicLink());
});

test('a folder that does not exist is an error that names the socket', async (t) => {
  const path = join(temporaryFolder(t), 'none', 'socket');
  await assert.rejects(create(t).listenUnix(path), {
    name: 'Failure',
    message: `Cannot listen on \`${path}\`: \`ENOENT\`.`,
  });
});

test('the socket file of a successor survives the close', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'socket');
  const server = create(t);
  await server.listenUnix(path);
  await foreign(t, join(folder, 'successor'));
  renameSync(join(folder, 'successor'), path);
  const { ino } = lstatSync(path);
  await server.close();
  assert.equal(lstatSync(path).ino, ino);
});

test('a socket file that somebody removed is not missed', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'socket');
  const server = create(t);
  await server.listenUnix(path);
  renameSync(path, join(folder, 'elsewhere'));
  await server.close();
  assert.equal(existsSync(path), false);
});

test('TCP on any port, beside the unix socket', async (t) => {
  const path = join(temporaryFolder(t), 'socket');
  const server = create(t);
  await server.listenUnix(path);
  const port = await server.listenTcp('127.0.0.1', 0);
  assert.notEqual(port, 0);
  const names: string[] = [];
  server.events.subscribe((event) => void names.push(event.client));
  await isServed(t, { host: '127.0.0.1', port });
  await isServed(t, { path });
  assert.match(names[0] ?? '', /^127\.0\.0\.1:\d+$/);
  assert.equal(names[1], 'unix socket');
  await server.close();
  await assert.rejects(NbdClient.connect({ host: '127.0.0.1', port }), { code: 'ECONNREFUSED' });
});

test('TCP on all addresses, IPv6 among them', async (t) => {
  const port = await create(t).listenTcp(undefined, 0);
  await isServed(t, { host: '127.0.0.1', port });
  await isServed(t, { host: '::1', port });
});

test('a port in use is an error that names it', async (t) => {
  const port = await create(t).listenTcp('127.0.0.1', 0);
  await assert.rejects(create(t).listenTcp('127.0.0.1', port), {
    name: 'Failure',
    message: `Cannot listen on \`127.0.0.1:${port}\`: \`EADDRINUSE\`.`,
  });
});

test('a path as long as an address can be, in a folder that leaves no room for a longer name', async (t) => {
  const outer = temporaryFolder(t);
  const folder = join(outer, 'x'.repeat(unixPathBytesMax - outer.length - 3));
  mkdirSync(folder);
  const path = join(folder, 's');
  assert.equal(path.length, unixPathBytesMax);
  const server = create(t);
  await server.listenUnix(path);
  assert.deepEqual(readdirSync(folder), ['s']);
  await isServed(t, { path });
  await server.close();
  assert.deepEqual(readdirSync(folder), []);
});

test('a close while the socket is being made leaves no file behind', async (t) => {
  const folder = temporaryFolder(t);
  const server = create(t);
  const listening = server.listenUnix(join(folder, 'socket'));
  await server.close();
  assert.deepEqual(readdirSync(folder), []);
  await listening;
  assert.deepEqual(readdirSync(folder), []);
});
