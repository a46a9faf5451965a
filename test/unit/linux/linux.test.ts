import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, statSync, writeFileSync } from 'node:fs';
import { createServer, createConnection, type Socket } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { deviceNumber } from '../../../src/linux/device-number.js';
import { errnoName, errnoOf, SystemError } from '../../../src/linux/errno.js';
import { tryLock } from '../../../src/linux/flock.js';
import { LibcFunction, lastErrno } from '../../../src/linux/libc.js';
import { seekData } from '../../../src/linux/sparse.js';
import { projectRoot, temporaryFolder } from '../../support/processes.js';

const code = (error: unknown) => errnoOf(error) ?? String(error);

test('a function that the C library does not have is ENOSYS, in both kinds of call', async () => {
  const missing = new LibcFunction('int no_such_function_anywhere(int a)');
  assert.equal(missing.exists, false);
  assert.equal(missing.call(1), -1);
  assert.equal(lastErrno(), constants.errno.ENOSYS);
  await assert.rejects(missing.callAsync(1), (error) => code(error) === 'ENOSYS');
});

test('each of many asynchronous calls has its own errno and its own result', async () => {
  const open = new LibcFunction('int open(const char *path, int flags)');
  const paths = ['/nonexistent', '/etc/passwd/below', '/'];
  const outcomes = await Promise.all(
    Array.from({ length: 1000 }, async (_, index) => {
      const path = paths[index % 3] ?? '';
      const outcome = await open.callAsync(path, 0).then((fd) => {
        closeSync(fd);
        return 'opened';
      }, code);
      return `${path} ${outcome}`;
    }),
  );
  assert.deepEqual(new Set(outcomes), new Set(['/nonexistent ENOENT', '/etc/passwd/below ENOTDIR', '/ opened']));
});

test('errors of fs and of the FFI have the same names', async (t) => {
  const path = join(temporaryFolder(t), 'file');
  writeFileSync(path, 'x');
  const fd = openSync(path, 'r');
  t.after(() => closeSync(fd));
  await assert.rejects(seekData(fd, 100), (error) => code(error) === 'ENXIO');
  assert.equal(new SystemError(124, 'open').code, 'EMEDIUMTYPE');
  // What Node says of a number that libuv has no name for.
  const unnamed = Object.assign(new Error('Unknown system error -124'), {
    errno: -124,
    code: 'Unknown system error -124',
  });
  assert.equal(code(unnamed), 'EMEDIUMTYPE');
  assert.equal(errnoName(11), 'EAGAIN');
  assert.equal(errnoName(95), 'EOPNOTSUPP');
  assert.equal(errnoOf(new Error('no system error')), undefined);
});

test('a lock is had by one open file at a time, and freed by its close', (t) => {
  const path = join(temporaryFolder(t), 'lock');
  const first = openSync(path, 'w');
  const second = openSync(path, 'w');
  t.after(() => closeSync(second));
  assert.equal(tryLock(first), true);
  assert.equal(tryLock(second), false);
  closeSync(first);
  assert.equal(tryLock(second), true);
});

test('device numbers are split as the C library does it', () => {
  const { rdev } = statSync('/dev/null', { bigint: true });
  assert.deepEqual(deviceNumber(rdev), { major: 1, minor: 3 });
  // makedev(147, 300) and makedev(0x12345, 0x6789ab), as glibc computes them.
  assert.deepEqual(deviceNumber(0x10932cn), { major: 147, minor: 300 });
  assert.deepEqual(deviceNumber(0x12006789345abn), { major: 0x12345, minor: 0x6789ab });
});

test('the process ends at once with its code although a thread of the pool is stuck', (t) => {
  const folder = temporaryFolder(t);
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  // Opening a FIFO that nobody writes blocks its thread for ever.
  const script = `
    import { open } from 'node:fs';
    import { endProcess } from '${join(projectRoot, 'dist/src/linux/process.js')}';
    open(${JSON.stringify(fifo)}, 'r', () => {});
    setTimeout(() => endProcess(7), 100);`;
  const { status } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], { timeout: 10_000 });
  assert.equal(status, 7);
});

test('sending to a socket that takes no more is EAGAIN, to one that is closed an error, and never waits', async (t) => {
  const { sendNow } = await import('../../../src/linux/socket.js');
  const path = join(temporaryFolder(t), 'socket');
  const accepted = new Promise<Socket>((resolve) => {
    const server = createServer({ pauseOnConnect: true }, resolve).listen(path, () => void createConnection(path));
    t.after(() => void server.close());
  });
  const socket = await accepted;
  t.after(() => socket.destroy());
  const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
  const bytes = Buffer.alloc(64 * 1024);
  assert.throws(
    () => {
      for (;;) assert.ok(sendNow(fd, bytes) > 0);
    },
    (error) => code(error) === 'EAGAIN',
  );
});
