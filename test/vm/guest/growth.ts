/** What happens to a device while it is in use: a new process, a larger disk. */
import assert from 'node:assert/strict';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { machineCase } from './cases.js';
import { run } from './commands.js';
import { mount } from './filesystems.js';
import { FsyncLoad } from './fsync-load.js';
import { diskImage, leftovers, mebibyte, pidOf, queueSetting, startGateway, startServer } from './volume.js';

/** What the kernel says when it gave up a socket or waited for a time-out of a device. */
const socketLost = /nbd\d+: (?:Dead connection|Connection timed out|Possible stuck request|Receive|Send)/;

async function kernelLines(): Promise<string[]> {
  const lines = (await run('dmesg')).split('\n');
  const start = lines.findLastIndex((line) => line.includes('case: '));
  return lines.slice(start).filter((line) => socketLost.test(line));
}

for (const cache of ['writethrough', 'writeback']) {
  machineCase(
    `${cache}: planned hand-over under load, three times: no error, and no time-out of the kernel is waited for`,
    async (context) => {
      const server = await startServer(context, diskImage(context, 32 * mebibyte));
      const gateway = await startGateway(context, [server.url], { args: ['--cache', cache] });
      await run('mkfs.ext4', ['-q', '-F', gateway.device]);
      const folder = await mount(context, gateway.device, ['-o', 'errors=remount-ro']);
      const load = await FsyncLoad.start(context, join(folder, 'file'));
      await load.progress(3);
      let pid = pidOf(gateway);
      for (let round = 1; round <= 3; round++) {
        load.longestMs = 0;
        process.kill(pid, 'SIGUSR2');
        // The successors write to the same log.
        const pattern = new RegExp(`Handed over to process (\\d+) within (\\d+) ms`);
        const handed = await gateway.program.nth(pattern, round);
        assert.notEqual(Number(handed[1]), pid);
        await load.progress(3);
        context.note(`${handed[2]} ms to stop, longest write ${Math.round(load.longestMs)} ms`);
        pid = Number(handed[1]);
        assert.equal(pidOf(gateway), pid);
      }
      assert.deepEqual(await kernelLines(), []);
      await load.verify();
      await run('umount', [folder]);
      await run('e2fsck', ['-f', '-n', gateway.device]);
      process.kill(pid, 'SIGTERM');
      await gateway.program.nth(/SIGTERM received/, 1);
      await gateway.program.closed;
      assert.deepEqual(leftovers(gateway), []);
    },
    600_000,
  );
}

machineCase('a disk that grows under load: the device grows online, and so does the filesystem', async (context) => {
  const disk = diskImage(context, 32 * mebibyte);
  const server = await startServer(context, disk);
  const gateway = await startGateway(context, [server.url]);
  const { device } = gateway;
  await run('mkfs.ext4', ['-q', '-F', device]);
  const folder = await mount(context, device, ['-o', 'errors=remount-ro']);
  const load = await FsyncLoad.start(context, join(folder, 'file'));
  await load.progress(3);
  truncateSync(disk, 48 * mebibyte);
  await gateway.program.line(/has grown to 50331648 bytes/);
  assert.equal(await run('blockdev', ['--getsize64', device]), `${48 * mebibyte}\n`);
  assert.equal(queueSetting(device, 'read_ahead_kb'), '4096');
  await run('resize2fs', [device]);
  await load.progress(3);
  await load.verify();
  await run('umount', [folder]);
  truncateSync(disk, 40 * mebibyte);
  await gateway.program.line(/has shrunk to 41943040 bytes|refused: its disk has 41943040 bytes/);
  assert.equal(await run('blockdev', ['--getsize64', device]), `${48 * mebibyte}\n`);
  assert.equal(await gateway.program.stop(), 0);
  assert.deepEqual(leftovers(gateway), []);
});
