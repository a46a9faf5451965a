import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { escapeLine, Log } from '../../../src/observability/log.js';
import { type LogSink, openSink } from '../../../src/observability/log-sink.js';
import { projectRoot, temporaryFolder } from '../../support/processes.js';

/** A sink that takes as much as `room` says. */
function scripted(): { sink: LogSink; text: () => string; room: number } {
  let written = '';
  const state = {
    room: Number.POSITIVE_INFINITY,
    text: () => written,
    sink: (bytes: Buffer) => {
      if (state.room === 0) return 'full' as const;
      const count = Math.min(bytes.length, state.room);
      state.room -= count;
      written += bytes.subarray(0, count).toString('latin1');
      return count;
    },
  };
  return state;
}

test('a line has the prefix, ends with a bare newline, and is written before the call returns', () => {
  const { sink, text } = scripted();
  new Log('stderr', 'drbd1000', sink).line('Server ready!');
  new Log('stderr', '', sink).line('no name');
  assert.equal(text(), '[drbd1000] Server ready!\nno name\n');
});

test('nothing in a line can end it, move a cursor or be other than UTF-8', () => {
  assert.equal(
    escapeLine('a\nb\r\tc\x1b[1m\x07\x7f\x85\u2028\u2029\0'),
    'a\\nb\\r\\tc\\x1b[1m\\x07\\x7f\\x85\\u2028\\u2029\\x00',
  );
  assert.equal(escapeLine('Größe 😀 `x` \\'), 'Größe 😀 `x` \\');
  const { sink, text } = scripted();
  new Log('stdout', 'n\nn', sink).line('\ud800 half, then 😀');
  assert.equal(Buffer.from(text(), 'latin1').toString(), '[n\\nn] \ufffd half, then 😀\n');
});

test('a line is bounded', () => {
  assert.ok(escapeLine('x'.repeat(100_000)).length < 10_000);
});

test('a slow reader makes lines wait, in order, and is told how many were dropped', () => {
  const slow = scripted();
  const log = new Log('stderr', 'n', slow.sink);
  slow.room = 7;
  log.line('first');
  assert.equal(slow.text(), '[n] fir');
  const longest = 'y'.repeat(8000);
  for (let line = 0; line < 200; line += 1) log.line(`${line} ${longest}`);
  assert.equal(slow.text(), '[n] fir');
  slow.room = Number.POSITIVE_INFINITY;
  log.flush();
  const lines = slow.text().split('\n');
  assert.equal(lines[0], '[n] first');
  assert.ok(lines[1]?.startsWith('[n] 0 y'));
  assert.equal(lines.pop(), '');
  const kept = lines.length - 2;
  assert.equal(lines.pop(), `[n] ${200 - kept} log lines dropped: the reader of the log is too slow.`);
  assert.ok(kept > 100 && kept < 200);
});

test('what is queued comes out as soon as there is room', async () => {
  const slow = scripted();
  const log = new Log('stderr', 'n', slow.sink);
  slow.room = 0;
  log.line('later');
  slow.room = Number.POSITIVE_INFINITY;
  // The retry does not keep the process alive, so this wait has to.
  const alive = setInterval(() => {}, 1000);
  while (slow.text() === '') await new Promise((resolve) => setTimeout(resolve, 1));
  clearInterval(alive);
  assert.equal(slow.text(), '[n] later\n');
});

test('a flush at the end gives up on a reader that never reads', () => {
  const log = new Log('stderr', 'n', () => 'full');
  log.line('never');
  log.flush(30);
});

/** A pipe by way of a FIFO; both ends are open. */
function pipe(context: TestContext): { reader: number; writer: number } {
  const path = join(temporaryFolder(context), 'fifo');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { reader, writer: openSync(path, constants.O_WRONLY) };
}

test('a full pipe never blocks, and its flags stay as they are for others', (t) => {
  const { reader, writer } = pipe(t);
  t.after(() => closeSync(reader));
  t.after(() => closeSync(writer));
  const sink = openSink(writer);
  const bytes = Buffer.alloc(10_000, 'x');
  let written = 0;
  for (;;) {
    const outcome = sink(bytes);
    if (outcome === 'full') break;
    assert.notEqual(outcome, 'gone');
    written += Number(outcome);
  }
  assert.ok(written >= 4096);
  assert.equal(readSync(reader, Buffer.alloc(65_536)) > 0, true);
  assert.equal(typeof sink(bytes), 'number');
  const flags = readFileSync(`/proc/self/fdinfo/${writer}`, 'utf8');
  assert.equal(Number.parseInt(/flags:\s*(\d+)/.exec(flags)?.[1] ?? '', 8) & constants.O_NONBLOCK, 0);
});

test('a reader that has gone is no error', (t) => {
  const { reader, writer } = pipe(t);
  t.after(() => closeSync(writer));
  const sink = openSink(writer);
  closeSync(reader);
  assert.equal(sink(Buffer.from('x')), 'gone');
  assert.equal(openSink(999_999)(Buffer.from('x')), 'gone');
  new Log('stderr', 'n', sink).line('nobody hears it');
});

test('a full socket never blocks, though it is a blocking one, as a service of systemd has it', async (t) => {
  const script = `
    import { openSink } from '${join(projectRoot, 'dist/src/observability/log-sink.js')}';
    const sink = openSink(1);
    const bytes = Buffer.alloc(10_000, 'x');
    let outcome = sink(bytes);
    while (typeof outcome === 'number') outcome = sink(bytes);
    process.stderr.write(outcome);`;
  // Node gives its children socket pairs; nobody reads from this one.
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => child.kill('SIGKILL'));
  child.stderr.setEncoding('utf8');
  const [said] = (await once(child.stderr, 'data')) as [string];
  assert.equal(said, 'full');
});

test('a file gets its lines where the shell left off', (t) => {
  const path = join(temporaryFolder(t), 'log');
  const fd = openSync(path, 'w');
  t.after(() => closeSync(fd));
  writeSync(fd, 'before\n');
  new Log('stderr', 'n', openSink(fd)).line('after');
  assert.equal(readFileSync(path, 'utf8'), 'before\n[n] after\n');
});
