/** A planned change of nbd-server processes, without a device of the kernel (test/vm/ has it with one). */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NbdClient } from '../../demo/nbd-client.js';
import { seededFile, startDiskServer, startGateway } from '../support/stack.js';

const mebibyte = 1024 * 1024;

test('SIGUSR2: a successor with the next generation serves, and the predecessor ends with 0', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  await gateway.program.line('stdout', /Selected server/);
  const name = /^\[(.*?)\] /.exec(gateway.program.stdout)?.[1] ?? '';
  const record = () =>
    JSON.parse(readFileSync(`/run/nbd-${name}.state`, 'utf8')) as { pid: number; session: string; generation: number };
  const before = record();
  gateway.program.signal('SIGUSR2');
  await gateway.program.line('stdout', /Handed over to process \d+/);
  const pid = Number(/Handed over to process (\d+)/.exec(gateway.program.stdout)?.[1]);
  while (record().pid !== pid) await delay(10);
  t.after(() => {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  });
  const after = record();
  assert.notEqual(pid, before.pid);
  assert.deepEqual([after.pid, after.session, after.generation], [pid, before.session, before.generation + 1]);
  process.kill(pid, 'SIGTERM');
  assert.deepEqual(await gateway.program.end(), { code: 0, signal: null });
});

test('SIGTERM while a successor gets ready: both end', async (t) => {
  const server = await startDiskServer(t, seededFile(t, 1, mebibyte));
  const gateway = await startGateway(t, [server.url]);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  gateway.program.signal('SIGUSR2');
  await gateway.program.line('stdout', /SIGUSR2 received/);
  gateway.program.signal('SIGTERM');
  // Its streams are closed by the last process that has them.
  assert.deepEqual(await gateway.program.end(), { code: 0, signal: null });
});
