/** The unit of share/systemd/, run by systemd itself: a manager of the kind that each user has, but root's. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { mount } from './filesystems.js';
import { FsyncLoad } from './fsync-load.js';
import {
  bin,
  diskImage,
  leftovers,
  listDevices,
  mebibyte,
  Program,
  startServer,
  temporaryFolder,
  until,
} from './volume.js';

const unit = 'nbd-server@service.service';

/** Resolves with `systemctl --user`. */
async function startManager(context: CaseContext): Promise<(...args: string[]) => Promise<string>> {
  if (!existsSync('/sys/fs/cgroup/cgroup.procs')) await run('mount', ['-t', 'cgroup2', 'cgroup2', '/sys/fs/cgroup']);
  // So that it believes that systemd has booted the machine.
  mkdirSync('/run/systemd/system', { recursive: true });
  context.after(() => rmSync('/run/systemd', { recursive: true }));
  const folder = temporaryFolder(context);
  const environment = { HOME: folder, XDG_RUNTIME_DIR: folder, PATH: process.env['PATH'] ?? '' };
  mkdirSync(join(folder, '.config/systemd/user'), { recursive: true });
  cpSync(join(bin, '../share/systemd/nbd-server@.service'), join(folder, '.config/systemd/user/nbd-server@.service'));
  const manager = spawn('/lib/systemd/systemd', ['--user', '--log-target=console'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const program = Program.of(manager);
  context.after(async () => {
    context.note(program.output);
    await program.stop();
  });
  await until('the manager listens', () => existsSync(join(folder, 'systemd/private')));
  const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return (...args) => run('env', [...settings, 'systemctl', '--user', ...args]);
}

machineCase(
  'the systemd unit: start, reload, kill -9 and a restart, stop; a mounted filesystem sees no error',
  async (context) => {
    const server = await startServer(context, diskImage(context, 32 * mebibyte));
    const socketPath = join(temporaryFolder(context), 'socket');
    symlinkSync(join(bin, 'nbd-server'), '/usr/bin/nbd-server');
    mkdirSync('/etc/nbd-server');
    const times = '--request-timeout 3s --io-timeout 12s';
    writeFileSync('/etc/nbd-server/service.conf', `ARGS=--socket-path ${socketPath} --urls ${server.url} ${times}\n`);
    const systemctl = await startManager(context);
    const mainPid = async () => Number((await systemctl('show', '-p', 'MainPID', '--value', unit)).trim());
    const state = async () => (await systemctl('show', '-p', 'ActiveState', '--value', unit)).trim();

    await systemctl('start', unit);
    const device = /^(\S+) .* service /m.exec(listDevices())?.[1] ?? '';
    await run('mkfs.ext4', ['-q', '-F', device]);
    const folder = await mount(context, device, ['-o', 'errors=remount-ro']);
    const load = await FsyncLoad.start(context, join(folder, 'file'));
    await load.progress(3);

    let pid = await mainPid();
    for (const change of ['reload', 'kill']) {
      if (change === 'reload') await systemctl('reload', unit);
      else process.kill(pid, 'SIGKILL');
      await until(`another process after ${change}`, () => !existsSync(`/proc/${pid}`));
      while ((await mainPid()) === pid || (await state()) !== 'active') {
        assert.ok(!['inactive', 'failed'].includes(await state()), `the unit goes on after ${change}`);
      }
      assert.notEqual(await mainPid(), 0);
      pid = await mainPid();
      await load.progress(3);
      assert.equal(
        (await systemctl('show', '-p', 'NRestarts', '--value', unit)).trim(),
        change === 'reload' ? '0' : '1',
      );
    }
    await load.verify();
    await run('umount', [folder]);
    await systemctl('stop', unit);
    assert.equal(await state(), 'inactive');
    assert.deepEqual(leftovers({ name: 'service', socketPath, device }), []);
  },
  300_000,
);
