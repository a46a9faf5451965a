/** One disk with several users, and users that are not ours. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { diskImage, launchGateway, leftovers, mebibyte, startGateway, startServer, temporaryFolder } from './volume.js';

/** Both sides of `dd`, past the page cache: one sector. */
async function writeSector(context: CaseContext, device: string, sector: number, text: string): Promise<void> {
  const file = join(temporaryFolder(context), 'sector');
  writeFileSync(file, Buffer.alloc(512, text));
  await run('dd', [`if=${file}`, `of=${device}`, 'bs=512', 'count=1', `seek=${sector}`, 'oflag=direct', 'status=none']);
}

async function readSector(context: CaseContext, device: string, sector: number): Promise<Buffer> {
  const file = join(temporaryFolder(context), 'sector');
  const place = [`skip=${sector}`, 'iflag=direct', 'status=none'];
  await run('dd', [`if=${device}`, `of=${file}`, 'bs=512', 'count=1', ...place]);
  return readFileSync(file);
}

machineCase('two devices over one disk: each sees what the other wrote, sector by sector', async (context) => {
  const server = await startServer(context, diskImage(context, 4 * mebibyte));
  const devices = await Promise.all([1, 2].map(() => startGateway(context, [server.url])));
  for (const [index, { device }] of devices.entries()) {
    const other = devices[1 - index]?.device ?? '';
    for (let sector = index; sector < 6; sector += 2) {
      await writeSector(context, device, sector, `${device} ${sector} `);
      assert.ok((await readSector(context, other, sector)).equals(Buffer.alloc(512, `${device} ${sector} `)));
    }
  }
  const [first] = devices;
  assert.ok(first);
  // The neighbours in one block have not been written over.
  assert.ok((await readSector(context, first.device, 0)).equals(Buffer.alloc(512, `${first.device} 0 `)));
  await Promise.all(devices.map(({ program }) => program.stop()));
  for (const gateway of devices) assert.deepEqual(leftovers(gateway), []);
});

machineCase('fio verifies what it wrote, at depth and in all sizes', async (context) => {
  const server = await startServer(context, diskImage(context, 32 * mebibyte));
  const gateway = await startGateway(context, [server.url]);
  const load = '--ioengine=libaio --direct=1 --iodepth=16 --rw=randrw --bsrange=512-256k --size=12m --blockalign=512';
  const verify = '--verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0 --output-format=terse';
  const args = ['--name=verify', `--filename=${gateway.device}`, ...load.split(' '), ...verify.split(' ')];
  await run('fio', args, 150_000);
  assert.equal(await gateway.program.stop(), 0);
});

machineCase('the stock nbd-client, on our unix socket', async (context) => {
  const server = await startServer(context, diskImage(context, 4 * mebibyte));
  const { program, socketPath } = launchGateway(context, [server.url], { args: ['--no-attach'] });
  await program.line(/NBD server ready/);
  await run('modprobe', ['nbd']);
  const device = '/dev/nbd11';
  await run('nbd-client', ['-unix', socketPath, device, '-b', '512']);
  context.after(() => run('nbd-client', ['-d', device]).catch(() => {}));
  await writeSector(context, device, 7, 'foreign');
  assert.ok((await readSector(context, device, 7)).equals(Buffer.alloc(512, 'foreign')));
  assert.equal(await run('blockdev', ['--getsize64', device]), `${4 * mebibyte}\n`);
  await run('nbd-client', ['-d', device]);
});
