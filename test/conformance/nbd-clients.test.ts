/** Foreign NBD clients against nbd-server, with http-disk-server behind it. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { run } from '../support/commands.js';
import { freePort, startCommand, temporaryFolder } from '../support/processes.js';
import {
  checksum,
  type Gateway,
  seededBytes,
  seededFile,
  startDiskServer,
  startGateway,
  untilListening,
} from '../support/stack.js';
import { needs } from '../support/tools.js';

const mebibyte = 2 ** 20;

/** A disk of seeded bytes behind both programs. */
async function serve(
  t: TestContext,
  sizeBytes: number,
  gatewayOptions: readonly string[] = [],
): Promise<{ disk: string; gateway: Gateway }> {
  const disk = seededFile(t, 1, sizeBytes);
  const server = await startDiskServer(t, disk);
  return { disk, gateway: await startGateway(t, [server.url], gatewayOptions) };
}

/** 8 MiB: data in the first and the last MiB, nothing in between. */
function sparseFile(t: TestContext): string {
  const path = join(temporaryFolder(t), 'sparse.img');
  const file = openSync(path, 'w');
  ftruncateSync(file, 8 * mebibyte);
  writeSync(file, seededBytes(2, mebibyte), 0, mebibyte, 0);
  writeSync(file, seededBytes(3, mebibyte), 0, mebibyte, 7 * mebibyte);
  closeSync(file);
  return path;
}

test('nbdinfo sees the size, the flags and the block sizes', async (t) => {
  if (!needs(t, 'nbdinfo', 'libnbd-bin')) return;
  const { gateway } = await serve(t, 4 * mebibyte);
  const report = JSON.parse(await run('nbdinfo', ['--json', gateway.uri])) as {
    protocol: string;
    structured: boolean;
    exports: Record<string, unknown>[];
  };
  assert.equal(report.protocol, 'newstyle-fixed');
  assert.equal(report.structured, true);
  const [info = {}] = report.exports;
  const expected = {
    'export-size': 4 * mebibyte,
    is_read_only: false,
    can_flush: true,
    can_fua: true,
    can_trim: true,
    can_zero: true,
    can_df: true,
    can_cache: true,
    can_fast_zero: true,
    can_multi_conn: true,
    block_size_minimum: 1,
    block_size_maximum: 32 * mebibyte,
    contexts: ['base:allocation'],
  };
  const seen = Object.fromEntries(Object.keys(expected).map((key) => [key, info[key]]));
  assert.deepEqual(seen, expected);
});

test('nbdinfo --list shows one export', async (t) => {
  if (!needs(t, 'nbdinfo', 'libnbd-bin')) return;
  const { gateway } = await serve(t, mebibyte);
  const report = JSON.parse(await run('nbdinfo', ['--list', '--json', gateway.uri])) as { exports: unknown[] };
  assert.equal(report.exports.length, 1);
});

test('nbdinfo --map shows the holes of a sparse disk', async (t) => {
  if (!needs(t, 'nbdinfo', 'libnbd-bin')) return;
  const server = await startDiskServer(t, sparseFile(t));
  const gateway = await startGateway(t, [server.url]);
  const map = JSON.parse(await run('nbdinfo', ['--map', '--json', gateway.uri])) as Record<string, unknown>[];
  assert.deepEqual(
    map.map(({ offset, length, type }) => [offset, length, type]),
    [
      [0, mebibyte, 0],
      [mebibyte, 6 * mebibyte, 3],
      [7 * mebibyte, mebibyte, 0],
    ],
  );
});

test('nbdinfo sees a read-only export, on the unix socket and on TCP', async (t) => {
  if (!needs(t, 'nbdinfo', 'libnbd-bin')) return;
  const port = await freePort();
  const { gateway } = await serve(t, mebibyte, ['--read-only', '--listen', `127.0.0.1:${port}`]);
  await run('nbdinfo', ['--is', 'read-only', gateway.uri]);
  await run('nbdinfo', ['--is', 'read-only', `nbd://127.0.0.1:${port}/any-name`]);
});

test('nbdcopy copies a disk out and in', async (t) => {
  if (!needs(t, 'nbdcopy', 'libnbd-bin')) return;
  const { disk, gateway } = await serve(t, 64 * mebibyte);
  const out = join(temporaryFolder(t), 'out.img');
  await run('nbdcopy', [gateway.uri, out]);
  assert.equal(await checksum(out), await checksum(disk));

  const source = seededFile(t, 9, 64 * mebibyte);
  await run('nbdcopy', ['--flush', source, gateway.uri]);
  assert.equal(await checksum(disk), await checksum(source));
});

test('nbdcopy keeps holes in both directions', async (t) => {
  if (!needs(t, 'nbdcopy', 'libnbd-bin') || !needs(t, 'nbdinfo', 'libnbd-bin')) return;
  const { disk, gateway } = await serve(t, 8 * mebibyte);
  const sparse = sparseFile(t);
  await run('nbdcopy', ['--flush', sparse, gateway.uri]);
  assert.equal(await checksum(disk), await checksum(sparse));
  const blocks = Number((await run('stat', ['-c', '%b', disk])).trim()) * 512;
  assert.ok(blocks < 4 * mebibyte, `the hole was filled: ${blocks} bytes are allocated`);
});

test('a disk whose size is no multiple of anything is copied to its last byte', async (t) => {
  if (!needs(t, 'nbdcopy', 'libnbd-bin')) return;
  const { disk, gateway } = await serve(t, 3 * mebibyte + 13);
  const out = join(temporaryFolder(t), 'out.img');
  await run('nbdcopy', [gateway.uri, out]);
  assert.equal(await checksum(out), await checksum(disk));
  const source = seededFile(t, 4, 3 * mebibyte + 13);
  await run('nbdcopy', ['--flush', source, gateway.uri]);
  assert.equal(await checksum(disk), await checksum(source));
});

test('qemu-img converts both ways, compares, and maps', async (t) => {
  if (!needs(t, 'qemu-img', 'qemu-utils')) return;
  const { disk, gateway } = await serve(t, 8 * mebibyte);
  const sparse = sparseFile(t);
  await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', '-W', '-m', '16', sparse, gateway.uri]);
  assert.equal(await checksum(disk), await checksum(sparse));
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', sparse, gateway.uri]);

  const qcow = join(temporaryFolder(t), 'out.qcow2');
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', gateway.uri, qcow]);
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', disk, qcow]);

  const map = JSON.parse(await run('qemu-img', ['map', '--output=json', '-f', 'raw', gateway.uri])) as Record<
    string,
    unknown
  >[];
  assert.deepEqual(
    map.map(({ start, length, zero }) => [start, length, zero]),
    [
      [0, mebibyte, false],
      [mebibyte, 6 * mebibyte, true],
      [7 * mebibyte, mebibyte, false],
    ],
  );
});

test('qemu-io writes, zeroes, discards, forces, and overlaps asynchronous requests', async (t) => {
  if (!needs(t, 'qemu-io', 'qemu-utils')) return;
  const { disk, gateway } = await serve(t, 8 * mebibyte);
  const commands = [
    'write -P 0x11 0 1M',
    'write -P 0x22 -f 1M 4k',
    'write -z 64k 64k',
    'write -z -u 192k 64k',
    'write -P 0x33 511 1027',
    'discard 2M 1M',
    'aio_write -P 0x44 3M 64k',
    'aio_write -P 0x55 3200k 64k',
    'aio_write -P 0x66 3264k 64k',
    'aio_flush',
    'aio_read -P 0x44 3M 64k',
    'aio_read -P 0x66 3264k 64k',
    'aio_flush',
    'flush',
    'read -P 0x33 511 1027',
    'read -P 0 64k 64k',
    'read -P 0 192k 64k',
    'read -P 0x11 256k 768k',
    'read -P 0x22 1M 4k',
  ];
  const output = await run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), gateway.uri]);
  assert.doesNotMatch(output, /failed|error/i);

  const expected = seededBytes(1, 8 * mebibyte);
  expected.fill(0x11, 0, mebibyte);
  expected.fill(0x22, mebibyte, mebibyte + 4096);
  expected.fill(0, 64 * 1024, 128 * 1024);
  expected.fill(0, 192 * 1024, 256 * 1024);
  expected.fill(0x33, 511, 511 + 1027);
  expected.fill(0x44, 3 * mebibyte, 3 * mebibyte + 64 * 1024);
  expected.fill(0x55, 3200 * 1024, 3264 * 1024);
  expected.fill(0x66, 3264 * 1024, 3328 * 1024);
  const stored = readFileSync(disk);
  // What a discarded range reads as is nobody's promise.
  for (const bytes of [expected, stored]) bytes.fill(0, 2 * mebibyte, 3 * mebibyte);
  assert.ok(stored.equals(expected));
});

test('qemu-io gets an error for a write to a read-only export, and goes on', async (t) => {
  if (!needs(t, 'qemu-io', 'qemu-utils')) return;
  const { disk, gateway } = await serve(t, mebibyte, ['--read-only']);
  const before = await checksum(disk);
  const output = await run('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 4k', gateway.uri]);
  assert.match(output, /read 4096\/4096 bytes at offset 0/);
  await assert.rejects(
    run('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 4k', gateway.uri]),
    /read-only|not permitted|Permission denied/i,
  );
  assert.equal(await checksum(disk), before);
});

for (const [name, options] of [
  ['small blocks, deep', ['--bsrange=512-64k', '--iodepth=32', '--blockalign=512']],
  ['large blocks', ['--bsrange=4k-4m', '--iodepth=4']],
  ['any length at any offset, with flushes', ['--bsrange=1024-100k', '--bs_unaligned', '--iodepth=8', '--fsync=16']],
  ['four connections', ['--bs=4k', '--iodepth=8', '--numjobs=4', '--offset_increment=8m', '--size=8m']],
] as const) {
  test(`fio writes and verifies with crc32c: ${name}`, async (t) => {
    if (!needs(t, 'fio', 'fio')) return;
    const { gateway } = await serve(t, 32 * mebibyte);
    const common = ['--ioengine=nbd', `--uri=${gateway.uri}`, '--rw=randwrite', '--size=32m', '--randrepeat=0'];
    const verify = ['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--thread', '--name=verify'];
    const folder = temporaryFolder(t);
    const output = await run('fio', [...common, ...options, ...verify, '--output-format=json'], folder);
    const report = JSON.parse(output.slice(output.indexOf('{'))) as {
      jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[];
    };
    for (const job of report.jobs) {
      assert.equal(job.error, 0);
      assert.ok(job.write.total_ios > 0 && job.read.total_ios > 0, 'it wrote and read');
    }
  });
}

test("nbdkit's nbd plugin serves our export to another client", async (t) => {
  if (!needs(t, 'nbdkit', 'nbdkit') || !needs(t, 'nbdcopy', 'libnbd-bin')) return;
  const { disk, gateway } = await serve(t, 16 * mebibyte);
  const folder = temporaryFolder(t);
  const path = join(folder, 'nbdkit');
  const program = startCommand(t, 'nbdkit', ['-f', '-U', path, 'nbd', `socket=${gateway.socketPath}`]);
  await untilListening({ path }, program);
  const out = join(folder, 'out.img');
  await run('nbdcopy', [`nbd+unix:///?socket=${path}`, out]);
  assert.equal(await checksum(out), await checksum(disk));
  const source = seededFile(t, 5, 16 * mebibyte);
  await run('nbdcopy', ['--flush', source, `nbd+unix:///?socket=${path}`]);
  assert.equal(await checksum(disk), await checksum(source));
});

test('a device smaller than the disk shows its own size, and nothing beyond it changes', async (t) => {
  if (!needs(t, 'nbdinfo', 'libnbd-bin') || !needs(t, 'qemu-io', 'qemu-utils')) return;
  const disk = seededFile(t, 6, 2 * mebibyte);
  const before = readFileSync(disk);
  const server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url], ['--device-size', String(mebibyte)]);
  assert.equal((await run('nbdinfo', ['--size', gateway.uri])).trim(), String(mebibyte));
  await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0x77 0 1M', '-c', 'flush', gateway.uri]);
  const after = readFileSync(disk);
  assert.ok(after.subarray(0, mebibyte).equals(Buffer.alloc(mebibyte, 0x77)));
  assert.ok(after.subarray(mebibyte).equals(before.subarray(mebibyte)));
});

test('a disk of 2^53 - 1 bytes is shown and reached at its end', async (t) => {
  if (!needs(t, 'nbdinfo', 'libnbd-bin') || !needs(t, 'qemu-io', 'qemu-utils')) return;
  const disk = join(temporaryFolder(t, '/dev/shm'), 'huge.img');
  writeFileSync(disk, '');
  const sizeBytes = Number.MAX_SAFE_INTEGER;
  truncateSync(disk, sizeBytes);
  const server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url]);
  assert.equal((await run('nbdinfo', ['--size', gateway.uri])).trim(), String(sizeBytes));
  const last = sizeBytes - 511;
  const commands = ['-c', `write -P 0x5a ${last} 511`, '-c', `read -P 0x5a ${last} 511`];
  const output = await run('qemu-io', ['-f', 'raw', ...commands, gateway.uri]);
  assert.match(output, /read 511\/511 bytes/);
});
