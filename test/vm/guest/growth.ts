/** A disk that becomes larger, or smaller, under a device that is in use. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { machineCase } from './cases.js';
import { run } from './commands.js';
import { mount } from './filesystems.js';
import { FsyncLoad } from './fsync-load.js';
import { diskImage, leftovers, mebibyte, Program, queueSetting, startGateway, startServer } from './volume.js';

machineCase('a disk that grows under load: the device grows online, and so does the filesystem', async (context) => {
  const disk = diskImage(context, 32 * mebibyte);
  const server = await startServer(context, disk);
  const gateway = await startGateway(context, [server.url]);
  const { device } = gateway;
  await run('mkfs.ext4', ['-q', '-F', device]);
  const folder = await mount(context, device, ['-o', 'errors=remount-ro']);
  const load = await FsyncLoad.start(context, join(folder, 'file'));
  await load.progress(3);
  const events = Program.of(spawn('busybox', ['uevent', 'sh', '-c', 'echo $ACTION $DEVNAME resize=$RESIZE']));
  context.after(() => events.kill());
  // Some kernels put it back to their default when the device grows.
  await run('sh', ['-c', `echo 128 >/sys/block/${device.replace('/dev/', '')}/queue/read_ahead_kb`]);
  truncateSync(disk, 48 * mebibyte);
  await gateway.program.line(/has grown to 50331648 bytes/);
  assert.equal(await run('blockdev', ['--getsize64', device]), `${48 * mebibyte}\n`);
  await events.line(new RegExp(`^change ${device.replace('/dev/', '')} resize=1$`));
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
