/** A planned change of nbd-server processes, without a device of the kernel (test/vm/ has it with one). */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { asleep } from '../support/asleep.js';
import { NbdClient } from '../../demo/nbd-client.js';
import { projectRoot, startCommand, temporaryFolder } from '../support/processes.js';
import { seededFile, serverInUse, startDiskServer, startGateway } from '../support/stack.js';

const mebibyte = 1024 * 1024;

test('SIGUSR2: a successor with the next generation serves, and the predecessor ends with 0', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  await gateway.program.line('stdout', /Selected server/);
  const name = /^\[(.*?)\] /.exec(gateway.program.stdout)?.[1] ?? '';
  const record = () =>
    JSON.parse(readFileSync(`/run/nbd-${name}.state`, 'utf8')) as { pid: number; session: string; generation: number };
  const before = record();
  gateway.program.signal('SIGUSR2');
  await gateway.program.line('stdout', /Handed over to process \d+/);
  const pid = Number(/Handed over to process (\d+)/.exec(gateway.program.stdout)?.[1]);
  while (record().pid !== pid) await delay(10);
  t.after(() => {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  });
  const after = record();
  assert.notEqual(pid, before.pid);
  assert.deepEqual([after.pid, after.session, after.generation], [pid, before.session, before.generation + 1]);
  process.kill(pid, 'SIGTERM');
  assert.deepEqual(await gateway.program.end(), { code: 0, signal: null });
});

test('SIGTERM while a successor gets ready: both end', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  gateway.program.signal('SIGUSR2');
  await gateway.program.line('stdout', /SIGUSR2 received/);
  gateway.program.signal('SIGTERM');
  // Its streams are closed by the last process that has them.
  assert.deepEqual(await gateway.program.end(), { code: 0, signal: null });
});

async function startVolume(t: TestContext) {
  // First, because the program has not ended before the last process that has its streams.
  const successors: number[] = [];
  t.after(() => successors.forEach((pid) => signal(pid, 'SIGKILL')));
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  await gateway.program.line('stdout', /Selected server/);
  const name = /^\[(.*?)\] /.exec(gateway.program.stdout)?.[1] ?? '';
  const files = [gateway.socketPath, `/run/nbd-${name}.pid`, `/run/nbd-${name}.state`];
  return { gateway, name, successors, leftovers: () => files.filter((path) => existsSync(path)) };
}

type Volume = Awaited<ReturnType<typeof startVolume>>;

async function until(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + 15_000;
  while (!holds()) {
    assert.ok(performance.now() < endMs, what);
    await delay(5);
  }
}

/** SIGUSR2, and the successor's process id as soon as there is one. */
async function beginHandOver({ gateway: { program }, successors }: Volume): Promise<number> {
  // One that has died may not have been waited for yet.
  const children = () => {
    const pids = readFileSync(`/proc/${program.pid}/task/${program.pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .map(Number);
    return pids.filter((pid) => pid > 0 && !successors.includes(pid));
  };
  program.signal('SIGUSR2');
  // As long as it has not executed the program, the predecessor waits for it.
  const isExecuted = (pid: number) => readFileSync(`/proc/${pid}/environ`, 'utf8').includes('NBD_SERVER_SUCCESSOR');
  await until('a successor is started', () => children().some(isExecuted));
  const [successor = 0] = children();
  successors.push(successor);
  return successor;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

/** The predecessor has given everything to a successor that is stopped and cannot take it. */
async function stopWhenGiven(volume: Volume): Promise<number> {
  const { gateway } = volume;
  const successor = await beginHandOver(volume);
  gateway.program.signal('SIGSTOP');
  await until('the successor is ready', () => gateway.program.stdout.includes('Ready to take over'));
  // The line comes before the message to the predecessor; after it there is nothing to do.
  await until('the successor waits', asleep(successor));
  process.kill(successor, 'SIGSTOP');
  gateway.program.signal('SIGCONT');
  await until('the predecessor serves no more', () => !existsSync(gateway.socketPath));
  await until('the predecessor waits', asleep(gateway.program.pid));
  return successor;
}

test('a successor that dies before it is ready: the process goes on', async (t) => {
  const volume = await startVolume(t);
  const { gateway } = volume;
  const successor = await beginHandOver(volume);
  process.kill(successor, 'SIGSTOP');
  gateway.program.signal('SIGUSR2');
  await gateway.program.line('stdout', /A hand-over is under way/);
  process.kill(successor, 'SIGKILL');
  await gateway.program.line('stdout', /the successor did not get ready\. This process goes on\./);
  const client = await NbdClient.connect(gateway.socketPath);
  client.close();
  const next = await beginHandOver(volume);
  await gateway.program.line('stdout', /Handed over to process/);
  process.kill(next, 'SIGTERM');
  assert.deepEqual(await gateway.program.end(), { code: 0, signal: null });
});

test('another server is chosen while a successor gets ready, and writes of a process that died may still land: not handed over', async (t) => {
  const successors: number[] = [];
  t.after(() => successors.forEach((pid) => signal(pid, 'SIGKILL')));
  const disk = seededFile(t, 1, mebibyte);
  const [first, second] = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
  const urls = [first.url, second.url];
  const died = await startGateway(t, urls);
  await died.program.line('stdout', /Selected server/);
  const name = /^\[(.*?)\] /.exec(died.program.stdout)?.[1] ?? '';
  await died.program.kill();
  const options = ['--nbd-name', name, '--request-timeout', '1s'];
  const gateway = await startGateway(t, urls, options);
  await gateway.program.line('stdout', /Selected server/);
  const inUse = serverInUse(gateway, [first, second]);
  const volume: Volume = { gateway, name, successors, leftovers: () => [] };
  const successor = await beginHandOver(volume);
  process.kill(successor, 'SIGSTOP');
  // It answers nothing, but whatever it has been sent may still land.
  inUse.program.signal('SIGSTOP');
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  await client.read(0, 4096);
  process.kill(successor, 'SIGCONT');
  await gateway.program.line('stdout', /Not handed over: the server in use has changed, .*\. This process goes on\./);
  await client.read(0, 4096);
  gateway.program.signal('SIGTERM');
  assert.deepEqual(await gateway.program.end(), { code: 0, signal: null });
});

test('a successor that dies when everything has been given to it: an error, and the record stays for the next one', async (t) => {
  const volume = await startVolume(t);
  const { gateway, name, leftovers } = volume;
  const path = `/run/nbd-${name}.state`;
  t.after(() => rmSync(path, { force: true }));
  const before = readFileSync(path, 'utf8');
  const successor = await stopWhenGiven(volume);
  process.kill(successor, 'SIGKILL');
  assert.deepEqual(await gateway.program.end(), { code: 1, signal: null });
  assert.match(gateway.program.stdout, /Not handed over: the successor has gone/);
  assert.ok(leftovers().includes(path));
  assert.equal(readFileSync(path, 'utf8'), before);
});

for (const hangs of [false, true]) {
  test(`SIGTERM to both when everything has been given${hangs ? ' to one that hangs' : ''}: both end, and nothing is left`, async (t) => {
    const volume = await startVolume(t);
    const { gateway, leftovers } = volume;
    const successor = await stopWhenGiven(volume);
    for (const pid of [gateway.program.pid, successor]) process.kill(pid, 'SIGTERM');
    if (!hangs) process.kill(successor, 'SIGCONT');
    assert.equal((await gateway.program.end()).code, 0);
    assert.deepEqual(leftovers(), []);
  });
}

const noNamespaces = process.getuid?.() === 0 ? false : 'needs root (unshare)';

test('no room beside its own record for one of a successor: the process goes on', { skip: noNamespaces }, async (t) => {
  const disk = seededFile(t, 1, mebibyte);
  const servers = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
  const socketPath = join(temporaryFolder(t), 'socket');
  const urls = servers.map(({ url }) => url).join(',');
  const smallRun = 'mount -t tmpfs -o size=64k tmpfs /run && exec "$@"';
  const options = ['--no-attach', '--socket-path', socketPath, '--nbd-name', 'full', '--urls', urls];
  const command = ['sh', '-c', smallRun, 'sh', join(projectRoot, 'bin/nbd-server'), ...options];
  const program = startCommand(t, 'unshare', ['--mount', ...command]);
  await program.line('stdout', /NBD server ready/);
  const client = await NbdClient.connect(socketPath);
  t.after(() => client.close());
  await client.write(0, Buffer.alloc(512, 1));
  assert.throws(() => {
    for (;;) appendFileSync(`/proc/${program.pid}/root/run/filler`, Buffer.alloc(4096));
  }, /ENOSPC/);
  await servers[0]?.program.kill();
  await client.write(0, Buffer.alloc(512, 2));
  // The record that was not true any more is gone, and has left room for just one.
  await program.line('stdout', /nobody will be able to take over from us: `ENOSPC`/);
  program.signal('SIGUSR2');
  await program.line('stdout', /Not handed over: .* cannot be written: `ENOSPC`\. This process goes on\./);
  await client.write(0, Buffer.alloc(512, 3));
  assert.deepEqual(await program.stop(), { code: 0, signal: null });
});
