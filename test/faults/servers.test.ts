/** http-disk-servers that are killed, restarted and hung under load: what is read back is always right. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { NbdClient } from '../../demo/nbd-client.js';
import { CheckedLoad, type LoadOptions } from '../support/checked-load.js';
import { type Gateway, seededFile, serverInUse, startDiskServer, startGateway } from '../support/stack.js';
import { TcpProxy } from '../support/tcp-proxy.js';

const sizeBytes = 2 * 2 ** 20;

async function load(
  t: TestContext,
  gateway: Gateway,
  disk: string,
  options: Partial<LoadOptions> = {},
): Promise<CheckedLoad> {
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  return new CheckedLoad(client, readFileSync(disk), { sizeBytes, ...options });
}

async function assertStored(running: CheckedLoad, disk: string): Promise<void> {
  const expected = await running.finish();
  assert.ok(readFileSync(disk).equals(expected), 'the disk holds what was acknowledged');
}

/** In each mode, the same promise; in write-back mode, unflushed writes are written again to the next server. */
const modes = ['writethrough', 'writeback'] as const;

for (const mode of modes) {
  test(`kill -9 of the server in use, five times, each time with another one to go on with: ${mode}`, async (t) => {
    const disk = seededFile(t, 1, sizeBytes);
    const servers = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
    const urls = servers.map(({ url }) => url);
    const gateway = await startGateway(t, urls, ['--cache', mode]);
    const running = await load(t, gateway, disk);
    for (let round = 0; round < 5; round++) {
      await running.progress(200);
      const victim = serverInUse(gateway, servers);
      await victim.program.kill();
      await running.progress(200);
      servers[servers.indexOf(victim)] = await startDiskServer(t, disk, [], victim.port);
    }
    await assertStored(running, disk);
  });

  test(`kill -9 of the only server: requests wait, and go on when it is back: ${mode}`, async (t) => {
    const disk = seededFile(t, 2, sizeBytes);
    let server = await startDiskServer(t, disk);
    const gateway = await startGateway(t, [server.url], ['--cache', mode]);
    const running = await load(t, gateway, disk);
    for (let round = 0; round < 3; round++) {
      await running.progress(200);
      await server.program.kill();
      server = await startDiskServer(t, disk, [], server.port);
      await running.progress(200);
    }
    await assertStored(running, disk);
  });

  test(`a hung server is left, and what it does when it wakes up harms nothing: ${mode}`, async (t) => {
    const disk = seededFile(t, 4, sizeBytes);
    const servers = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
    const urls = servers.map(({ url }) => url);
    const times = ['--request-timeout', '500ms', '--io-timeout', '60s'];
    const gateway = await startGateway(t, urls, [...times, '--cache', mode]);
    const running = await load(t, gateway, disk);
    await running.progress(200);
    const hung = serverInUse(gateway, servers);
    hung.program.signal('SIGSTOP');
    await running.progress(500);
    assert.notEqual(serverInUse(gateway, servers), hung);
    hung.program.signal('SIGCONT');
    await running.progress(500);
    await assertStored(running, disk);
  });
}

test('an orderly restart of the only server under load', async (t) => {
  const disk = seededFile(t, 3, sizeBytes);
  let server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url]);
  const running = await load(t, gateway, disk);
  await running.progress(200);
  const stopped = server.program.stop();
  // The successor starts at once, as the storage manager does it, and waits for the port.
  server = await startDiskServer(t, disk, [], server.port);
  assert.deepEqual(await stopped, { code: 0, signal: null });
  await running.progress(200);
  await assertStored(running, disk);
});

test('no server for longer than --io-timeout: EIO; afterwards everything goes on', async (t) => {
  const disk = seededFile(t, 5, sizeBytes);
  let server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url], ['--request-timeout', '500ms', '--io-timeout', '1500ms']);
  const running = await load(t, gateway, disk, { errorsExpected: true });
  await running.progress(200);
  assert.equal(running.errors, 0);
  await server.program.kill();
  while (running.errors === 0) await running.progress(1);
  server = await startDiskServer(t, disk, [], server.port);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  // It answers again: whatever was waiting has been answered, one way or the other.
  await client.read(0, 4096);
  await running.progress(200);
  const { errors } = running;
  await running.progress(200);
  assert.equal(running.errors, errors, 'no error any more');
  await running.finish();
});

test('a black hole in the list costs its time-out once, and not at each request', async (t) => {
  const disk = seededFile(t, 6, sizeBytes);
  const server = await startDiskServer(t, disk);
  const hole = await TcpProxy.start(server.port);
  t.after(() => hole.close());
  hole.change({ toServer: { held: true }, toClient: { held: true } });
  const gateway = await startGateway(t, [hole.url, server.url], ['--request-timeout', '500ms']);
  const running = await load(t, gateway, disk);
  await running.progress(1000);
  assert.ok(hole.connections <= 4, `${hole.connections} connections to the black hole for 1000 requests`);
  await assertStored(running, disk);
});

test('a server with a smaller disk is never used, whatever happens to the others', async (t) => {
  const disk = seededFile(t, 7, sizeBytes);
  const small = await startDiskServer(t, seededFile(t, 8, sizeBytes / 2));
  let server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url, small.url], ['--request-timeout', '500ms']);
  const running = await load(t, gateway, disk);
  await running.progress(200);
  await server.program.kill();
  await gateway.program.line('stdout', /small|bytes/i);
  server = await startDiskServer(t, disk, [], server.port);
  await running.progress(200);
  assert.ok(!gateway.program.stdout.includes(`Selected server: \`${small.url}`));
  await assertStored(running, disk);
});

test('kill -9 of nbd-server loses nothing that was acknowledged', async (t) => {
  const disk = seededFile(t, 9, sizeBytes);
  const server = await startDiskServer(t, disk);
  const gateway = await startGateway(t, [server.url]);
  const client = await NbdClient.connect(gateway.socketPath);
  const acknowledged = Buffer.from(readFileSync(disk));
  // Whatever was on its way at the kill may have happened or not; it goes to a half of its own.
  for (let offset = 0; offset < sizeBytes / 2; offset += 65_536) {
    const bytes = Buffer.alloc(65_536, offset / 65_536 + 1);
    await client.write(offset, bytes);
    bytes.copy(acknowledged, offset);
  }
  const lost = client.write(sizeBytes - 65_536, Buffer.alloc(65_536, 0xff)).catch(() => undefined);
  await gateway.program.kill();
  await lost;
  const half = sizeBytes / 2;
  assert.ok(readFileSync(disk).subarray(0, half).equals(acknowledged.subarray(0, half)));
  const second = await startGateway(t, [server.url]);
  const again = await NbdClient.connect(second.socketPath);
  t.after(() => again.close());
  assert.ok((await again.read(0, half)).equals(acknowledged.subarray(0, half)));
});
