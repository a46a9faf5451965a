/** A successor of an nbd-server that died in write-back mode, without a device of the kernel (test/vm/ has it with one). */
import assert from 'node:assert/strict';
import test from 'node:test';
import { startProgram } from '../support/processes.js';
import { seededFile, startDiskServer, startGateway } from '../support/stack.js';

const mebibyte = 2 ** 20;

for (const [what, diskAfterwards] of [
  ['was started anew', undefined],
  ['has no disk any more', '/dev/no-such-disk'],
] as const) {
  test(`the server that had the unflushed writes ${what}: the successor says so and ends with 1`, async (t) => {
    const disk = seededFile(t, 1, mebibyte);
    const [holder, other] = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
    const urls = [holder.url, other.url];
    const { program, socketPath } = await startGateway(t, urls, ['--cache', 'writeback']);
    await program.line('stdout', /Selected server/);
    const name = /^\[(.*?)\] /.exec(program.stdout)?.[1] ?? '';
    await program.kill();
    await holder.program.kill();
    await startDiskServer(t, diskAfterwards ?? disk, [], holder.port);
    const args = ['--no-attach', '--socket-path', socketPath, '--nbd-name', name, '--urls', urls.join(',')];
    const successor = startProgram(t, 'nbd-server', args);
    assert.deepEqual(await successor.end(10_000), { code: 1, signal: null });
    assert.match(successor.stdout, /Writes that were acknowledged before .* are lost/);
  });
}
