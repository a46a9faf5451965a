/** Planned changes of processes, and what may come between. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { asleep } from '../../support/asleep.js';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { mount } from './filesystems.js';
import { FsyncLoad } from './fsync-load.js';
import { kernelLines, socketLost } from './kernel-log.js';
import {
  diskImage,
  type Gateway,
  leftovers,
  mebibyte,
  pidOf,
  readDevice,
  startGateway,
  startServer,
  until,
  writeDevice,
} from './volume.js';

/** Signals the process that serves now, and resolves with its successor's pid as soon as there is one. */
async function beginHandOver(gateway: Gateway): Promise<{ predecessor: number; successor: number }> {
  const predecessor = pidOf(gateway);
  const children = () => readFileSync(`/proc/${predecessor}/task/${predecessor}/children`, 'utf8').trim();
  process.kill(predecessor, 'SIGUSR2');
  // As long as it has not executed the program, the predecessor waits for it.
  const isExecuted = () => readFileSync(`/proc/${children()}/environ`, 'utf8').includes('NBD_SERVER_SUCCESSOR');
  await until('a successor is started', () => children() !== '' && isExecuted());
  return { predecessor, successor: Number(children()) };
}

/** Both are stopped (SIGSTOP), the successor ready and waiting, the predecessor not knowing it yet. */
async function stopWhenReady(gateway: Gateway): Promise<{ predecessor: number; successor: number }> {
  const pids = await beginHandOver(gateway);
  process.kill(pids.predecessor, 'SIGSTOP');
  await gateway.program.line(/Ready to take over/);
  // The line comes before the message to the predecessor; after it there is nothing to do.
  await until('the successor waits', asleep(pids.successor));
  process.kill(pids.successor, 'SIGSTOP');
  return pids;
}

/** The predecessor has given everything to a successor that is stopped and cannot take it. */
async function stopWhenGiven(gateway: Gateway): Promise<{ predecessor: number; successor: number }> {
  const pids = await stopWhenReady(gateway);
  process.kill(pids.predecessor, 'SIGCONT');
  await until('the predecessor serves no clients any more', () => !existsSync(gateway.socketPath));
  await until('the predecessor waits', asleep(pids.predecessor));
  return pids;
}

for (const cache of ['writethrough', 'writeback']) {
  machineCase(
    `${cache}: planned hand-over under load, five times: no error, and no time-out of the kernel is waited for`,
    async (context) => {
      const server = await startServer(context, diskImage(context, 32 * mebibyte));
      const gateway = await startGateway(context, [server.url], { args: ['--cache', cache] });
      await run('mkfs.ext4', ['-q', '-F', gateway.device]);
      const folder = await mount(context, gateway.device, ['-o', 'errors=remount-ro']);
      const load = await FsyncLoad.start(context, join(folder, 'file'));
      await load.progress(3);
      let pid = pidOf(gateway);
      for (let round = 1; round <= 5; round++) {
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
      assert.deepEqual(await kernelLines(socketLost), []);
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

machineCase(
  'a successor that dies before it is ready: the process goes on, and can hand over later',
  async (context) => {
    const server = await startServer(context, diskImage(context, 4 * mebibyte));
    const gateway = await startGateway(context, [server.url]);
    const { predecessor, successor } = await beginHandOver(gateway);
    process.kill(successor, 'SIGSTOP');
    process.kill(predecessor, 'SIGUSR2');
    await gateway.program.line(/A hand-over is under way/);
    process.kill(successor, 'SIGKILL');
    await gateway.program.line(/Not handed over: the successor did not get ready\. This process goes on\./);
    assert.equal(pidOf(gateway), predecessor);
    await writeDevice(gateway.device);
    process.kill(predecessor, 'SIGUSR2');
    await gateway.program.line(/Handed over to process/);
    await readDevice(gateway.device);
    gateway.program.signalGroup('SIGTERM');
    await gateway.program.closed;
    assert.deepEqual(leftovers(gateway), []);
  },
);

const shortTimes = ['--request-timeout', '2s', '--io-timeout', '6s'];

/** A hand-over under load that comes to nothing, as `fail` sees to: the next process takes over as after a crash, and nothing is lost. */
async function takeOverAfter(context: CaseContext, fail: (gateway: Gateway) => Promise<void>): Promise<void> {
  const server = await startServer(context, diskImage(context, 32 * mebibyte));
  const gateway = await startGateway(context, [server.url], { args: shortTimes });
  await run('mkfs.ext4', ['-q', '-F', gateway.device]);
  const folder = await mount(context, gateway.device, ['-o', 'errors=remount-ro']);
  const load = await FsyncLoad.start(context, join(folder, 'file'));
  await load.progress(3);
  await fail(gateway);
  await gateway.program.closed;
  const { name, socketPath } = gateway;
  const next = await startGateway(context, [server.url], { name, socketPath, args: shortTimes });
  assert.equal(next.device, gateway.device);
  await load.progress(3);
  await load.verify();
  await run('umount', [folder]);
  await run('e2fsck', ['-f', '-n', next.device]);
  assert.equal(await next.program.stop(), 0);
  assert.deepEqual(leftovers(next), []);
}

machineCase(
  'a successor that dies when everything has been given to it: the next process takes over, no error, nothing lost',
  (context) =>
    takeOverAfter(context, async (gateway) => {
      const { successor } = await stopWhenGiven(gateway);
      process.kill(successor, 'SIGKILL');
      await gateway.program.line(/Not handed over: the successor has gone/);
      assert.equal(await gateway.program.ended, 1);
    }),
);

machineCase(
  'kill -9 of the predecessor when its successor is ready: both are gone, the next process takes over, no error, nothing lost',
  (context) =>
    takeOverAfter(context, async (gateway) => {
      const { predecessor, successor } = await stopWhenReady(gateway);
      process.kill(predecessor, 'SIGKILL');
      process.kill(successor, 'SIGCONT');
      await gateway.program.nth(/The predecessor has not handed over/, 1);
    }),
);

/** A moment of a hand-over, and how it is reached. */
const moments: Readonly<Record<string, (gateway: Gateway) => Promise<unknown>>> = {
  'when the successor has just been started': beginHandOver,
  'when the successor is ready': stopWhenReady,
  'when everything has been given': stopWhenGiven,
  'when it is over': async (gateway) => {
    await beginHandOver(gateway);
    await gateway.program.line(/Handed over to process/);
  },
};

machineCase(
  'SIGTERM to the whole group at each step of a hand-over: both processes end, and nothing is left',
  async (context) => {
    const server = await startServer(context, diskImage(context, 4 * mebibyte));
    for (const [name, reach] of Object.entries(moments)) await stopAt(context, server.url, name, reach, false);
    await stopAt(context, server.url, 'the same, to a successor that hangs', stopWhenGiven, true);
  },
  300_000,
);

async function stopAt(
  context: CaseContext,
  url: string,
  name: string,
  reach: (gateway: Gateway) => Promise<unknown>,
  hangs: boolean,
): Promise<void> {
  const gateway = await startGateway(context, [url], { args: ['--cache', 'writeback'] });
  await writeDevice(gateway.device);
  await reach(gateway);
  const startMs = performance.now();
  gateway.program.signalGroup('SIGTERM');
  if (!hangs) gateway.program.signalGroup('SIGCONT');
  await gateway.program.closed;
  context.note(`${name}: ended after ${Math.round(performance.now() - startMs)} ms`);
  assert.deepEqual(leftovers(gateway), [], `${name}\n${gateway.program.output}`);
}
