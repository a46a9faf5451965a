/** Getting a device and giving it back. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isNameInUse } from '../../../src/cli/run-files.js';
import { connectedDevices } from '../../../src/linux/nbd-sysfs.js';
import { machineCase } from './cases.js';
import { run } from './commands.js';
import { mount } from './filesystems.js';
import {
  diskImage,
  launchGateway,
  leftovers,
  listDevices,
  mebibyte,
  sizeOf,
  type Gateway,
  startGateway,
  startServer,
  temporaryFolder,
  until,
} from './volume.js';

const unreachable = 'http://127.0.0.1:9';

machineCase(
  'the module is not loaded: it is loaded, and the device is attached without any server',
  async (context) => {
    await run('modprobe', ['-r', 'nbd']).catch(() => {});
    assert.ok(!existsSync('/sys/block/nbd0'));
    // Asked for the driver by its name, the kernel would load it by itself; not every kernel can.
    const helper = readFileSync('/proc/sys/kernel/modprobe', 'utf8');
    writeFileSync('/proc/sys/kernel/modprobe', '\n');
    context.after(() => writeFileSync('/proc/sys/kernel/modprobe', helper));
    const startMs = performance.now();
    const gateway = await startGateway(context, [unreachable], { args: ['--device-size', '4M'] });
    context.note(`attached after ${Math.round(performance.now() - startMs)} ms`);
    assert.equal(sizeOf(gateway.device), 4 * mebibyte);
    assert.ok(existsSync(gateway.socketPath));
    const stopMs = performance.now();
    assert.equal(await gateway.program.stop(), 0);
    context.note(`stopped after ${Math.round(performance.now() - stopMs)} ms`);
    assert.deepEqual(leftovers(gateway), []);
  },
);

machineCase('a device that was asked for is attached, and refused while it is in use', async (context) => {
  const args = ['--device-size', '4M', '--device', '/dev/nbd5'];
  const gateway = await startGateway(context, [unreachable], { args });
  assert.equal(gateway.device, '/dev/nbd5');
  const second = launchGateway(context, [unreachable], { args });
  assert.equal(await second.program.ended, 1);
  assert.match(second.program.output, /`\/dev\/nbd5`: `it is in use`/);
  assert.ok(!existsSync(second.socketPath));
  assert.equal(await gateway.program.stop(), 0);
});

async function stopAll(gateways: readonly Gateway[]): Promise<void> {
  const codes = await Promise.all(gateways.map(({ program }) => program.stop()));
  assert.deepEqual(new Set(codes), new Set([0]));
  for (const gateway of gateways) assert.deepEqual(leftovers(gateway), []);
}

machineCase(
  'three at the same instant, and the kernel has two devices: it makes another, and each gets one',
  async (context) => {
    await run('modprobe', ['-r', 'nbd']).catch(() => {});
    await run('modprobe', ['nbd', 'nbds_max=2']);
    context.after(() => run('modprobe', ['-r', 'nbd']));
    const args = ['--device-size', '4M', '--connections', '1'];
    const gateways = await Promise.all([1, 2, 3].map(() => startGateway(context, [unreachable], { args })));
    const devices = gateways.map(({ device }) => device);
    assert.deepEqual(devices.toSorted(), ['/dev/nbd0', '/dev/nbd1', '/dev/nbd2']);
    await stopAll(gateways);
  },
);

machineCase(
  'sixteen devices one after another; when all are taken the kernel makes one more',
  async (context) => {
    const args = ['--device-size', '4M', '--connections', '1'];
    const gateways: Gateway[] = [];
    while (gateways.length < 17) gateways.push(await startGateway(context, [unreachable], { args }));
    assert.equal(new Set(gateways.map(({ device }) => device)).size, 17);
    assert.ok(
      gateways.some(({ device }) => device === '/dev/nbd16'),
      'the seventeenth was made',
    );
    await stopAll(gateways);
  },
  600_000,
);

for (const [fate, signal] of [
  ['gone', 'SIGKILL'],
  ['hung', 'SIGSTOP'],
] as const) {
  machineCase(
    `detach while mounted, with the server ${fate} and requests in flight: at once, and nothing is left`,
    async (context) => {
      const server = await startServer(context, diskImage(context, 32 * mebibyte));
      const gateway = await startGateway(context, [server.url]);
      await run('mkfs.ext4', ['-q', '-F', gateway.device]);
      const folder = await mount(context, gateway.device);
      server.program.child.kill(signal);
      const place = ['bs=4k', 'count=1', 'skip=5000', 'iflag=direct'];
      const reader = run('dd', [`if=${gateway.device}`, 'of=/dev/null', ...place]);
      const failed = reader.then(
        () => 'read',
        (error: Error) => error.message,
      );
      await gateway.program.line(/Got exception/);
      const startMs = performance.now();
      assert.equal(await gateway.program.stop(), 0, gateway.program.output);
      context.note(`stopped after ${Math.round(performance.now() - startMs)} ms`);
      assert.match(gateway.program.output, /is still in use: all I\/O on it fails now/);
      assert.match(await failed, /Input\/output error/);
      assert.ok(!existsSync(gateway.socketPath) && !existsSync(`/run/nbd-${gateway.name}.pid`));
      await run('umount', [folder]);
      // What was unanswered may still land: the next one of this name has to know.
      const record = `/run/nbd-${gateway.name}.state`;
      assert.deepEqual(
        leftovers(gateway).filter((path) => path !== record),
        [],
        'free when it was closed',
      );
    },
  );
}

/** Things that happen one after the other while it starts. */
const stepsOfStart: Readonly<Record<string, (started: ReturnType<typeof launchGateway>) => Promise<unknown>>> = {
  'the pid file is there': ({ name }) => until('the pid file', () => existsSync(`/run/nbd-${name}.pid`)),
  'it looks for a server': ({ program }) => program.line(/Trying to use server/),
  'the socket is there': ({ socketPath }) => until('the socket', () => existsSync(socketPath)),
  'the kernel has the device': () => until('the device', () => existsSync('/sys/block/nbd0/pid')),
  'the device is there': ({ program }) => program.line(/is now attached/),
};

machineCase('SIGTERM at each step of the start: it ends with 0, and nothing is left', async (context) => {
  for (const [step, reached] of Object.entries(stepsOfStart)) {
    const started = launchGateway(context, [unreachable], { args: ['--device-size', '4M'] });
    await reached(started);
    const startMs = performance.now();
    assert.equal(await started.program.stop(), 0, `${step}\n${started.program.output}`);
    context.note(`${step}: ended after ${Math.round(performance.now() - startMs)} ms`);
    const { name, socketPath } = started;
    const files = [socketPath, `/run/nbd-${name}.pid`, `/run/nbd-${name}.state`].filter((path) => existsSync(path));
    assert.deepEqual([files, connectedDevices()], [[], []], step);
    assert.deepEqual(
      readdirSync(dirname(socketPath)).filter((file) => file.startsWith('.nbd-')),
      [],
      step,
    );
  }
});

/** Linux, include/linux/sched.h: of a thread that PR_SET_IO_FLUSHER was called in. */
const PF_MEMALLOC_NOIO = 0x00080000;

machineCase(
  'every thread of nbd-server is one that serves a disk: memory pressure does not make it wait',
  async (context) => {
    const gateway = await startGateway(context, [unreachable], { args: ['--device-size', '4M'] });
    const folder = `/proc/${gateway.program.child.pid}/task`;
    // More than one: the pool's threads have been started.
    const flags = readdirSync(folder).map((thread) => {
      const afterName = readFileSync(`${folder}/${thread}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      return Number(afterName[6]) & PF_MEMALLOC_NOIO;
    });
    context.note(`${flags.length} threads`);
    assert.ok(flags.length > 5);
    assert.deepEqual(new Set(flags), new Set([PF_MEMALLOC_NOIO]));
    assert.ok(!gateway.program.output.includes('Warning'));
  },
);

machineCase('a leaked device is found and cleared at the next start; a foreign one is not touched', async (context) => {
  const server = await startServer(context, diskImage(context, 4 * mebibyte));
  const socketPath = join(temporaryFolder(context), 'socket');
  const stock = launchGateway(context, [server.url], { args: ['--no-attach'], socketPath });
  const [foreign, leaked] = await Promise.all([
    startGateway(context, [server.url], { name: 'other' }),
    startGateway(context, [server.url], { name: 'leaky' }),
    stock.program.line(/NBD server ready/),
  ]);
  await run('nbd-client', ['-unix', socketPath, '/dev/nbd9', '-b', '512']);
  context.after(() => run('nbd-client', ['-d', '/dev/nbd9']).catch(() => {}));
  await leaked.program.kill();
  // Without its record the device cannot be taken over.
  execFileSync('rm', ['/run/nbd-leaky.state']);
  assert.match(listDevices(), new RegExp(`^${leaked.device} +4194304 +leaky +dead `, 'm'));
  const next = await startGateway(context, [server.url], { name: 'leaky', socketPath: leaked.socketPath });
  assert.match(
    next.program.output,
    new RegExp(`Potential leaked NBD device detected: \`${leaked.device}\` used by dead`),
  );
  const table = listDevices();
  context.note(table);
  assert.match(table, new RegExp(`^${foreign.device} +4194304 +other +alive `, 'm'));
  assert.match(table, /^\/dev\/nbd9 +4194304 +- +foreign /m);
  assert.match(table, new RegExp(`^${next.device} +4194304 +leaky +alive `, 'm'));
  assert.equal(table.split('\n').filter((line) => line.startsWith('/dev/')).length, 3);
  assert.deepEqual([isNameInUse('other'), isNameInUse('never')], [true, false]);
  // Not every user may see whether it is served.
  process.seteuid?.('nobody');
  const seen = isNameInUse('other');
  process.seteuid?.(0);
  assert.equal(seen, undefined);
  await run('dd', ['if=/dev/nbd9', 'of=/dev/null', 'bs=64k', 'count=4', 'iflag=direct', 'status=none']);
});

machineCase('a size that is no multiple of 512 is rounded down, with one warning', async (context) => {
  const gateway = await startGateway(context, [unreachable], { args: ['--device-size', '1048999'] });
  assert.equal(sizeOf(gateway.device), 1_048_576);
  assert.equal(gateway.program.output.split('\n').filter((line) => line.includes('Warning')).length, 1);
});
