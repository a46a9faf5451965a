/** A filesystem on the device, from mkfs to fsck. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { diskImage, leftovers, mebibyte, queueSetting, startGateway, startServer, temporaryFolder } from './volume.js';

const filesystems = {
  ext4: { mkfs: ['mkfs.ext4', '-q', '-F'], fsck: ['e2fsck', '-f', '-n'], diskBytes: 64 * mebibyte },
  xfs: { mkfs: ['mkfs.xfs', '-q', '-f'], fsck: ['xfs_repair', '-n'], diskBytes: 320 * mebibyte },
} as const;

async function checksum(path: string): Promise<string> {
  return (await run('sha256sum', [path])).split(' ', 1)[0] ?? '';
}

/** A mount point that is unmounted at the end of the case. */
export async function mount(context: CaseContext, device: string, options: readonly string[] = []): Promise<string> {
  const folder = join(temporaryFolder(context), 'mounted');
  mkdirSync(folder);
  await run('mount', [...options, device, folder]);
  context.after(() => run('umount', ['-l', folder]).catch(() => {}));
  return folder;
}

for (const type of ['ext4', 'xfs'] as const) {
  machineCase(
    `${type}: attach, mkfs, mount, write, read back from the server, fstrim, umount, fsck, detach`,
    async (context) => {
      const { mkfs, fsck, diskBytes } = filesystems[type];
      const server = await startServer(context, diskImage(context, diskBytes));
      const startMs = performance.now();
      const gateway = await startGateway(context, [server.url]);
      context.note(`attached after ${Math.round(performance.now() - startMs)} ms`);
      const { device } = gateway;
      assert.equal(queueSetting(device, 'logical_block_size'), '512');
      assert.match(queueSetting(device, 'scheduler'), /\[none\]/);
      assert.equal(queueSetting(device, 'max_sectors_kb'), '1024');
      assert.equal(queueSetting(device, 'read_ahead_kb'), '4096');
      const [command, ...args] = mkfs;
      await run(command, [...args, device]);
      const folder = await mount(context, device);
      const data = randomBytes(8 * mebibyte);
      writeFileSync(join(folder, 'file'), data);
      await run('sync', ['-f', folder]);
      writeFileSync('/proc/sys/vm/drop_caches', '3');
      assert.equal(await checksum(join(folder, 'file')), createHash('sha256').update(data).digest('hex'));
      assert.match(await run('fstrim', ['-v', folder]), /[1-9][0-9]* bytes/);
      await run('umount', [folder]);
      const [check, ...checkArgs] = fsck;
      await run(check, [...checkArgs, device]);
      assert.equal(await gateway.program.stop(), 0, gateway.program.output);
      assert.deepEqual(leftovers(gateway), []);
    },
    300_000,
  );
}
