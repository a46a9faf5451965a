/**
 * Writes that come too late: they were on their way to a server that hung, or to a network that held them back, when they
 * were given up; newer writes to the same bytes were acknowledged; then the old ones arrive. The file holds the newer bytes.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NbdClient } from '../../demo/nbd-client.js';
import { temporaryFolder } from '../support/processes.js';
import { type DiskServer, type Gateway, serverInUse, startDiskServer, startGateway } from '../support/stack.js';
import { SteadyWrites } from '../support/steady-writes.js';
import { blockBytes, readStamp, stampBlock } from '../support/stamped-block.js';
import { connectionsTo } from '../support/tcp-table.js';
import { TcpProxy } from '../support/tcp-proxy.js';

const blocks = 16;
const modes = ['writethrough', 'writeback'] as const;
const waitMs = 30_000;
const farDeadline = ['--request-timeout', '40s', '--io-timeout', '90s'];

interface Setting {
  readonly disk: string;
  readonly first: DiskServer;
  /** On the same file. */
  readonly second: DiskServer;
}

async function setUp(t: TestContext): Promise<Setting> {
  const disk = join(temporaryFolder(t), 'disk.img');
  writeFileSync(disk, Buffer.alloc(blocks * blockBytes));
  return { disk, first: await startDiskServer(t, disk), second: await startDiskServer(t, disk) };
}

interface Connected {
  readonly gateway: Gateway;
  readonly client: NbdClient;
}

async function connectTo(t: TestContext, urls: readonly string[], options: readonly string[]): Promise<Connected> {
  const gateway = await startGateway(t, urls, options);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  return { gateway, client };
}

/** `value` to every block, each with a write of its own, all at once. */
async function writeAll(client: NbdClient, value: number): Promise<void> {
  const writes = Array.from({ length: blocks }, (_, block) =>
    client.write(block * blockBytes, stampBlock(block, value)),
  );
  await Promise.all(writes);
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + waitMs;
  while (!condition()) {
    assert.ok(performance.now() < deadlineMs, `not after ${waitMs / 1000} s: ${what}`);
    await delay(10);
  }
}

function unreadBytes(port: number): number {
  return connectionsTo(port).reduce((sum, connection) => sum + connection.unreadBytes, 0);
}

/** The server has read what was sent to it before its connections ended, and done what it wanted to. */
async function untilDigested({ port, program }: DiskServer): Promise<void> {
  await until('the server has closed its connections', () => connectionsTo(port).length === 0);
  assert.deepEqual(await program.stop(), { code: 0, signal: null });
}

/** Sends `bytes` on a connection of their own. Resolves with everything that comes back. */
function exchange(port: number, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port });
    let answers = '';
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      answers += text;
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(answers));
    socket.end(bytes);
  });
}

function assertValue(disk: string, value: number): void {
  const bytes = readFileSync(disk);
  const values = Array.from({ length: blocks }, (_, block) =>
    readStamp(bytes.subarray(block * blockBytes, (block + 1) * blockBytes), block),
  );
  assert.deepEqual(values, new Array(blocks).fill(value));
}

/** Each costs about three seconds. Without rule S8 four of ten leave a ghost. */
const stops = 6;

for (const mode of modes) {
  test(`${mode}: SIGSTOP at any moment of a busy server, a failover, newer writes, SIGCONT`, async (t) => {
    const { disk, first, second } = await setUp(t);
    const servers = [first, second];
    const urls = servers.map(({ url }) => url);
    const { gateway, client } = await connectTo(t, urls, ['--cache', mode, '--request-timeout', '1s']);
    const writes = new SteadyWrites(client, blocks);
    let ended = 0;
    for (let stop = 0; stop < stops; stop++) {
      writes.start();
      await writes.progress(randomInt(20, 2000));
      const stopped = serverInUse(gateway, servers);
      await delay(randomInt(3));
      stopped.program.signal('SIGSTOP');
      // The writes on their way end only at the other server.
      await writes.everywhere(2);
      await writes.stop();
      stopped.program.signal('SIGCONT');
      const exit = await stopped.program.stop();
      if (exit.signal === 'SIGKILL') ended++;
      assert.deepEqual(writes.differences(readFileSync(disk)), [], `after ${stop} stops that left nothing`);
      servers[servers.indexOf(stopped)] = await startDiskServer(t, disk, [], stopped.port);
    }
    t.diagnostic(`${ended} of ${stops} servers were ended by the kernel`);
  });

  test(`${mode}: writes that a hung server has not read, when it goes on after a failover and newer writes`, async (t) => {
    const { disk, first, second } = await setUp(t);
    const { client } = await connectTo(t, [first.url, second.url], ['--cache', mode]);
    // No write before the stop: then none is on its way, and the kernel does not end the server (rule S8).
    await client.read(0, blocks * blockBytes);
    first.program.signal('SIGSTOP');
    const older = writeAll(client, 2);
    await until('the hung server has the writes', () => unreadBytes(first.port) > blocks * blockBytes);
    await older;
    await writeAll(client, 3);
    await client.flush();
    assert.ok(unreadBytes(first.port) > blocks * blockBytes, 'the older writes wait still');
    first.program.signal('SIGCONT');
    await untilDigested(first);
    assertValue(disk, 3);
  });

  test(`${mode}: writes that a proxy delivers 10 s later, after a failover and newer writes`, async (t) => {
    const { disk, first, second } = await setUp(t);
    const proxy = await TcpProxy.start(first.port);
    t.after(() => proxy.close());
    const { client } = await connectTo(t, [proxy.url, second.url], ['--cache', mode]);
    await writeAll(client, 1);
    proxy.change({ toServer: { held: true } });
    const held = delay(10_000);
    await writeAll(client, 2);
    await writeAll(client, 3);
    await client.flush();
    await held;
    assert.ok(proxy.heldBytes > blocks * blockBytes, 'the older writes wait still');
    proxy.change({});
    await untilDigested(first);
    assertValue(disk, 3);
  });

  test(`${mode}: writes that a proxy delivers in time, when they have been sent again and newer ones followed`, async (t) => {
    const { disk, first } = await setUp(t);
    const ways = [await TcpProxy.start(first.port), await TcpProxy.start(first.port)] as const;
    for (const way of ways) t.after(() => way.close());
    const urls = ways.map(({ url }) => url);
    // Their deadline is far: it is the epoch that they are refused for.
    const { gateway, client } = await connectTo(t, urls, ['--cache', mode, ...farDeadline]);
    await writeAll(client, 1);
    const [way] = ways;
    way.change({ toServer: { held: true } });
    const older = writeAll(client, 2);
    await until('the proxy has the writes', () => way.heldBytes > blocks * blockBytes);
    way.cutClients();
    await older;
    await writeAll(client, 3);
    await client.flush();
    assert.ok(way.heldBytes > blocks * blockBytes, 'the older writes wait still');
    way.change({});
    await gateway.program.stop();
    await untilDigested(first);
    assertValue(disk, 3);
  });

  test(`${mode}: writes that reach the successor of the server that they were meant for`, async (t) => {
    const { disk, first } = await setUp(t);
    const proxy = await TcpProxy.start(first.port);
    t.after(() => proxy.close());
    const { client } = await connectTo(t, [proxy.url], ['--cache', mode, ...farDeadline]);
    await writeAll(client, 1);
    const sent: Buffer[] = [];
    const keep = (piece: Buffer) => {
      sent.push(Buffer.from(piece));
      return piece;
    };
    proxy.change({ toServer: { corrupt: keep } });
    // One at a time, so that what is kept is a row of whole requests.
    for (let block = 0; block < blocks; block++) await client.write(block * blockBytes, stampBlock(block, 2));
    proxy.change({});
    await first.program.kill();
    const successor = await startDiskServer(t, disk, [], first.port);
    // Another gateway: this one would notice that the server is not the same any more, whatever the server does.
    const { client: other } = await connectTo(t, [successor.url], ['--cache', mode]);
    await writeAll(other, 3);
    await other.flush();
    const answers = await exchange(successor.port, Buffer.concat(sent));
    assert.equal(answers.match(/^HTTP\/1\.1 412 /gm)?.length, blocks, answers);
    assertValue(disk, 3);
  });
}
