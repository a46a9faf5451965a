import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { loopDevice, mountTmpfs, noLoopDevices, noMounts } from '../../support/block-devices.js';
import {
  freePort,
  projectRoot,
  type RunningProgram,
  type StartOptions,
  startProgram,
  temporaryFolder,
} from '../../support/processes.js';

const MiB = 1024 * 1024;

interface Answer {
  readonly status: number;
  readonly error: string | undefined;
  readonly body: Buffer;
}

interface Running {
  readonly program: RunningProgram;
  readonly port: number;
}

async function start(t: TestContext, disk: string, args: string[] = [], options: StartOptions = {}): Promise<Running> {
  const port = await freePort();
  const all = ['--disk', disk, '--ip', '127.0.0.1', '--port', String(port), ...args];
  const program = startProgram(t, 'http-disk-server', all, options);
  await program.line('stderr', /Server ready!$/);
  return { program, port };
}

function ask(
  port: number,
  method: string,
  headers: Record<string, string>,
  body: Buffer = Buffer.alloc(0),
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, method, headers, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => void parts.push(part));
      response.on('end', () => {
        const error = response.headers['disk-error'];
        resolve({
          status: response.statusCode ?? 0,
          error: typeof error === 'string' ? error : undefined,
          body: Buffer.concat(parts),
        });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const read = (port: number, from: number, length: number) =>
  ask(port, 'GET', { range: `bytes=${from}-${from + length - 1}` });

const write = (port: number, from: number, bytes: Buffer) =>
  ask(port, 'PUT', { 'content-range': `bytes ${from}-${from + bytes.length - 1}/*` }, bytes);

/** Asks again until the status is this one. */
async function until(status: number, attempt: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    const answer = await attempt();
    if (answer.status === status) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('a block device that loses its end and gets it back is served again without a restart', {
  skip: noLoopDevices,
}, async (t) => {
  const loop = loopDevice(t, 4 * MiB);
  const { port, program } = await start(t, loop.path);
  const bytes = Buffer.alloc(4096, 5);
  assert.equal((await write(port, 3 * MiB, bytes)).status, 200);
  loop.resize(0);
  assert.equal((await until(503, () => read(port, 3 * MiB, 512))).error, 'unavailable');
  await program.line('stderr', 'no medium');
  loop.resize(4 * MiB);
  assert.equal((await until(206, () => read(port, 0, 512))).body.length, 512);
  assert.equal((await write(port, 3 * MiB, bytes)).status, 200);
  assert.ok((await read(port, 3 * MiB, 4096)).body.equals(bytes));
  assert.equal(program.lines('stderr').filter((line) => line.endsWith('Server ready!')).length, 1);
  assert.deepEqual(await program.stop(), { code: 0, signal: null });
});

test('the missing end of a file that was truncated is never zeroes', async (t) => {
  const path = join(temporaryFolder(t), 'disk');
  writeFileSync(path, Buffer.alloc(2 * MiB, 1));
  const { port } = await start(t, path);
  truncateSync(path, MiB);
  const answer = await read(port, MiB + 4096, 512);
  assert.ok(answer.status === 503 || answer.status === 416, String(answer.status));
  assert.equal((await until(416, () => read(port, MiB + 4096, 512))).error, 'out-of-range');
  assert.equal((await until(206, () => read(port, 0, 512))).body[0], 1);
});

test('a full file system answers 507, and goes on', { skip: noMounts }, async (t) => {
  const path = join(mountTmpfs(t, MiB), 'disk');
  writeFileSync(path, '');
  truncateSync(path, 64 * MiB);
  const { port } = await start(t, path);
  const answer = await write(port, 0, Buffer.alloc(2 * MiB, 1));
  assert.deepEqual([answer.status, answer.error], [507, 'no-space']);
  assert.equal(
    (await ask(port, 'POST', { 'disk-operation': 'trim', 'content-range': 'bytes 0-67108863/*' })).status,
    200,
  );
  assert.equal((await write(port, 0, Buffer.alloc(4096, 2))).status, 200);
});

test('--direct: what is written is on the disk, and reads back', { skip: noLoopDevices }, async (t) => {
  const loop = loopDevice(t, 4 * MiB, '--sector-size', '512');
  const { port, program } = await start(t, loop.path, ['--direct']);
  assert.equal((await write(port, 1000, Buffer.from('unaligned'))).status, 200);
  assert.equal((await write(port, MiB, Buffer.alloc(MiB, 7))).status, 200);
  assert.equal(String((await read(port, 999, 11)).body), '\0unaligned\0');
  assert.ok((await read(port, MiB, MiB)).body.equals(Buffer.alloc(MiB, 7)));
  assert.ok(
    readFileSync(loop.file)
      .subarray(MiB, 2 * MiB)
      .equals(Buffer.alloc(MiB, 7)),
  );
  assert.deepEqual(await program.stop(), { code: 0, signal: null });
});

/** A block device with the number of a DRBD device, which no driver serves, and a drbdsetup that prints `status`. */
function drbd(t: TestContext) {
  const folder = temporaryFolder(t);
  const device = join(folder, 'drbd1000');
  execFileSync('mknod', [device, 'b', '147', '1000']);
  const status = join(folder, 'status.json');
  const setup = join(folder, 'drbdsetup');
  writeFileSync(
    setup,
    `#!/bin/sh\n[ "$*" = "status --json" ] || exit 20\n[ -e '${status}' ] || exec sleep 1000\ncat '${status}'\n`,
  );
  chmodSync(setup, 0o755);
  const roles = (role: string, peerRole: string, suspension = {}) => {
    const connections = [{ name: 'host-b', 'peer-role': peerRole }];
    const resource = { name: 'r0', role, ...suspension, devices: [{ volume: 0, minor: 1000 }], connections };
    writeFileSync(`${status}.new`, JSON.stringify([resource]));
    renameSync(`${status}.new`, status);
  };
  return { device, roles, env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` } };
}

test('DRBD: not opened while a peer is Primary; the kernel is asked when none is', { skip: noMounts }, async (t) => {
  const { device, roles, env } = drbd(t);
  roles('Secondary', 'Primary');
  const { program, port } = await start(t, device, [], { env });
  assert.match(program.stderr, /Cannot open device `[^`]*drbd1000`: `host-b is Primary of the DRBD resource`\.\n/);
  const answer = await read(port, 0, 512);
  assert.deepEqual([answer.status, answer.error], [503, 'unavailable']);
  assert.match(String(answer.body), /host-b is Primary/);
  roles('Secondary', 'Secondary');
  // No driver has this number, so the open is refused; that it was tried is what counts here.
  await program.line('stderr', 'No such device or address');
  assert.equal(program.lines('stderr').filter((line) => line.includes('host-b')).length, 1, 'said once');
  assert.deepEqual(await program.stop(), { code: 0, signal: null });
});

test('DRBD: not opened while I/O is suspended, whatever the role', { skip: noMounts }, async (t) => {
  const { device, roles, env } = drbd(t);
  roles('Primary', 'Unknown', { suspended: true, 'suspended-fencing': true });
  const { program, port } = await start(t, device, [], { env });
  assert.match(program.stderr, /Cannot open device `[^`]*drbd1000`: `DRBD has suspended the I\/O \(fencing\)`\.\n/);
  const answer = await read(port, 0, 512);
  assert.deepEqual([answer.status, answer.error], [503, 'unavailable']);
  assert.match(String(answer.body), /DRBD has suspended the I\/O/);
  roles('Primary', 'Secondary', { suspended: false, 'suspended-fencing': false });
  await program.line('stderr', 'No such device or address');
  assert.equal(program.lines('stderr').filter((line) => line.includes('suspended')).length, 1, 'said once');
  assert.deepEqual(await program.stop(), { code: 0, signal: null });
});

test('DRBD: a drbdsetup that hangs delays neither `Server ready!` beyond 10 s nor a stop', {
  skip: noMounts,
}, async (t) => {
  const { device, env } = drbd(t);
  const port = await freePort();
  const args = ['--disk', device, '--ip', '127.0.0.1', '--port', String(port)];
  const program = startProgram(t, 'http-disk-server', args, { env, ownGroup: true });
  await program.line('stderr', 'Listening');
  assert.equal((await read(port, 0, 512)).status, 503);
  program.signalGroup('SIGTERM');
  assert.deepEqual(await program.end(), { code: 0, signal: null });
  assert.ok(!program.stderr.includes('No such device'), 'the device was not opened');

  const patient = startProgram(t, 'http-disk-server', args, { env, ownGroup: true });
  await patient.line('stderr', /Server ready!$/, 10_000);
  await patient.kill();
});

/** Runs a copy of bin/ from a folder without what was built. */
function unbuilt(t: TestContext): string {
  const folder = temporaryFolder(t);
  cpSync(join(projectRoot, 'bin'), join(folder, 'bin'), { recursive: true, verbatimSymlinks: true });
  return folder;
}

test('a checkout that is not built says how it is built', (t) => {
  const folder = unbuilt(t);
  for (const program of ['http-disk-server', 'nbd-server', 'nbd-http-server']) {
    const { status, stderr, stdout } = spawnSync(join(folder, 'bin', program), ['--help'], { encoding: 'utf8' });
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^[a-z-]+: it is not built yet\. In \S+, run: npm ci && npm run build\n$/);
  }
});

test('a checkout without its dependencies says how they are installed', (t) => {
  const folder = unbuilt(t);
  cpSync(join(projectRoot, 'dist/src'), join(folder, 'dist/src'), { recursive: true });
  cpSync(join(projectRoot, 'package.json'), join(folder, 'package.json'));
  const { status, stderr } = spawnSync(join(folder, 'bin/http-disk-server'), ['--help'], { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.match(stderr, /^http-disk-server: a part is missing \([^\n]*koffi[^\n]*\)\. In \S+, run: npm ci [^\n]*\n$/);
  rmSync(join(folder, 'dist'), { recursive: true });
});

test('a Node that is too old is named', (t) => {
  const script = `
    Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.18.1' } });
    require(${JSON.stringify(join(unbuilt(t), 'bin/start.js'))})('nbd-server');`;
  const { status, stderr } = spawnSync(process.execPath, ['--eval', script], { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.equal(stderr, 'nbd-server: needs Node 20.19 or newer, this is 20.18.1\n');
});
