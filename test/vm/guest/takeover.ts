/** A device that outlives its server process. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { mount } from './filesystems.js';
import { FsyncLoad } from './fsync-load.js';
import { kernelLines, socketLost } from './kernel-log.js';
import {
  diskImage,
  type Gateway,
  launchGateway,
  leftovers,
  listDevices,
  mebibyte,
  readDevice,
  type Server,
  sizeOf,
  startGateway,
  startServer,
  temporaryFolder,
  writeDevice,
} from './volume.js';

/**
 * Short, because what was in flight at the kill is sent again only after the kernel's time-out (6 + 2 × 2 + 2 s), which is about as long
 * as a successor takes to start here; long enough for programs that are thirty times slower than outside.
 */
const times = ['--request-timeout', '2s', '--io-timeout', '6s', '--connections', '2'];

async function mountedVolume(context: CaseContext, urls: readonly string[], args: readonly string[] = []) {
  const first = await startGateway(context, urls, { args: [...times, ...args] });
  await run('mkfs.ext4', ['-q', '-F', first.device]);
  const folder = await mount(context, first.device, ['-o', 'errors=remount-ro']);
  const load = await FsyncLoad.start(context, join(folder, 'file'));
  await load.progress(3);
  return { first, folder, load };
}

/** kill -9, and a successor at once; resolves when it is attached. */
async function replaceKilled(
  context: CaseContext,
  killed: Gateway,
  urls: readonly string[],
  args: readonly string[] = [],
) {
  const { name, socketPath } = killed;
  await killed.program.kill();
  const successor = await startGateway(context, urls, { name, socketPath, args: [...times, ...args] });
  assert.equal(successor.device, killed.device, 'the same device');
  return successor;
}

async function conclude(gateway: Gateway, folder: string, load: FsyncLoad): Promise<void> {
  await load.verify();
  await run('umount', [folder]);
  await run('e2fsck', ['-f', '-n', gateway.device]);
  assert.equal(await gateway.program.stop(), 0, gateway.program.output);
  assert.deepEqual(leftovers(gateway), []);
}

for (const cache of ['writethrough', 'writeback']) {
  machineCase(
    `${cache}: kill -9 of nbd-server under fsync load, five times, each time of the successor: a pause and no error, nothing lost`,
    async (context) => {
      const server = await startServer(context, diskImage(context, 32 * mebibyte));
      const args = ['--cache', cache];
      const { first, folder, load } = await mountedVolume(context, [server.url], args);
      let gateway = first;
      for (let round = 0; round < 5; round++) {
        load.longestMs = 0;
        const startMs = performance.now();
        gateway = await replaceKilled(context, gateway, [server.url], args);
        const attachedMs = performance.now() - startMs;
        await load.progress(3);
        context.note(`attached after ${Math.round(attachedMs)} ms, longest write ${Math.round(load.longestMs)} ms`);
      }
      await conclude(gateway, folder, load);
    },
    600_000,
  );
}

machineCase(
  'nbd-server is stopped until the kernel gives its only socket up, and goes on: a pause and no error, nothing lost',
  async (context) => {
    const server = await startServer(context, diskImage(context, 32 * mebibyte));
    const { first, folder, load } = await mountedVolume(context, [server.url], ['--connections', '1']);
    first.program.child.kill('SIGSTOP');
    const stopMs = performance.now();
    while ((await kernelLines(socketLost)).length === 0) {
      assert.ok(performance.now() - stopMs < 60_000, 'the kernel gives a socket up');
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    first.program.child.kill('SIGCONT');
    await load.progress(3);
    context.note(
      `stopped for ${Math.round(performance.now() - stopMs)} ms, longest write ${Math.round(load.longestMs)} ms`,
    );
    await conclude(first, folder, load);
  },
);

machineCase(
  'kill -9 of nbd-server and of each http-disk-server in turn at the same time: no error, nothing lost',
  async (context) => {
    const disk = diskImage(context, 32 * mebibyte);
    const servers: Server[] = await Promise.all([1, 2].map(() => startServer(context, disk)));
    const urls = servers.map(({ url }) => url);
    const { first, folder, load } = await mountedVolume(context, urls);
    let gateway = first;
    for (const victim of [0, 1]) {
      const server = servers[victim];
      assert.ok(server);
      load.longestMs = 0;
      await server.program.kill();
      gateway = await replaceKilled(context, gateway, urls);
      await load.progress(3);
      context.note(`longest write ${Math.round(load.longestMs)} ms`);
      servers[victim] = await startServer(context, disk, { port: server.port });
    }
    await conclude(gateway, folder, load);
  },
  600_000,
);

machineCase(
  'write-back: what was not durable went with its server and its nbd-server: the device fails, loudly',
  async (context) => {
    const disk = diskImage(context, 32 * mebibyte);
    const server = await startServer(context, disk);
    const args = [...times, '--cache', 'writeback'];
    const gateway = await startGateway(context, [server.url], { args });
    await writeDevice(gateway.device);
    await gateway.program.kill();
    await server.program.kill();
    await startServer(context, disk, { port: server.port });
    const { name, socketPath } = gateway;
    const successor = await startGateway(context, [server.url], { name, socketPath, args });
    assert.equal(await successor.program.ended, 1, successor.program.output);
    assert.match(successor.program.output, /Writes that were acknowledged before .* are lost/);
    assert.deepEqual(leftovers(successor), []);
  },
  300_000,
);

machineCase('no successor within --dead-timeout: I/O fails; one that comes later still takes over', async (context) => {
  const server = await startServer(context, diskImage(context, 4 * mebibyte));
  const args = ['--dead-timeout', '2s'];
  const gateway = await startGateway(context, [server.url], { args });
  const { device, name, socketPath } = gateway;
  await gateway.program.kill();
  // Not only when the default of 60 s has passed.
  const read = run('dd', [`if=${device}`, 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'], 45_000);
  await assert.rejects(read, /Input\/output error/);
  const next = await startGateway(context, [server.url], { name, socketPath, args });
  assert.match(next.program.output, new RegExp(`\`${device}\` is taken over from process`));
  await writeDevice(device);
  assert.equal(await next.program.stop(), 0);
  assert.deepEqual(leftovers(next), []);
});

machineCase(
  'other options than the dead process had: the device stays what it was, and the log says so',
  async (context) => {
    const server = await startServer(context, diskImage(context, 64 * mebibyte));
    const urls = [server.url];
    const first = await startGateway(context, urls, {
      args: ['--connections', '1', '--cache', 'writeback', '--device-size', '32M'],
    });
    const { device, name, socketPath } = first;
    await writeDevice(device);
    await first.program.kill();

    const smaller = launchGateway(context, urls, { name, socketPath, args: ['--device-size', '16M'] });
    assert.equal(await smaller.program.ended, 1);
    assert.match(smaller.program.output, /has 33554432 bytes, and cannot be shrunk to 16777216/);

    const other = ['--connections', '2', '--device-size', '48M', '--device', '/dev/nbd7'];
    const next = await startGateway(context, urls, { name, socketPath, args: other });
    assert.equal(next.device, device);
    assert.match(
      next.program.output,
      new RegExp(`Warning: \`${device}\` is taken over as it is and keeps its 33554432 bytes`),
    );
    assert.match(next.program.output, new RegExp(`Warning: \`${device}\` is taken over instead of \`/dev/nbd7\``));
    assert.equal(sizeOf(device), 32 * mebibyte);
    await readDevice(device, 64);
    await writeDevice(device, 64);
    assert.equal(await next.program.stop(), 0, next.program.output);
    assert.deepEqual(leftovers(next), []);
  },
);

machineCase(
  "the device of a dead process was cleared, and its number is a stranger's now: that one is left alone",
  async (context) => {
    const server = await startServer(context, diskImage(context, 4 * mebibyte));
    const gateway = await startGateway(context, [server.url]);
    const { device, name, socketPath } = gateway;
    await gateway.program.kill();
    await run('nbd-client', ['-d', device]);
    const stockSocket = join(temporaryFolder(context), 'socket');
    const stock = launchGateway(context, [server.url], { args: ['--no-attach'], socketPath: stockSocket });
    await stock.program.line(/NBD server ready/);
    await run('nbd-client', ['-unix', stockSocket, device, '-b', '512']);
    context.after(() => run('nbd-client', ['-d', device]).catch(() => {}));
    const next = await startGateway(context, [server.url], { name, socketPath });
    assert.notEqual(next.device, device);
    assert.equal(await next.program.stop(), 0);
    assert.match(listDevices(), new RegExp(`^${device} +4194304 +- +foreign `, 'm'));
    await readDevice(device);
  },
);
