/** The kernel's timer that kills its process: in processes of its own, which must die of it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { projectRoot, type RunningProgram, startCommand } from '../../support/processes.js';

const library = (name: string) => join(projectRoot, 'dist/src/linux', name);

/** Runs `code` with `timer` and `nowMs`. */
function start(t: TestContext, code: string, command = [process.execPath]): RunningProgram {
  const script = `
    const { BootKillTimer } = await import('${library('kill-timer.js')}');
    const { bootClock } = await import('${library('boot-clock.js')}');
    const timer = new BootKillTimer();
    const nowMs = bootClock.nowMs();
    ${code}`;
  const [program = '', ...args] = command;
  return startCommand(t, program, [...args, '--input-type=module', '--eval', script]);
}

const killed = { code: null, signal: 'SIGKILL' };
const alive = { code: 7, signal: null };
const endSoon = 'setTimeout(() => process.exit(7), 300);';

test('it kills a process that is stopped', async (t) => {
  const program = start(t, `timer.set(nowMs + 200.5); process.kill(process.pid, 'SIGSTOP'); ${endSoon}`);
  assert.deepEqual(await program.end(), killed);
});

test('it kills a process whose time was over when it was set', async (t) => {
  const program = start(t, `timer.set(nowMs - 1); ${endSoon}`);
  assert.deepEqual(await program.end(), killed);
});

test('it is put off, and turned off', async (t) => {
  const later = `timer.set(nowMs + 50); timer.set(nowMs + 60_000); ${endSoon}`;
  assert.deepEqual(await start(t, later).end(), alive);
  const off = `timer.set(nowMs + 50); timer.set(undefined); ${endSoon}`;
  assert.deepEqual(await start(t, off).end(), alive);
});

test('the clock goes on when it has been set', async (t) => {
  const wait = 'const endMs = performance.now() + 3; while (performance.now() < endMs);';
  const look = 'process.exit(bootClock.nowMs() >= beforeMs + 2.9 ? 7 : 1);';
  const program = start(t, `const beforeMs = bootClock.nowMs(); ${wait} timer.set(undefined); ${look}`);
  assert.deepEqual(await program.end(), alive);
});

const noNamespaces = process.getuid?.() === 0 ? false : 'needs root (unshare)';

test('there is none in the first process of a PID namespace, which it could not kill', {
  skip: noNamespaces,
}, async (t) => {
  const program = start(t, endSoon, ['unshare', '--pid', '--fork', '--kill-child', process.execPath]);
  assert.equal((await program.end()).code, 1);
  assert.match(program.stderr, /timer_create: EPERM/);
});
