/** What a successor must know lies under /run: what happens when that is wrong, gone, or cannot be written. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connectedDevices } from '../../../src/linux/nbd-sysfs.js';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import {
  diskImage,
  launchGateway,
  leftovers,
  mebibyte,
  readDevice,
  startGateway,
  type Server,
  startServer,
  writeDevice,
} from './volume.js';

const unreachable = 'http://127.0.0.1:9';

function recordOf(name: string): string {
  return `/run/nbd-${name}.state`;
}

machineCase('a record that makes no sense: the device is cleared, and another one attached', async (context) => {
  const server = await startServer(context, diskImage(context, 4 * mebibyte));
  const records: Readonly<Record<string, (text: string) => string>> = {
    'cut off': (text) => text.slice(0, text.length / 2),
    'of another boot': (text) => text.replace(/"bootId": "[^"]*"/, '"bootId": "another"'),
  };
  for (const [what, spoil] of Object.entries(records)) {
    const gateway = await startGateway(context, [server.url]);
    const { name, socketPath } = gateway;
    await gateway.program.kill();
    const text = readFileSync(recordOf(name), 'utf8');
    assert.notEqual(spoil(text), text, what);
    writeFileSync(recordOf(name), spoil(text));
    const next = await startGateway(context, [server.url], { name, socketPath });
    assert.match(next.program.output, new RegExp(`leaked NBD device detected: \`${gateway.device}\``), what);
    await writeDevice(next.device);
    assert.equal(await next.program.stop(), 0);
    for (const either of [gateway, next]) assert.deepEqual(leftovers(either), [], what);
  }
});

/** /run on a file system of its own, of 64 KiB, for the rest of the case. */
async function smallRunFolder(context: CaseContext): Promise<void> {
  await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', '/run']);
  context.after(() => run('umount', ['-l', '/run']));
}

async function fill(path: string): Promise<void> {
  await run('dd', ['if=/dev/zero', `of=${path}`, 'bs=4k', 'status=none']).catch(() => {});
}

machineCase('/run cannot be written, or is full: no device, and a line that says why', async (context) => {
  await smallRunFolder(context);
  await run('mount', ['-o', 'remount,ro', '/run']);
  const args = ['--device-size', '4M'];
  const first = launchGateway(context, [unreachable], { args });
  assert.equal(await first.program.ended, 1);
  assert.match(first.program.output, new RegExp(`\`/run/nbd-${first.name}.lock\` cannot be written: \`EROFS\``));
  await run('mount', ['-o', 'remount,rw', '/run']);
  await fill('/run/filler');
  assert.ok(statSync('/run/filler').size < 65_537);
  const second = launchGateway(context, [unreachable], { args });
  assert.equal(await second.program.ended, 1);
  assert.match(second.program.output, new RegExp(`\`${recordOf(second.name)}\` cannot be written: \`ENOSPC\``));
  for (const { name, socketPath } of [first, second]) {
    const paths = [socketPath, `/run/nbd-${name}.pid`, recordOf(name), `${recordOf(name)}.new`];
    assert.deepEqual(paths.filter(existsSync), []);
  }
  assert.deepEqual(connectedDevices(), []);
});

machineCase(
  '/run fills while a device is served: a takeover is possible again as soon as there is room',
  async (context) => {
    await smallRunFolder(context);
    const disk = diskImage(context, 4 * mebibyte);
    const servers = await Promise.all([1, 2].map(() => startServer(context, disk)));
    const urls = servers.map(({ url }) => url);
    const gateway = await startGateway(context, urls, { args: ['--connections', '1'] });
    const { name, socketPath } = gateway;
    // The second one, if the first was slow to answer.
    const isUsed = ({ url }: Server) => gateway.program.output.includes(`Selected server: \`${url}`);
    const [used, other] = [servers.find(isUsed), servers.find((server) => !isUsed(server))];
    assert.ok(used !== undefined && other !== undefined);
    await fill('/run/filler');
    await used.program.kill();
    await writeDevice(gateway.device);
    // Where writes go now is not on record, and what is on record is not true any more.
    assert.match(gateway.program.output, /cannot be written, nobody will be able to take over from us: `ENOSPC`/);
    assert.ok(!existsSync(recordOf(name)));
    gateway.program.child.kill('SIGUSR2');
    await gateway.program.line(/Not handed over: .*`ENOSPC`\. This process goes on/);
    await run('rm', ['/run/filler']);
    await startServer(context, disk, { port: used.port });
    await other.program.kill();
    await writeDevice(gateway.device);
    assert.ok(existsSync(recordOf(name)));
    await gateway.program.kill();
    const next = await startGateway(context, urls, { name, socketPath });
    assert.match(next.program.output, /is taken over from process/);
    assert.equal(next.device, gateway.device);
    await readDevice(next.device);
    assert.equal(await next.program.stop(), 0);
    assert.deepEqual(leftovers(next), []);
  },
);
