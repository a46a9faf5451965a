/** The virtual machine itself: what happens to it never looks like success. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { runInMachine } from './machine.js';
import type { Report } from './report.js';

function run(script: string, timeLimitMs: number): { exit: Promise<number>; reports: Report[] } {
  const reports: Report[] = [];
  const exit = runInMachine({
    command: ['sh', '-c', script],
    timeLimitMs,
    onReport: (report) => void reports.push(report),
  });
  return { exit, reports };
}

test('the exit code of the command in the machine comes back', async () => {
  const { exit, reports } = run('exit 7', 60_000);
  assert.equal(await exit, 7);
  assert.deepEqual(reports, [{ event: 'exit', code: 7 }]);
});

test('a kernel panic is a failure that shows the console', async () => {
  const { exit } = run('echo c >/proc/sysrq-trigger', 60_000);
  await assert.rejects(exit, /the machine ended without a result: QEMU exited with 0[^]*Kernel panic/);
});

test('a machine that goes on for ever is ended, and that is a failure', async () => {
  const { exit } = run('sleep 1000', 8000);
  await assert.rejects(exit, /the time limit of 8 s has passed/);
});
