/** Foreign HTTP servers behind nbd-server: a plain web server, and the old Python server's stand-in. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import test from 'node:test';
import { run } from '../support/commands.js';
import { startNginx } from '../support/nginx.js';
import { OldServer } from '../support/old-server.js';
import { type Cleanup, startProgram, temporaryFolder } from '../support/processes.js';
import { checksum, seededBytes, seededFile, startGateway } from '../support/stack.js';
import { needs } from '../support/tools.js';

const mebibyte = 2 ** 20;

async function startOldServer(t: Cleanup, disk: string): Promise<OldServer> {
  const server = await OldServer.start(disk);
  t.after(() => server.close());
  return server;
}

function qemuIo(uri: string, ...commands: string[]): Promise<string> {
  return run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);
}

test('a file on nginx is a read-only device; the path in the URL is kept', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light') || !needs(t, 'nbdcopy', 'libnbd-bin') || !needs(t, 'nbdinfo', 'libnbd-bin'))
    return;
  const root = temporaryFolder(t);
  mkdirSync(join(root, 'images'));
  const disk = join(root, 'images', 'disk.img');
  writeFileSync(disk, seededBytes(1, 32 * mebibyte + 7));
  const nginx = await startNginx(t, root);
  const gateway = await startGateway(t, [`http://127.0.0.1:${nginx.port}/images/disk.img`]);
  const out = join(temporaryFolder(t), 'out.img');
  await run('nbdcopy', [gateway.uri, out]);
  assert.equal(await checksum(out), await checksum(disk));
  await run('nbdinfo', ['--can', 'multi-conn', gateway.uri]);
});

test('a write to a device whose server is read-only is refused, and reads go on', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light') || !needs(t, 'qemu-io', 'qemu-utils')) return;
  const disk = seededFile(t, 2, mebibyte);
  const nginx = await startNginx(t, dirname(disk));
  const gateway = await startGateway(t, [`http://127.0.0.1:${nginx.port}/${basename(disk)}`]);
  const before = await checksum(disk);
  await assert.rejects(qemuIo(gateway.uri, 'write -P 1 0 4k'), /not permitted|read-only/i);
  assert.match(
    await qemuIo(`${gateway.uri}`, 'read 0 4k').catch((error: Error) => error.message),
    /read 4096\/4096|read-only/,
  );
  assert.equal(await checksum(disk), before);
});

test('a redirect is followed when the server is chosen, and not again at each request', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light') || !needs(t, 'nbdcopy', 'libnbd-bin')) return;
  const disk = seededFile(t, 3, 8 * mebibyte);
  const nginx = await startNginx(t, dirname(disk), { extra: 'location = /moved { return 302 /disk.img; }' });
  const gateway = await startGateway(t, [`http://127.0.0.1:${nginx.port}/moved`]);
  const out = join(temporaryFolder(t), 'out.img');
  await run('nbdcopy', ['--request-size=65536', gateway.uri, out]);
  assert.equal(await checksum(out), await checksum(disk));
  const log = nginx.requestLines();
  assert.ok(log.filter((line) => line.startsWith('GET /disk.img')).length >= 64, 'requests go to the final address');
  assert.ok(log.filter((line) => line.includes('/moved')).length <= 4, `too many redirects:\n${log.join('\n')}`);
});

test('credentials are sent to a server that asks for them, and never stand in the log', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light') || !needs(t, 'nbdcopy', 'libnbd-bin')) return;
  const folder = temporaryFolder(t);
  const disk = join(folder, 'disk.img');
  writeFileSync(disk, seededBytes(4, mebibyte));
  writeFileSync(join(folder, 'passwords'), 'joe:{PLAIN}open sesame\n');
  const nginx = await startNginx(t, folder, {
    extra: `auth_basic disk; auth_basic_user_file ${join(folder, 'passwords')};`,
  });
  const passwordFile = join(folder, 'password');
  writeFileSync(passwordFile, 'open sesame\n');
  const url = `127.0.0.1:${nginx.port}/disk.img`;
  const out = join(folder, 'out.img');
  for (const [urls, options] of [
    [`http://${url}`, ['--user', 'joe', '--password-file', passwordFile, '-v']],
    [`http://joe:open%20sesame@${url}`, ['-v']],
  ] as const) {
    const gateway = await startGateway(t, [urls], options);
    await run('nbdcopy', [gateway.uri, out]);
    assert.equal(await checksum(out), await checksum(disk));
    await gateway.program.stop();
    assert.doesNotMatch(gateway.program.stdout + gateway.program.stderr, /sesame/);
  }
});

test('https: a certificate from --ca-file is accepted, and an unknown one is not', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light') || !needs(t, 'openssl', 'openssl') || !needs(t, 'nbdcopy', 'libnbd-bin'))
    return;
  const folder = temporaryFolder(t);
  const disk = join(folder, 'disk.img');
  writeFileSync(disk, seededBytes(5, mebibyte));
  const key = join(folder, 'key.pem');
  const certificate = join(folder, 'certificate.pem');
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  await run('openssl', [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-keyout',
    key,
    '-out',
    certificate,
    ...subject,
  ]);
  const nginx = await startNginx(t, folder, { tls: { key, certificate } });
  const url = `https://127.0.0.1:${nginx.port}/disk.img`;

  const args = [
    '--no-attach',
    '--socket-path',
    join(folder, 'socket'),
    '--nbd-name',
    `tls-${process.pid}`,
    '--urls',
    url,
  ];
  const distrustful = startProgram(t, 'nbd-server', args);
  await distrustful.line('stdout', /certificate/i);
  assert.doesNotMatch(distrustful.stdout, /Selected server/);

  const gateway = await startGateway(t, [url], ['--ca-file', certificate]);
  const out = join(folder, 'out.img');
  await run('nbdcopy', [gateway.uri, out]);
  assert.equal(await checksum(out), await checksum(disk));
});

test('an old Python server is read and written', async (t) => {
  if (!needs(t, 'nbdcopy', 'libnbd-bin')) return;
  const disk = seededFile(t, 6, 16 * mebibyte);
  const old = await startOldServer(t, disk);
  const gateway = await startGateway(t, [old.url]);
  const out = join(temporaryFolder(t), 'out.img');
  await run('nbdcopy', [gateway.uri, out]);
  assert.equal(await checksum(out), await checksum(disk));
  const source = seededFile(t, 7, 16 * mebibyte);
  await run('nbdcopy', ['--flush', source, gateway.uri]);
  assert.equal(await checksum(disk), await checksum(source));
});

test('an old Python server is sent what it understands, and no idle connection', async (t) => {
  if (!needs(t, 'qemu-io', 'qemu-utils')) return;
  const disk = seededFile(t, 8, mebibyte);
  const old = await startOldServer(t, disk);
  const gateway = await startGateway(t, [old.url]);
  await qemuIo(gateway.uri, 'write -P 0x21 0 64k', 'write -P 0x22 1000 100', 'read 64k 512', 'flush');
  const puts = old.requests.filter(({ line }) => line.startsWith('PUT '));
  assert.ok(puts.length > 0);
  for (const { fields } of puts) {
    assert.match(fields['content-length'] ?? '', /^\d+$/);
    assert.equal(fields['transfer-encoding'], undefined);
    assert.equal(fields['expect'], undefined);
    assert.match(fields['content-range'] ?? '', /^bytes \d+-\d+\/\*$/);
  }
  for (const { line, fields } of old.requests) {
    if (line.startsWith('GET ')) assert.match(fields['range'] ?? '', /^bytes=\d+-\d+$/);
  }
  const methods = new Set(old.requests.map(({ line }) => line.split(' ')[0]));
  assert.deepEqual(methods, new Set(['HEAD', 'PUT', 'GET']));
  // Somebody else is served at once: no idle connection of ours blocks the server.
  const status = ['-s', '-r', '0-511', '-o', '/dev/null', '-m', '5', '-w', '%{http_code}'];
  assert.equal(await run('curl', [...status, old.url]), '206');
  assert.equal(old.connections, old.requests.length, 'one request per connection, and none without a request');
});

test('zeroes and trims reach an old Python server as writes, or not at all, and never grow its file', async (t) => {
  if (!needs(t, 'qemu-io', 'qemu-utils')) return;
  const sizeBytes = mebibyte + 100;
  const disk = seededFile(t, 9, sizeBytes);
  const old = await startOldServer(t, disk);
  const gateway = await startGateway(t, [old.url]);
  await qemuIo(
    gateway.uri,
    'write -z 4k 64k',
    'write -z -u 128k 4k',
    'discard 256k 4k',
    `write -P 1 ${mebibyte} 100`,
    'flush',
  );
  const stored = readFileSync(disk);
  assert.equal(stored.length, sizeBytes);
  const expected = seededBytes(9, sizeBytes);
  expected.fill(0, 4096, 4096 + 65536);
  expected.fill(0, 131072, 131072 + 4096);
  expected.fill(1, mebibyte);
  for (const bytes of [stored, expected]) bytes.fill(0, 262144, 262144 + 4096);
  assert.ok(stored.equals(expected));
});

test('fio verifies its writes through an old Python server', async (t) => {
  if (!needs(t, 'fio', 'fio')) return;
  const old = await startOldServer(t, seededFile(t, 10, 4 * mebibyte));
  const gateway = await startGateway(t, [old.url]);
  const options = [
    '--name=old',
    '--ioengine=nbd',
    `--uri=${gateway.uri}`,
    '--rw=randwrite',
    '--bsrange=512-64k',
    '--size=4m',
  ];
  const verify = [
    '--iodepth=8',
    '--verify=crc32c',
    '--verify_fatal=1',
    '--thread',
    '--randrepeat=0',
    '--blockalign=512',
  ];
  await run('fio', [...options, ...verify], temporaryFolder(t));
});

test('a server that is smaller than the device is refused with a line that says so', async (t) => {
  if (!needs(t, 'nginx', 'nginx-light')) return;
  const disk = seededFile(t, 11, mebibyte);
  const nginx = await startNginx(t, dirname(disk));
  const gateway = await startGateway(t, [`http://127.0.0.1:${nginx.port}/${basename(disk)}`], ['--device-size', '2M']);
  await gateway.program.line('stdout', /small|bytes/i);
  assert.doesNotMatch(gateway.program.stdout, /Selected server/);
});
