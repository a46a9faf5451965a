/** As the storage manager starts and stops both programs, and as the manual does. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { bin, diskImage, mebibyte, Program, startServer, temporaryFolder } from './volume.js';

machineCase("the user's own example, as typed", async (context) => {
  const folder = temporaryFolder(context);
  await run('sh', ['-c', 'grep -q totor-a /etc/hosts || echo "127.0.0.1 totor-a totor-b" >>/etc/hosts']);
  await startServer(context, diskImage(context, 4 * mebibyte), { port: 8000 });
  const shell = spawn(
    'sh',
    [
      '-c',
      `cd ${folder} && PATH=${bin}:$PATH && exec nbd-http-server --socket-path ./socket --nbd-name heartbeat --urls "http://totor-a:8000,http://totor-b:8000"`,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const program = Program.of(shell);
  context.after(() => program.kill());
  const [line = ''] = await program.line(/^.*NBD `\/dev\/nbd\d+` is now attached\.$/);
  assert.match(line, /^\[heartbeat\] NBD `\/dev\/nbd\d+` is now attached\.$/);
  assert.ok(existsSync(join(folder, 'socket')));
  assert.equal(await program.stop(), 0);
  assert.ok(!existsSync(join(folder, 'socket')));
  assert.ok(!existsSync('/var/run/nbd-heartbeat.pid'));
});

/**
 * Both streams in one pipe that is read line by line, a process group of its own, and a wrapper that does not end on SIGTERM. The last
 * line is the program's exit code.
 */
function wrapped(context: CaseContext, name: string, args: readonly string[]): Program {
  const script = 'trap "" TERM; { "$@" 2>&1; echo "exit $?"; } | cat';
  const child = spawn('sh', ['-c', script, 'wrapper', join(bin, name), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const program = Program.of(child);
  context.after(() => program.signalGroup('SIGKILL'));
  return program;
}

machineCase(
  'the storage manager: merged pipe, process group, HTTP server stopped first, a restart within milliseconds',
  async (context) => {
    const disk = diskImage(context, 8 * mebibyte);
    const socketPath = join(temporaryFolder(context), 'socket');
    const serverArgs = ['--disk', disk, '--ip', '127.0.0.1', '--port', '8076'];
    // Most hosts of the pool run no server; the size that is given is smaller than the disk.
    const urls = 'http://127.0.0.2:8076,http://127.0.0.1:8076';
    const nbdArgs = ['--socket-path', socketPath, '--nbd-name', 'pool', '--urls', urls, '--device-size', '4194304'];
    const attached = /^\[pool\] NBD `(\/dev\/nbd\d+)` is now attached\.$/;
    let server = wrapped(context, 'http-disk-server', serverArgs);
    let nbd = wrapped(context, 'nbd-server', nbdArgs);
    for (let round = 0; round < 2; round++) {
      await server.line(/^\[disk\.img\] Server ready!$/);
      const [, device = ''] = await nbd.line(attached);
      assert.equal(await run('blockdev', ['--getsize64', device]), '4194304\n');
      await run('dd', ['if=/dev/zero', `of=${device}`, 'bs=512', 'count=8', 'oflag=direct', 'status=none']);
      const [oldServer, oldNbd] = [server, nbd];
      oldServer.signalGroup('SIGTERM');
      oldNbd.signalGroup('SIGTERM');
      if (round < 1) {
        server = wrapped(context, 'http-disk-server', serverArgs);
        nbd = wrapped(context, 'nbd-server', nbdArgs);
      }
      for (const old of [oldServer, oldNbd]) {
        await old.ended;
        await old.closed;
        assert.match(old.output, /\nexit 0\n$/);
      }
    }
    for (const path of [socketPath, '/run/nbd-pool.pid']) assert.ok(!existsSync(path), path);
  },
  300_000,
);
