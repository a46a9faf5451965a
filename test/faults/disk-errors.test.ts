/**
 * Errors of the disk behind http-disk-server reach the client of nbd-server as what they are, at once, though another server is there; and
 * a sync that failed is never covered up by a later one. strace makes the system calls of a real server fail.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { NbdClient } from '../../demo/nbd-client.js';
import { freePort, projectRoot, startCommand, temporaryFolder } from '../support/processes.js';
import { type Gateway, seededFile, startDiskServer, startGateway } from '../support/stack.js';
import { needs } from '../support/tools.js';
import { blockBytes, readStamp, stampBlock } from '../support/stamped-block.js';

const sizeBytes = 64 * blockBytes;

interface Setting {
  readonly disk: string;
  readonly gateway: Gateway;
  readonly client: NbdClient;
  /** The calls so far that change the disk or sync it. */
  readonly calls: () => Call[];
}

interface Call {
  readonly is: 'write' | 'sync';
  readonly failed: boolean;
}

/** `failing`: what strace lets fail in the server that is used. `others`: after it in the gateway's list, on the same file, healthy. */
async function setUp(
  t: TestContext,
  failing: string,
  others: number,
  options: readonly string[] = [],
): Promise<Setting> {
  const disk = seededFile(t, 1, sizeBytes);
  const port = await freePort();
  const trace = join(temporaryFolder(t), 'trace');
  const strace = ['--follow-forks', '--output', trace, '--trace', 'pwrite64,io_submit,fdatasync', '--inject', failing];
  const server = ['bin/http-disk-server', '--disk', disk, '--ip', '127.0.0.1', '--port', String(port)];
  const program = startCommand(t, 'strace', [...strace, process.execPath, ...server], {
    ...{ cwd: projectRoot, ownGroup: true },
  });
  await program.line('stderr', /Server ready!$/);
  const urls = [`http://127.0.0.1:${port}`];
  for (let count = 0; count < others; count++) urls.push((await startDiskServer(t, disk)).url);
  const gateway = await startGateway(t, urls, options);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  return { disk, gateway, client, calls: () => callsIn(readFileSync(trace, 'utf8')) };
}

function callsIn(trace: string): Call[] {
  return trace.split('\n').flatMap((line): Call[] => {
    const call = /(pwrite64|io_submit|fdatasync).*= (-?)\d/.exec(line);
    return call === null ? [] : [{ is: call[1] === 'fdatasync' ? 'sync' : 'write', failed: call[2] === '-' }];
  });
}

function blockOf(disk: string, block: number): Buffer {
  return readFileSync(disk).subarray(block * blockBytes, (block + 1) * blockBytes);
}

const told = (errno: number) => ({ message: new RegExp(`errno ${errno}$`) });

const cases = [
  ['EIO', constants.errno.EIO],
  ['ENOSPC', constants.errno.ENOSPC],
  // NBD has no EROFS.
  ['EROFS', constants.errno.EPERM],
] as const;

for (const [errno, expected] of cases) {
  test(`a write that fails with ${errno} is told so, and tried nowhere again`, async (t) => {
    if (!needs(t, 'strace', 'strace')) return;
    const { disk, gateway, client, calls } = await setUp(t, `pwrite64:error=${errno}`, 1);
    const before = blockOf(disk, 3);
    for (let attempts = 1; attempts <= 2; attempts++) {
      await assert.rejects(client.write(3 * blockBytes, stampBlock(3, 1)), told(expected));
      assert.deepEqual(calls(), new Array<Call>(attempts).fill({ is: 'write', failed: true }));
    }
    assert.ok(blockOf(disk, 3).equals(before), 'nobody has written it');
    assert.ok((await client.read(3 * blockBytes, blockBytes)).equals(before), 'reads go on');
    assert.equal(gateway.program.lines('stdout').filter((line) => line.includes('Selected server: ')).length, 1);
  });
}

/** strace counts for each thread: the first sync of each fails. */
const firstSyncs = 'fdatasync:error=EIO:when=1';
const attemptsMax = 100;

/** Until `attempt` is answered well; otherwise it must be EIO. Resolves with how often it was. */
async function untilItSucceeds(attempt: () => Promise<void>): Promise<number> {
  for (let failures = 0; failures < attemptsMax; failures++) {
    try {
      await attempt();
      return failures;
    } catch (error) {
      assert.match(String(error), told(constants.errno.EIO).message);
    }
  }
  throw new Error(`not answered well in ${attemptsMax} attempts`);
}

test('write-through: a write whose sync fails is told so; one that is answered well was written after the last failure', async (t) => {
  if (!needs(t, 'strace', 'strace')) return;
  const { disk, client, calls } = await setUp(t, firstSyncs, 0);
  let value = 0;
  const failures = await untilItSucceeds(() => client.write(0, stampBlock(0, ++value)));
  assert.ok(failures > 0, 'a sync has failed');
  assert.equal(readStamp(blockOf(disk, 0), 0), value);
  const afterLastFailure = calls().slice(calls().findLastIndex(({ failed }) => failed) + 1);
  assert.deepEqual(
    afterLastFailure.map(({ is }) => is),
    ['write', 'sync'],
  );
});

test('write-back: after a sync that failed, all that it was to save is written again before a flush succeeds', async (t) => {
  if (!needs(t, 'strace', 'strace')) return;
  const { client, calls, gateway } = await setUp(t, firstSyncs, 0, ['--cache', 'writeback']);
  for (const block of [0, 1]) await client.write(block * blockBytes, stampBlock(block, 1));
  await untilItSucceeds(() => client.flush());
  const afterLastFailure = calls().slice(calls().findLastIndex(({ failed }) => failed) + 1);
  assert.notEqual(afterLastFailure.length, calls().length, 'a sync has failed');
  assert.ok(afterLastFailure.some(({ is }) => is === 'write'));
  assert.equal(afterLastFailure.at(-1)?.is, 'sync');
  assert.match(gateway.program.stdout, /Writing 2 writes that are not durable/);
});
