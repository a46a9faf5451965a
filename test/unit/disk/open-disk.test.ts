import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Channel } from '../../../src/base/channel.js';
import { Failure } from '../../../src/base/failure.js';
import { type DiskEvent, isFatalAtStart, openDisk } from '../../../src/disk/open-disk.js';
import { mountTmpfs, noMounts } from '../../support/block-devices.js';
import { temporaryFolder } from '../../support/processes.js';

const plain = { readOnly: false, direct: false };

async function failureOf(path: string): Promise<{ code: string; message: string; fatal: boolean }> {
  try {
    const disk = await openDisk(path, plain);
    await disk.close();
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
    return { code: error.code, message: error.message, fatal: isFatalAtStart(error) };
  }
  return assert.fail(`${path} was opened`);
}

test('what is no disk is refused for good, with a reason', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'file');
  writeFileSync(file, 'x');
  execFileSync('mkfifo', [join(folder, 'fifo')]);
  symlinkSync(join(folder, 'loop'), join(folder, 'loop'));
  const cases: [string, string, string][] = [
    [folder, 'invalid-request', 'Is a folder'],
    [join(folder, 'fifo'), 'invalid-request', 'Neither a regular file nor a block device'],
    ['/dev/null', 'invalid-request', 'Neither a regular file nor a block device'],
    [join(folder, 'missing'), 'not-found', 'No such file or directory'],
    [join(file, 'below'), 'not-found', 'Not a directory'],
    [join(folder, 'loop'), 'not-found', 'Too many levels of symbolic links'],
    [join(folder, 'n'.repeat(300)), 'invalid-request', 'File name too long'],
  ];
  for (const [path, code, message] of cases) {
    assert.deepEqual(await failureOf(path), { code, message, fatal: true }, path);
  }
});

test('a device that is not there yet is waited for, also behind a symbolic link', async (t) => {
  const folder = temporaryFolder(t);
  symlinkSync('/dev/not/there/0', join(folder, 'far'));
  symlinkSync('far', join(folder, 'near'));
  for (const path of ['/dev/not-there-yet', '/dev/not/there/0', join(folder, 'far'), join(folder, 'near')]) {
    assert.deepEqual(await failureOf(path), { code: 'unavailable', message: 'No such device yet', fatal: false }, path);
  }
  symlinkSync('nowhere', join(folder, 'broken'));
  assert.equal((await failureOf(join(folder, 'broken'))).code, 'not-found');
});

test('a file that cannot be written is opened read-only, and says so', { skip: noMounts }, async (t) => {
  const folder = mountTmpfs(t, 1024 * 1024);
  const path = join(folder, 'disk');
  writeFileSync(path, 'content');
  execFileSync('mount', ['-o', 'remount,ro', folder]);
  const events = new Channel<DiskEvent>();
  const seen: DiskEvent[] = [];
  events.subscribe((event) => seen.push(event));
  const disk = await openDisk(path, { ...plain, events });
  t.after(() => disk.close());
  assert.equal(disk.readOnly, true);
  assert.deepEqual(seen, [{ is: 'opened-read-only', reason: 'EROFS' }]);
  const into = Buffer.alloc(7);
  await disk.read(0, into);
  assert.equal(String(into), 'content');
});

test('a refused disk leaves no descriptor open', async (t) => {
  const path = join(temporaryFolder(t, '/dev/shm'), 'disk');
  writeFileSync(path, '');
  execFileSync('truncate', ['--size', String(2n ** 53n), path]);
  await failureOf(path);
  const before = readdirSync('/proc/self/fd').length;
  await failureOf(path);
  await failureOf(path);
  assert.equal(readdirSync('/proc/self/fd').length, before);
});
