/** Foreign HTTP clients against http-disk-server: curl as people and as the old gateway use it, nbdkit's curl plugin. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { run } from '../support/commands.js';
import { startCommand, temporaryFolder } from '../support/processes.js';
import { checksum, seededBytes, seededFile, startDiskServer, untilListening } from '../support/stack.js';
import { needs } from '../support/tools.js';

const mebibyte = 2 ** 20;

/** Status, headers (names in lower case) and nothing else of one curl request. */
async function curl(...args: string[]): Promise<{ status: number; headers: Map<string, string> }> {
  const lines = (await run('curl', ['-sS', '-o', '/dev/null', '-D', '-', '-m', '20', ...args])).split('\r\n');
  const last = lines.findLastIndex((line) => line.startsWith('HTTP/1.1 '));
  const headers = new Map<string, string>();
  for (const line of lines.slice(last + 1)) {
    const colon = line.indexOf(':');
    if (colon > 0) headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  return { status: Number(lines[last]?.split(' ')[1]), headers };
}

async function serve(t: TestContext, sizeBytes: number): Promise<{ disk: string; url: string }> {
  const disk = seededFile(t, 1, sizeBytes);
  return { disk, url: `${(await startDiskServer(t, disk)).url}/` };
}

test('HEAD tells the size and that ranges work', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const { url } = await serve(t, mebibyte);
  const { status, headers } = await curl('-I', url);
  assert.equal(status, 200);
  assert.equal(headers.get('accept-ranges'), 'bytes');
  assert.equal(headers.get('content-length'), String(mebibyte));
});

for (const [range, first, last] of [
  ['0-511', 0, 511],
  ['1000-', 1000, mebibyte - 1],
  ['-100', mebibyte - 100, mebibyte - 1],
  ['1048000-9999999', 1_048_000, mebibyte - 1],
] as const) {
  test(`curl -r ${range}`, async (t) => {
    if (!needs(t, 'curl', 'curl')) return;
    const { disk, url } = await serve(t, mebibyte);
    const { status, headers } = await curl('-r', range, url);
    assert.equal(status, 206);
    assert.equal(headers.get('content-range'), `bytes ${first}-${last}/${mebibyte}`);
    const out = join(temporaryFolder(t), 'out');
    await run('curl', ['-sSf', '-r', range, '-o', out, url]);
    assert.ok(readFileSync(out).equals(readFileSync(disk).subarray(first, last + 1)));
  });
}

test('a range beyond the end is 416 with the size', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const { url } = await serve(t, mebibyte);
  const { status, headers } = await curl('-r', `${mebibyte}-`, url);
  assert.equal(status, 416);
  assert.equal(headers.get('content-range'), `bytes */${mebibyte}`);
});

test('curl -C - goes on where a download was cut', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const { disk, url } = await serve(t, mebibyte);
  const out = join(temporaryFolder(t), 'out');
  writeFileSync(out, readFileSync(disk).subarray(0, 300_000));
  await run('curl', ['-sSf', '-C', '-', '-o', out, url]);
  assert.equal(await checksum(out), await checksum(disk));
});

test('an upload as the old gateway sends it: chunked, Expect, and a total of -1', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const { disk, url } = await serve(t, mebibyte);
  const expected = seededBytes(1, mebibyte);
  const source = join(temporaryFolder(t), 'sector');
  writeFileSync(source, Buffer.alloc(512, 0x77));
  expected.fill(0x77, 4096, 4096 + 512);
  const headers = [
    '-H',
    'Content-Range: bytes 4096-4607/-1',
    '-H',
    'Transfer-Encoding: chunked',
    '-H',
    'Expect: 100-continue',
  ];
  // Longer than any time-out of this test: only a real 100 lets curl send the body.
  const patience = ['--expect100-timeout', '60', '-m', '20'];
  const verbose = await run('sh', [
    '-c',
    'exec curl "$@" 2>&1',
    'curl',
    '-sSfv',
    ...patience,
    ...headers,
    '-T',
    source,
    url,
  ]);
  assert.match(verbose, /< HTTP\/1\.1 100 Continue/);
  assert.match(verbose, /< HTTP\/1\.1 200 /);
  assert.ok(readFileSync(disk).equals(expected));
});

test('uploads that must be refused change nothing', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const { disk, url } = await serve(t, mebibyte);
  const before = await checksum(disk);
  const source = join(temporaryFolder(t), 'sector');
  writeFileSync(source, Buffer.alloc(512, 1));
  const put = async (...headers: string[]): Promise<number> =>
    (await curl('-T', source, ...headers.flatMap((header) => ['-H', header]), url)).status;
  assert.equal(await put(), 400, 'no Content-Range');
  assert.equal(await put('Content-Range: bytes 0-1023/*'), 400, 'the body is too short');
  assert.equal(
    await put('Content-Range: bytes 0-1023/*', 'Transfer-Encoding: chunked'),
    400,
    'a chunked body, too short',
  );
  assert.equal(await put('Content-Range: bytes 0-99/*', 'Transfer-Encoding: chunked'), 400, 'a chunked body, too long');
  assert.equal(await put('Content-Range: bytes 1048576-1049087/*'), 416, 'beyond the end');
  assert.equal(await put('Content-Range: bytes 1048300-1048811/*'), 416, 'across the end');
  assert.equal(await put('Content-Range: bytes x'), 400, 'garbage');
  assert.equal(await checksum(disk), before);
});

test('a body over 64 MiB is 413', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const sizeBytes = 66 * mebibyte;
  const disk = seededFile(t, 2, sizeBytes);
  const url = (await startDiskServer(t, disk)).url;
  const before = await checksum(disk);
  const source = join(temporaryFolder(t), 'body');
  writeFileSync(source, Buffer.alloc(65 * mebibyte));
  const { status } = await curl('-T', source, '-H', `Content-Range: bytes 0-${65 * mebibyte - 1}/*`, url);
  assert.equal(status, 413);
  assert.equal(await checksum(disk), before);
});

test("nbdkit's curl plugin reads the disk; its wrong writes are refused", async (t) => {
  if (!needs(t, 'nbdkit', 'nbdkit') || !needs(t, 'nbdcopy', 'libnbd-bin') || !needs(t, 'qemu-io', 'qemu-utils')) return;
  const { disk, url } = await serve(t, 16 * mebibyte);
  const folder = temporaryFolder(t);
  const path = join(folder, 'nbdkit');
  const program = startCommand(t, 'nbdkit', ['-f', '-U', path, 'curl', `url=${url}`]);
  await untilListening({ path }, program);
  const uri = `nbd+unix:///?socket=${path}`;
  const out = join(folder, 'out.img');
  await run('nbdcopy', [uri, out]);
  assert.equal(await checksum(out), await checksum(disk));

  // Its writes name one byte more than they carry (`bytes 4096-4608` for 512 bytes): refused, and nothing changes.
  await assert.rejects(run('qemu-io', ['-f', 'raw', '-c', 'write -P 0x31 4k 512', uri]), /write failed/);
  assert.equal(await checksum(disk), await checksum(out));
});

test('a read-only disk has a validator, and honours conditions', async (t) => {
  if (!needs(t, 'curl', 'curl')) return;
  const disk = seededFile(t, 3, mebibyte);
  const server = await startDiskServer(t, disk, ['--read-only']);
  const { status, headers } = await curl(server.url);
  assert.equal(status, 200);
  const etag = headers.get('etag') ?? '';
  assert.notEqual(etag, '');
  assert.equal((await curl('-H', `If-None-Match: ${etag}`, server.url)).status, 304);
  assert.equal((await curl('-r', '0-9', '-H', 'If-Range: "other"', server.url)).status, 200);
  assert.equal((await curl('-r', '0-9', '-H', `If-Range: ${etag}`, server.url)).status, 206);
});
