/** http-disk-server on a DRBD device: waiting for it, serving it, losing it, giving it back. */
import assert from 'node:assert/strict';
import { constants, openSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { type CaseContext, machineCase } from './cases.js';
import { answersSoon, type Peer, Peers, until } from './drbd-peers.js';
import { probe, read, write } from './http.js';
import { mebibyte, type Server, startServer } from './volume.js';

const EROFS = 30;
const EMEDIUMTYPE = 124;

function times(server: Server, text: string): number {
  return server.program.output.split('\n').filter((line) => line.includes(text)).length;
}

/** From `startMs` to the `count`th time that the disk is open, as the log tells, and then serves. */
async function served(context: CaseContext, server: Server, startMs: number, count = 1): Promise<void> {
  await server.program.nth(/Disk open!\n/, count);
  context.note(`served ${Math.round(performance.now() - startMs)} ms after \`primary\``);
  assert.equal((await read(server.url, 0)).status, 206);
}

/** SIGTERM to `server` on `from`; whoever manages the storage makes `to` Primary as soon as DRBD lets it. Returns when that was. */
async function giveBack(context: CaseContext, server: Server, from: Peer, to: Peer): Promise<number> {
  const startMs = performance.now();
  const ended = server.program.stop();
  await from.demote();
  const demotedMs = performance.now();
  await to.primary();
  const promotedMs = performance.now();
  const ms = (endMs: number) => Math.round(endMs - startMs);
  context.note(`SIGTERM to \`secondary\`: ${ms(demotedMs)} ms, to the peer's \`primary\`: ${ms(promotedMs)} ms`);
  assert.equal(await ended, 0);
  return promotedMs;
}

machineCase(
  'DRBD: a Secondary is not openable: the server says why, once, and serves it when it is Primary',
  async (context) => {
    const { a, b } = await Peers.start(context);
    for (const [flags, errno] of [
      [constants.O_RDWR, EROFS],
      [constants.O_RDONLY, EMEDIUMTYPE],
    ] as const) {
      assert.throws(() => openSync(a.device, flags), { errno: -errno });
    }
    await b.primary();
    assert.equal(await a.roles(), 'Secondary/Primary');
    const startMs = performance.now();
    const server = await startServer(context, a.byResource);
    context.note(`ready after ${Math.round(performance.now() - startMs)} ms`);
    const cannotOpen = `Cannot open device \`${a.byResource}\`: `;
    assert.match(server.program.output, /\[drbd1\] .*`the peer is Primary of the DRBD resource`\.\n/);
    const refused = await read(server.url, 0);
    assert.equal(refused.status, 503);
    assert.match(refused.text, /the peer is Primary/);

    await b.secondary();
    await server.program.line(/Read-only file system \(the DRBD device is Secondary\)/);
    assert.match((await read(server.url, 0)).text, /the DRBD device is Secondary/);
    const readOnly = await startServer(context, 'by-res/volume-a/0', {
      args: ['--read-only'],
      environment: { PWD: '/dev/drbd' },
    });
    assert.match(readOnly.program.output, /Wrong medium type \(the DRBD device is Secondary\)/);

    const promotedMs = performance.now();
    await a.primary();
    await served(context, server, promotedMs);
    await served(context, readOnly, promotedMs);
    assert.deepEqual([times(server, cannotOpen), times(server, 'Server ready!')], [2, 1]);
    assert.equal((await write(server.url, 0, 'first')).status, 200);
    assert.equal((await write(readOnly.url, 0, 'second')).status, 403);

    await assert.rejects(a.secondary(), /held open/);
    assert.match((await read(server.url, 0)).text, /^first/);
    assert.equal(await readOnly.program.stop(), 0);
    const other = await startServer(context, b.device);
    await served(context, other, await giveBack(context, server, a, b));
    assert.match((await read(other.url, 0)).text, /^first/);
  },
  600_000,
);

machineCase(
  'DRBD: a lost disk is closed and waited for; one that the peer still has is not lost',
  async (context) => {
    const peers = await Peers.start(context);
    const { a, b } = peers;
    await a.primary();
    const server = await startServer(context, a.device);
    await a.failDisk();
    assert.equal((await write(server.url, 0, 'through the peer')).status, 200);
    await until('the failed disk is given up', async () => (await a.diskState()) === 'Diskless/UpToDate');
    assert.equal((await read(server.url, 1 * mebibyte)).status, 206);
    assert.equal(times(server, 'Disk lost'), 0);

    await peers.cutLink();
    const answer = await read(server.url, 2 * mebibyte);
    assert.equal(answer.status, 503, answer.text);
    await server.program.line(/Disk lost: `read: EIO`/);
    await server.program.line(/Input\/output error \(the DRBD device reaches no copy of the data\)/);
    assert.match((await read(server.url, 0)).text, /reaches no copy/);
    await a.demote();
    await server.program.line(/the DRBD device is Secondary/);
    await b.primary();
    const other = await startServer(context, b.device);
    assert.match((await read(other.url, 0)).text, /^through the peer/);
    assert.equal((await write(other.url, 0, 'meanwhile')).status, 200);

    await peers.attachAgain(a);
    await peers.mendLink();
    await peers.inSync();
    await served(context, server, await giveBack(context, other, b, a), 2);
    assert.match((await read(server.url, 0)).text, /^meanwhile/);
    assert.equal(await server.program.stop(), 0);
    await peers.compare();
  },
  600_000,
);

/** While I/O of what `server` serves is suspended: the answers to requests that the kernel keeps. Notes when the last came. */
async function askSuspended(context: CaseContext, server: Server, offset: number): Promise<void> {
  const answers = await answersSoon(context, [write(server.url, 4096, 'stuck'), read(server.url, offset)]);
  assert.deepEqual(
    answers.map(({ status }) => status),
    [500, 503],
  );
  for (const { text } of answers) assert.match(text, /DRBD has suspended the I\/O/);
}

function hasOpen({ program }: Server, path: string): boolean {
  const folder = `/proc/${program.child.pid}/fd`;
  return readdirSync(folder).some((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`) === path;
    } catch {
      return false; // closed meanwhile
    }
  });
}

/** What the kernel keeps is meant to wait there: it is not to be reported. */
function allowHungTasks(context: CaseContext): void {
  const patience = '/proc/sys/kernel/hung_task_timeout_secs';
  const patienceS = readFileSync(patience, 'latin1');
  writeFileSync(patience, '0');
  context.after(() => writeFileSync(patience, patienceS));
}

machineCase(
  'DRBD: suspended I/O: the disk is lost at once and waited for, HEAD alone tells of it, and SIGTERM ends the server as far as the kernel allows',
  async (context) => {
    const peers = await Peers.start(context, 'resource-and-stonith');
    const { a } = peers;
    await a.primary();
    const server = await startServer(context, a.device);
    context.after(peers.release);
    assert.equal((await write(server.url, 0, 'before')).status, 200);
    await peers.cutLink();
    allowHungTasks(context);
    assert.match((await read(server.url, 0)).text, /^before/, 'cached, and nothing is in the kernel yet');
    await askSuspended(context, server, 4 * mebibyte);
    await server.program.line(/Disk lost: `DRBD has suspended the I\/O`/);
    const refusedMs = performance.now();
    const refused = await Promise.all([probe(server.url), read(server.url, 0), write(server.url, 0, 'refused')]);
    context.note(`HEAD and others are refused within ${Math.round(performance.now() - refusedMs)} ms`);
    assert.deepEqual(
      refused.map(({ status }) => status),
      [503, 503, 503],
    );
    assert.match(refused[1].text, /DRBD has suspended the I\/O/);

    const late = await startServer(context, a.device);
    context.after(peers.release);
    assert.match(late.program.output, /Cannot open device .*`DRBD has suspended the I\/O`/);
    assert.match((await read(late.url, 0)).text, /DRBD has suspended the I\/O/);
    assert.equal(await late.program.stop(), 0, 'nothing of it is in the kernel');

    const mendedMs = performance.now();
    await peers.mendLink();
    await server.program.nth(/Disk open!\n/, 2);
    context.note(`served ${Math.round(performance.now() - mendedMs)} ms after the link was mended`);
    assert.match((await read(server.url, 4096)).text, /^stuck/, 'it was applied, which nobody could know');
    assert.match((await read(server.url, 0)).text, /^before/);
    assert.equal((await write(server.url, 4096, 'after')).status, 200);
    assert.equal(times(server, 'Disk lost'), 1);

    await peers.inSync();
    await peers.cutLink();
    const headMs = performance.now();
    await until('HEAD tells of it', async () => (await probe(server.url)).status === 503);
    context.note(`HEAD is refused after ${Math.round(performance.now() - headMs)} ms, with nothing in the kernel`);
    await until('the device is closed', async () => !hasOpen(server, a.device));
    await peers.mendLink();
    await server.program.nth(/Disk open!\n/, 3);

    await peers.inSync();
    await peers.cutLink();
    await askSuspended(context, server, 8 * mebibyte);
    const stopMs = performance.now();
    const ended = server.program.stop();
    await server.program.line(/The disk has not come back from 2 operations/);
    context.note(`stopped ${Math.round(performance.now() - stopMs)} ms after SIGTERM`);
    assert.ok(server.program.isRunning, 'the kernel keeps it as long as its threads are stuck');
    await peers.mendLink();
    assert.equal(await ended, 0);
    await peers.inSync();
    await a.secondary();
    await peers.compare();
  },
  600_000,
);
