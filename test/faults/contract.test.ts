/** What other software relies on: lines, streams, exit codes, files, and how both programs are started and stopped. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { basename, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NbdClient } from '../../demo/nbd-client.js';
import { finish } from '../support/commands.js';
import {
  freePort,
  projectRoot,
  type RunningProgram,
  startCommand,
  startProgram,
  temporaryFolder,
} from '../support/processes.js';
import { accepts, seededFile, startDiskServer, startGateway, untilListening } from '../support/stack.js';

const mebibyte = 2 ** 20;
const diskServer = join(projectRoot, 'bin/http-disk-server');
const nbdServer = join(projectRoot, 'bin/nbd-server');

/** An open connection that says nothing, or only `text`. */
async function connectTo(t: TestContext, port: number, text = ''): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  t.after(() => void socket.destroy());
  await new Promise((resolve) => socket.once('connect', resolve));
  if (text !== '') await new Promise((resolve) => socket.write(text, resolve));
  return socket;
}

async function httpGet(port: number, range: string): Promise<{ status: number; headers: Headers; body: Buffer }> {
  const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { range, connection: 'close' } });
  return { status: response.status, headers: response.headers, body: Buffer.from(await response.arrayBuffer()) };
}

test('http-disk-server: its lines, all on stderr, each with the name of the real disk', async (t) => {
  const disk = seededFile(t, 1, mebibyte, 'real.img');
  const link = join(temporaryFolder(t), 'link.img');
  symlinkSync(disk, link);
  const server = await startDiskServer(t, link);
  await httpGet(server.port, 'bytes=0-511');
  assert.deepEqual(await server.program.stop(), { code: 0, signal: null });
  assert.equal(server.program.stdout, '');
  const lines = server.program.lines('stderr');
  for (const line of lines) assert.ok(line.startsWith('[real.img] '), line);
  assert.equal(lines.filter((line) => line.endsWith('Server ready!')).length, 1);
  assert.equal(lines.filter((line) => line.endsWith('Disk open!')).length, 1);
  assert.equal(lines.filter((line) => line.endsWith('SIGTERM received. Exiting server...')).length, 1);
  assert.ok(!server.program.stderr.includes('GET'), 'no access lines without -v');
  assert.ok(!server.program.stderr.includes('\r'), 'lines end with a bare newline');
});

test('http-disk-server -v: access lines in the common format', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte), ['-v']);
  await httpGet(server.port, 'bytes=0-511');
  await server.program.line(
    'stderr',
    /^\[disk\.img\] 127\.0\.0\.1 - - \[\d\d\/[A-Z][a-z]{2}\/\d{4} \d\d:\d\d:\d\d\] "GET \/ HTTP\/1\.1" 206 (-|\d+)$/,
  );
});

test('http-disk-server ends at once on SIGTERM and SIGINT, whatever connections are open', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
    await connectTo(t, server.port);
    await connectTo(t, server.port, 'GET / HT');
    await connectTo(
      t,
      server.port,
      'PUT / HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-511/*\r\nContent-Length: 512\r\n\r\nabc',
    );
    const reader = await connectTo(t, server.port, 'GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1048575\r\n\r\n');
    reader.pause();
    server.program.signal(signal);
    assert.deepEqual(await server.program.end(10_000), { code: 0, signal: null }, signal);
    assert.equal(await accepts({ host: '127.0.0.1', port: server.port }), false);
  }
});

test('http-disk-server waits for the port of a predecessor that is about to end', async (t) => {
  const port = await freePort();
  const disk = seededFile(t, 1, mebibyte);
  const holder = createServer().listen(port, '127.0.0.1');
  t.after(() => void holder.close());
  const program = startProgram(t, 'http-disk-server', ['--disk', disk, '--ip', '127.0.0.1', '--port', String(port)]);
  await delay(300); // It has tried, and not given up.
  assert.ok(program.isRunning);
  await new Promise((resolve) => holder.close(resolve));
  await program.line('stderr', /Server ready!$/);
  await untilListening({ host: '127.0.0.1', port }, program);
  assert.equal((await httpGet(port, 'bytes=0-511')).status, 206);
});

test('http-disk-server says what is wrong with a port that stays in use, and exits with 1', async (t) => {
  const port = await freePort();
  const holder = createServer().listen(port, '127.0.0.1');
  t.after(() => void holder.close());
  const args = ['--disk', seededFile(t, 1, mebibyte), '--ip', '127.0.0.1', '--port', String(port)];
  const { code, stderr } = await finish(diskServer, args);
  assert.equal(code, 1);
  assert.match(stderr, /in use|EADDRINUSE/);
  assert.ok(stderr.includes(String(port)));
});

test('http-disk-server: a disk that does not exist or is a folder is an error at the start', async (t) => {
  const folder = temporaryFolder(t);
  for (const path of [join(folder, 'missing.img'), folder]) {
    const args = ['--disk', path, '--ip', '127.0.0.1', '--port', String(await freePort())];
    const { code, stdout, stderr } = await finish(diskServer, args);
    assert.equal(code, 1, stderr);
    assert.equal(stdout, '');
    assert.ok(stderr.includes(`Cannot open device \`${path}\`: \``), stderr);
    assert.doesNotMatch(stderr, /\n\s+at /, 'no stack trace');
  }
});

test('a disk under /dev that is not there yet: ready, 503 with Retry-After, and served when it comes', async (t) => {
  const folder = temporaryFolder(t, '/dev/shm');
  const path = join(folder, 'disk.img');
  const port = await freePort();
  const program = startProgram(t, 'http-disk-server', ['--disk', path, '--ip', '127.0.0.1', '--port', String(port)]);
  await program.line('stderr', /Server ready!$/);
  const refused = await httpGet(port, 'bytes=0-511');
  assert.equal(refused.status, 503);
  assert.match(refused.headers.get('retry-after') ?? '', /^\d+$/);
  writeFileSync(path, Buffer.alloc(mebibyte, 7));
  await program.line('stderr', /Disk open!$/);
  const served = await httpGet(port, 'bytes=0-511');
  assert.equal(served.status, 206);
  assert.ok(served.body.equals(Buffer.alloc(512, 7)));
});

const noNamespaces = process.getuid?.() === 0 ? false : 'needs root (unshare)';

test('http-disk-server as process 1 of a container says what it lacks, and serves', {
  skip: noNamespaces,
}, async (t) => {
  const disk = seededFile(t, 1, mebibyte);
  const args = [diskServer, '--disk', disk, '--ip', '127.0.0.1', '--port', String(await freePort())];
  const program = startCommand(t, 'unshare', ['--pid', '--fork', '--kill-child', ...args]);
  await program.line('stderr', /No timer that ends this process .*: `EPERM`\.$/);
  await program.line('stderr', /Disk open!$/);
});

test('nbd-server: its lines, all on stdout, each with its name', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  await gateway.program.line('stdout', /Selected server: /);
  assert.deepEqual(await gateway.program.stop(), { code: 0, signal: null });
  assert.equal(gateway.program.stderr, '');
  const lines = gateway.program.lines('stdout');
  for (const line of lines) assert.match(line, /^\[test-[\w-]+\] /);
  const has = (text: string): boolean => lines.some((line) => line.endsWith(`] ${text}`));
  assert.ok(has(`Trying to use server: \`${server.url}\`...`), gateway.program.stdout);
  assert.ok(has(`Selected server: \`${server.url}\`.`), gateway.program.stdout);
  assert.ok(has(`Device size: ${mebibyte}.`), gateway.program.stdout);
  assert.ok(has('SIGTERM received. Exiting server...'), gateway.program.stdout);
  assert.ok(!existsSync(gateway.socketPath), 'the socket is gone');
});

test('nbd-server ends at once on SIGTERM and SIGINT, with clients connected and servers gone', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
    const gateway = await startGateway(t, [server.url]);
    const client = await NbdClient.connect(gateway.socketPath);
    await client.read(0, 512);
    await server.program.stop();
    const waiting = client.read(0, 512).catch((error: unknown) => error);
    gateway.program.signal(signal);
    assert.deepEqual(await gateway.program.end(10_000), { code: 0, signal: null }, signal);
    assert.ok((await waiting) instanceof Error);
    assert.ok(!existsSync(gateway.socketPath));
  }
});

test('nbd-server replaces a stale socket, and serves under its name alone', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const first = await startGateway(t, [server.url]);
  await first.program.kill();
  assert.ok(existsSync(first.socketPath), 'it was left behind');
  const name = `stale-${process.pid}`;
  const args = ['--no-attach', '--socket-path', first.socketPath, '--nbd-name', name, '--urls', server.url];
  const second = startProgram(t, 'nbd-server', args);
  await second.line('stdout', /Selected server/);
  await untilListening({ path: first.socketPath }, second);
  const client = await NbdClient.connect(first.socketPath);
  assert.equal(client.sizeBytes, mebibyte);
  client.close();
});

test('nbd-server: the pid file lies under /var/run while it runs', async (t) => {
  const pidFile = (program: RunningProgram): string => {
    const name = /^\[(.*?)\] /.exec(program.stdout)?.[1];
    return `/var/run/nbd-${name}.pid`;
  };
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  await gateway.program.line('stdout', /Selected server/);
  const path = pidFile(gateway.program);
  if (process.getuid?.() !== 0) {
    assert.ok(!existsSync(path), 'an ordinary user cannot write there, and it works all the same');
    return;
  }
  assert.equal(readFileSync(path, 'utf8').trim(), String(gateway.program.pid));
  await gateway.program.stop();
  assert.ok(!existsSync(path));
});

test('nbd-server with --device-size serves before any server is there, and uses the first that comes', async (t) => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const gateway = await startGateway(t, [url], ['--device-size', String(mebibyte)]);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  assert.equal(client.sizeBytes, mebibyte);
  const read = client.read(0, 4096);
  const disk = seededFile(t, 3, 2 * mebibyte);
  await startDiskServer(t, disk, [], port);
  assert.ok((await read).equals(readFileSync(disk).subarray(0, 4096)));
});

test('nbd-server without --no-attach, on a kernel without nbd: one clear line, and exit code 1', async (t) => {
  if (
    existsSync('/sys/block/nbd0') ||
    existsSync(`/lib/modules/${readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim()}`)
  ) {
    t.diagnostic('this kernel may have nbd: the case is covered by the virtual machine');
    return;
  }
  const socketPath = join(temporaryFolder(t), 'socket');
  const args = [
    '--socket-path',
    socketPath,
    '--nbd-name',
    `none-${process.pid}`,
    '--urls',
    'http://127.0.0.1:9',
    '--device-size',
    '1M',
  ];
  const { code, stdout, stderr } = await finish(nbdServer, args, undefined, 20_000);
  assert.equal(code, 1, stdout + stderr);
  assert.match(stdout + stderr, /nbd/);
  assert.doesNotMatch(stdout + stderr, /\n\s+at /, 'no stack trace');
  assert.ok(!existsSync(socketPath));
});

for (const [program, args, message] of [
  [diskServer, [], /--disk/],
  [diskServer, ['--disk', 'x', '--port', '99999'], /port/i],
  [diskServer, ['--disk', 'x', '--prot', '1'], /--prot/],
  [diskServer, ['--disk', 'x', 'y'], /./],
  [diskServer, ['--disk', 'x', '--ip', 'localhost'], /address/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', 'n'], /--urls/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', 'n', '--urls', 'ftp://a/'], /ftp/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', 'n', '--urls', 'http://a:99999'], /99999/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', 'n', '--urls', 'http://a,,http://b'], /empty/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', '../x', '--urls', 'http://a'], /name/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', 'n', '--urls', 'http://a', '--device-size', '0'], /size/],
  [nbdServer, ['--socket-path', 's', '--nbd-name', 'n', '--urls', 'http://a', '--io-timeout', '1'], /timeout/],
] as const) {
  test(`wrong options: ${basename(program)} ${args.join(' ')}`, async (t) => {
    const { code, stdout, stderr } = await finish(program, args, temporaryFolder(t));
    assert.equal(code, 2, stdout + stderr);
    const output = stdout + stderr;
    assert.match(output, /^[^\n]+\n$/, 'one line');
    assert.match(output, message);
  });
}

for (const program of ['http-disk-server', 'nbd-server', 'nbd-http-server']) {
  test(`${program} --help and --version`, async () => {
    const help = await finish(join(projectRoot, 'bin', program), ['--help']);
    assert.equal(help.code, 0);
    assert.match(help.stdout, /^Usage: /);
    const version = await finish(join(projectRoot, 'bin', program), ['--version']);
    assert.equal(version.code, 0);
    assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/);
  });
}

/**
 * As the storage manager's wrapper does it: a process group of its own, both streams in one pipe, and a wrapper that does not
 * end on SIGTERM itself. The last line is the program's exit code.
 */
function startWrapped(t: TestContext, program: string, args: readonly string[]): RunningProgram {
  const script = 'trap "" TERM; { "$@" 2>&1; echo "exit $?"; } | cat';
  return startCommand(t, 'sh', ['-c', script, 'wrapper', program, ...args], { ownGroup: true });
}

test('a wrapper with one pipe and a process group: HTTP server stopped first, both end orderly', async (t) => {
  const port = await freePort();
  const folder = temporaryFolder(t);
  const disk = seededFile(t, 4, mebibyte);
  const diskArgs = ['--disk', disk, '--ip', '127.0.0.1', '--port', String(port)];
  const server = startWrapped(t, diskServer, diskArgs);
  await server.line('stdout', /Server ready!$/);
  const socketPath = join(folder, 'socket');
  const url = `http://127.0.0.1:${port}`;
  const nbdArgs = ['--no-attach', '--socket-path', socketPath, '--nbd-name', `wrapped-${process.pid}`, '--urls', url];
  const gateway = startWrapped(t, nbdServer, nbdArgs);
  await gateway.line('stdout', /Selected server/);
  await untilListening({ path: socketPath });
  const client = await NbdClient.connect(socketPath);
  await client.write(0, Buffer.alloc(4096, 9));

  server.signalGroup('SIGTERM');
  assert.deepEqual(await server.end(10_000), { code: 0, signal: null });
  assert.equal(server.lines('stdout').at(-1), 'exit 0');
  assert.match(server.stdout, /SIGTERM received\. Exiting server\.\.\.\n/);

  gateway.signalGroup('SIGTERM');
  assert.deepEqual(await gateway.end(10_000), { code: 0, signal: null });
  assert.equal(gateway.lines('stdout').at(-1), 'exit 0');
  client.close();
  assert.ok(readFileSync(disk).subarray(0, 4096).equals(Buffer.alloc(4096, 9)));
});

test('a restart by the wrapper: the successors are started milliseconds after the signal', async (t) => {
  const port = await freePort();
  const socketPath = join(temporaryFolder(t), 'socket');
  const disk = seededFile(t, 5, mebibyte);
  const url = `http://127.0.0.1:${port}`;
  const diskArgs = ['--disk', disk, '--ip', '127.0.0.1', '--port', String(port)];
  const nbdArgs = ['--no-attach', '--socket-path', socketPath, '--nbd-name', `restart-${process.pid}`, '--urls', url];
  const start = (): readonly [RunningProgram, RunningProgram] => [
    startWrapped(t, diskServer, diskArgs),
    startWrapped(t, nbdServer, nbdArgs),
  ];
  let [server, gateway] = start();
  for (let round = 0; round < 3; round++) {
    await server.line('stdout', /Server ready!$/);
    await gateway.line('stdout', /Selected server/);
    const [oldServer, oldGateway] = [server, gateway];
    server.signalGroup('SIGTERM');
    gateway.signalGroup('SIGTERM');
    [server, gateway] = start();
    for (const old of [oldServer, oldGateway]) {
      await old.end();
      assert.equal(old.lines('stdout').at(-1), 'exit 0', old.report());
    }
  }
  await gateway.line('stdout', /Selected server/);
  await untilListening({ path: socketPath }, gateway);
  const client = await NbdClient.connect(socketPath);
  t.after(() => client.close());
  assert.ok((await client.read(0, 4096)).equals(readFileSync(disk).subarray(0, 4096)));
});

test('a reader of the log that has gone stops nobody', async (t) => {
  const port = await freePort();
  const disk = seededFile(t, 6, mebibyte);
  const script = 'exec "$@" 2>&1 | head -n 1';
  const args = [diskServer, '--disk', disk, '--ip', '127.0.0.1', '--port', String(port), '-v'];
  const program = startCommand(t, 'sh', ['-c', script, 'wrapper', ...args], { ownGroup: true });
  await untilListening({ host: '127.0.0.1', port }, program);
  // It listens before the disk is open.
  while ((await httpGet(port, 'bytes=0-511')).status === 503) await delay(10);
  for (let i = 0; i < 20; i++) assert.equal((await httpGet(port, 'bytes=0-511')).status, 206);
});

test('garbage on the HTTP port and on the NBD socket stops nobody', async (t) => {
  const disk = seededFile(t, 7, mebibyte);
  const server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url]);
  const garbage = [
    '\0'.repeat(5000),
    'GET',
    '\x16\x03\x01\x02\x00\x01',
    'NBDMAGIC'.repeat(100),
    `GET /${'x'.repeat(100_000)} HTTP/1.1\r\n\r\n`,
  ];
  for (const text of garbage) {
    await connectTo(t, server.port, text);
    const socket = connect(gateway.socketPath);
    socket.on('error', () => {});
    t.after(() => void socket.destroy());
    await new Promise((resolve) => socket.write(text, resolve));
  }
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  assert.ok((await client.read(0, 4096)).equals(readFileSync(disk).subarray(0, 4096)));
  assert.ok(server.program.isRunning && gateway.program.isRunning);
});

test('a file without write permission, or --read-only, is served read-only with a line that says so', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 8, mebibyte), ['--read-only']);
  const headers = { 'content-range': 'bytes 0-511/*', connection: 'close' };
  const response = await fetch(server.url, { method: 'PUT', headers, body: Buffer.alloc(512) });
  assert.equal(response.status, 403);
  await server.program.line('stderr', /read-only/i);
});

test('the programs keep running when their folder is removed', async (t) => {
  const folder = join(temporaryFolder(t), 'cwd');
  mkdirSync(folder);
  const port = await freePort();
  const args = ['--disk', seededFile(t, 9, mebibyte), '--ip', '127.0.0.1', '--port', String(port)];
  const program = startProgram(t, 'http-disk-server', args, { cwd: folder });
  await program.line('stderr', /Server ready!$/);
  rmSync(folder, { recursive: true });
  await untilListening({ host: '127.0.0.1', port }, program);
  assert.equal((await httpGet(port, 'bytes=0-511')).status, 206);
});
