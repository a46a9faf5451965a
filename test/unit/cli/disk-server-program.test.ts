import assert from 'node:assert/strict';
import test from 'node:test';
import { Channel } from '../../../src/base/channel.js';
import { Failure } from '../../../src/base/failure.js';
import { type Core, DiskServerProgram, type FrontEnd } from '../../../src/cli/disk-server-program.js';
import type { ListenAddress } from '../../../src/cli/options.js';
import type { Disk } from '../../../src/disk/disk.js';
import type { DiskEvent } from '../../../src/disk-server/disk-keeper.js';
import { SystemError } from '../../../src/linux/errno.js';
import { Log } from '../../../src/observability/log.js';
import { FakeClock, settled } from '../../support/fake-clock.js';

const errnos: Readonly<Record<string, number>> = { EADDRINUSE: 98, EADDRNOTAVAIL: 99 };
const noDisk = {} as unknown as Disk;

/** The program over a core and an HTTP side that do what a test tells them. */
function setUp(address: ListenAddress = { port: 8000 }) {
  const clock = new FakeClock();
  const exits: number[] = [];
  const order: string[] = [];
  let text = '';
  const log = new Log('stderr', '', (bytes) => {
    text += bytes.toString();
    return bytes.length;
  });
  let firstAttempt = () => {};
  const started = new Promise<void>((resolve) => {
    firstAttempt = resolve;
  });
  const stopped = { unfinished: 0, closed: true };
  const core: Core = {
    events: new Channel<DiskEvent>(),
    start: () => started,
    stop: async () => {
      order.push('core stopped');
      return stopped;
    },
  };
  /** What the next attempts to listen end with, before one succeeds. */
  const refusals: string[] = [];
  const frontEnd: FrontEnd = {
    endpoint: '127.0.0.1:8000',
    listen: async () => {
      const code = refusals.shift();
      if (code !== undefined) throw new SystemError(errnos[code] ?? 0, 'listen');
    },
    close: async () => void order.push('port closed'),
  };
  const exit = (code: 0 | 1) => void exits.push(code);
  const program = new DiskServerProgram({ diskPath: '/dev/x', address, log, clock, exit });
  const lines = () => text.split('\n').slice(0, -1);
  return { clock, program, core, frontEnd, exits, order, lines, firstAttempt, refusals, stopped };
}

test('it is ready when the first attempt is over and it listens, not when the disk is open', async () => {
  const { program, core, frontEnd, lines, firstAttempt } = setUp();
  void program.start(core, frontEnd);
  core.events.publish({ is: 'waiting', reason: 'No such device yet' });
  await settled();
  assert.deepEqual(lines(), ['Cannot open device `/dev/x`: `No such device yet`.', 'Listening on 127.0.0.1:8000.']);
  firstAttempt();
  await settled();
  core.events.publish({ is: 'opened', sizeBytes: 1, readOnly: false, instance: 'i' });
  assert.deepEqual(lines().slice(2), ['Server ready!', 'Disk open!']);
});

test('a port in use is waited for', async () => {
  const { clock, program, core, frontEnd, lines, firstAttempt, refusals, exits } = setUp();
  refusals.push(...Array.from({ length: 80 }, () => 'EADDRINUSE'));
  firstAttempt();
  void program.start(core, frontEnd);
  await clock.advance(3000);
  assert.deepEqual(lines(), []);
  await clock.advance(2000);
  assert.deepEqual(lines(), ['Listening on 127.0.0.1:8000.', 'Server ready!']);
  assert.deepEqual(exits, []);
});

test('a port that stays in use ends the program with one line, after the disk was released', async () => {
  const { clock, program, core, frontEnd, lines, firstAttempt, refusals, exits, order } = setUp({
    host: '::1',
    port: 80,
  });
  refusals.push(...Array.from({ length: 1000 }, () => 'EADDRINUSE'));
  firstAttempt();
  void program.start(core, frontEnd);
  await clock.advance(4900);
  assert.deepEqual(lines(), []);
  await clock.advance(300);
  assert.deepEqual(lines(), ['Cannot listen on `[::1]:80`: `Address already in use`.']);
  assert.deepEqual([exits, order], [[1], ['core stopped']]);
});

test('an address that is not of this host ends the program at once', async () => {
  const { program, core, frontEnd, lines, refusals, exits } = setUp({ host: '192.0.2.1', port: 8000 });
  refusals.push('EADDRNOTAVAIL');
  void program.start(core, frontEnd);
  await settled();
  assert.deepEqual(lines(), ['Cannot listen on `192.0.2.1:8000`: `This host does not have this address`.']);
  assert.deepEqual(exits, [1]);
});

test('a first attempt that shows that the path will never do ends the program; a later one does not', async () => {
  const first = setUp();
  const folder = first.program.opener(() => Promise.reject(new Failure('invalid-request', 'Is a folder')));
  void first.program.start(first.core, first.frontEnd);
  await assert.rejects(folder(), { code: 'invalid-request' });
  await settled();
  assert.deepEqual(first.lines(), ['Cannot open device `/dev/x`: `Is a folder`.']);
  assert.deepEqual(first.exits, [1]);

  const later = setUp();
  const outcomes = [() => Promise.reject(new Failure('unavailable', 'wait')), () => Promise.resolve(noDisk)];
  const opener = later.program.opener(
    () => outcomes.shift()?.() ?? Promise.reject(new Failure('not-found', 'No such file or directory')),
  );
  void later.program.start(later.core, later.frontEnd);
  await assert.rejects(opener(), { code: 'unavailable' });
  assert.equal(await opener(), noDisk);
  await assert.rejects(opener(), { code: 'not-found' });
  assert.deepEqual(later.exits, []);
});

test('a stop closes the disk first and the port last, once, with 0', async () => {
  const { program, core, frontEnd, lines, firstAttempt, exits, order } = setUp();
  firstAttempt();
  await program.start(core, frontEnd);
  await Promise.all([program.stop('SIGTERM'), program.stop('SIGTERM'), program.stop('SIGINT')]);
  assert.deepEqual(order, ['core stopped', 'port closed']);
  assert.deepEqual(exits, [0]);
  assert.deepEqual(lines(), ['Listening on 127.0.0.1:8000.', 'Server ready!', 'SIGTERM received. Exiting server...']);
});

test('a stop leaves the port to the kernel while the disk may still be written', async () => {
  const { program, core, frontEnd, lines, firstAttempt, exits, order, stopped } = setUp();
  firstAttempt();
  await program.start(core, frontEnd);
  stopped.unfinished = 2;
  await program.stop('SIGTERM');
  assert.deepEqual(order, ['core stopped']);
  assert.deepEqual(exits, [0]);
  assert.equal(lines().at(-1), 'The disk has not come back from 2 operations.');
});

test('a stop leaves the port to the kernel while the disk is still being closed, which writes', async () => {
  const { program, core, frontEnd, lines, firstAttempt, exits, order, stopped } = setUp();
  firstAttempt();
  await program.start(core, frontEnd);
  stopped.closed = false;
  await program.stop('SIGTERM');
  assert.deepEqual([order, exits], [['core stopped'], [0]]);
  assert.equal(lines().at(-1), 'The disk has not come back from being closed.');
});

test('a stop does not wait for an HTTP side that does not close', async () => {
  const { clock, program, core, frontEnd, firstAttempt, exits } = setUp();
  firstAttempt();
  await program.start(core, { ...frontEnd, close: () => new Promise(() => {}) });
  void program.stop('SIGTERM');
  await settled();
  assert.deepEqual(exits, []);
  await clock.advance(1000);
  assert.deepEqual(exits, [0]);
});

test('a stop while the port is still waited for is a stop like any other', async () => {
  const { clock, program, core, frontEnd, lines, firstAttempt, refusals, exits } = setUp();
  refusals.push(...Array.from({ length: 1000 }, () => 'EADDRINUSE'));
  firstAttempt();
  void program.start(core, frontEnd);
  await clock.advance(100);
  await program.stop('SIGTERM');
  await clock.advance(10_000);
  assert.deepEqual(lines(), ['SIGTERM received. Exiting server...']);
  assert.deepEqual(exits, [0]);
});
