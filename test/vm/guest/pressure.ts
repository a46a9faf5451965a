/** What the rest of the machine may do to a device: leave no memory, hold the kernel's generic netlink. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import {
  diskImage,
  type Gateway,
  leftovers,
  mebibyte,
  Program,
  readDevice,
  startGateway,
  startServer,
  temporaryFolder,
  until,
  writeDevice,
} from './volume.js';

function availableBytes(): number {
  const kibibytes = /^MemAvailable: +(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return Number(kibibytes) * 1024;
}

const writtenBytes = 160 * mebibyte;
/**
 * Of memory, beside what is filled. With 30 MiB there was no deadlock either, but no progress to speak of: the code of the programs no longer
 * fits into the page cache, and their threads wait for it (`filemap_fault`), never for the device. No mark can prevent that.
 */
const leftMebibytes = 80;
/** An event loop that is late for as long as a write may take counts as stopped, and the server ends (rule S8): 3 s may be too few here. */
const patience = ['--request-timeout', '10s', '--io-timeout', '60s'];

machineCase(
  'memory is short: more is written to the device than there is room for, on the host that serves it',
  async (context) => {
    // A disk outside the machine, which costs none of its memory.
    await run('modprobe', ['virtio_blk']);
    await until('the disk', () => existsSync('/dev/vda'));
    const server = await startServer(context, '/dev/vda');
    const gateway = await startGateway(context, [server.url], { args: patience });
    // As the unit in share/systemd/ has it.
    for (const { child } of [server.program, gateway.program])
      writeFileSync(`/proc/${child.pid}/oom_score_adj`, '-1000');
    const folder = temporaryFolder(context);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=100%', 'tmpfs', folder]);
    context.after(() => run('umount', ['-l', folder]));
    const mebibytes = Math.floor(availableBytes() / mebibyte) - leftMebibytes;
    await run('dd', ['if=/dev/zero', `of=${join(folder, 'filler')}`, 'bs=1M', `count=${mebibytes}`, 'status=none']);
    context.note(`${Math.round(availableBytes() / mebibyte)} MiB are available`);
    const content = `yes 0123456789abcde | head -c ${writtenBytes}`;
    const write = `dd of=${gateway.device} bs=1M iflag=fullblock conv=fsync status=none`;
    await run('sh', ['-c', `${content} | ${write}`], 150_000);
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    await run('sh', ['-c', `${content} | cmp -n ${writtenBytes} - ${gateway.device}`], 150_000);
    assert.equal(await gateway.program.stop(), 0);
    assert.deepEqual(leftovers(gateway), []);
  },
  300_000,
);

/** A command of ours that the kernel does not finish as long as the dead `gateway`'s device has requests, nor any later one of anybody. */
function holdNetlink(context: CaseContext, { device, name }: Gateway): Program {
  const driver = fileURLToPath(new URL('../../../src/linux/nbd-netlink.js', import.meta.url));
  const { device: recorded } = JSON.parse(readFileSync(`/run/nbd-${name}.state`, 'utf8')) as {
    device: { identifier: string };
  };
  const change = {
    index: Number(device.replace('/dev/nbd', '')),
    identifier: recorded.identifier,
    sizeBytes: 8 * mebibyte,
    sockets: [],
  };
  const code = `import { NbdDriver } from '${driver}';
    const driver = await NbdDriver.find();
    console.log('now');
    await driver.reconfigure(${JSON.stringify(change)});`;
  const program = Program.of(spawn(process.execPath, ['--input-type=module', '-e', code]));
  context.after(() => program.kill());
  return program;
}

machineCase('generic netlink is held by somebody: I/O goes on, and a stop does not wait for it', async (context) => {
  const server = await startServer(context, diskImage(context, 4 * mebibyte));
  const [dead, living] = await Promise.all([
    startGateway(context, [server.url], { args: ['--dead-timeout', '20s'] }),
    startGateway(context, [server.url]),
  ]);
  await dead.program.kill();
  context.after(() => run('nbd-client', ['-d', dead.device]));
  const waiting = readDevice(dead.device).catch(() => {});
  const holder = holdNetlink(context, dead);
  await holder.line(/now/);
  const thread = () => readFileSync(`/proc/${holder.child.pid}/status`, 'utf8');
  context.note(/State:.*/.exec(thread())?.[0] ?? '');
  await writeDevice(living.device);
  await readDevice(living.device);
  living.program.child.kill('SIGTERM');
  await living.program.line(/could not be disconnected: the kernel does not answer/);
  assert.ok(holder.isRunning, 'it was held all the time');
  assert.equal(await living.program.ended, 0);
  await waiting;
  assert.deepEqual(leftovers(living), []);
  assert.equal(await run('cat', ['/proc/sys/kernel/tainted']), '0\n');
});
