/** The ways in which hosts are named: IPv4, IPv6, names, and IPv6 without brackets as the storage manager joins it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { NbdClient } from '../../demo/nbd-client.js';
import { freePort, startProgram } from '../support/processes.js';
import { accepts, type Gateway, seededFile, startGateway, untilListening } from '../support/stack.js';

const sizeBytes = 2 ** 20;

async function startOn(t: TestContext, address: string | undefined): Promise<{ disk: string; port: number }> {
  const disk = seededFile(t, 1, sizeBytes);
  const port = await freePort();
  const where = address === undefined ? [] : ['--ip', address];
  const program = startProgram(t, 'http-disk-server', ['--disk', disk, ...where, '--port', String(port)]);
  await program.line('stderr', /Server ready!$/);
  await untilListening({ host: address ?? '127.0.0.1', port }, program);
  return { disk, port };
}

async function assertReads(t: TestContext, gateway: Gateway, disk: string): Promise<void> {
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  assert.ok((await client.read(0, 4096)).equals(readFileSync(disk).subarray(0, 4096)));
}

test('IPv6, with brackets', async (t) => {
  const { disk, port } = await startOn(t, '::1');
  await assertReads(t, await startGateway(t, [`http://[::1]:${port}`]), disk);
});

test('IPv6 without brackets is read as the storage manager means it, with one warning', async (t) => {
  const { disk, port } = await startOn(t, '::1');
  const gateway = await startGateway(t, [`http://::1:${port}`]);
  await assertReads(t, gateway, disk);
  const warnings = gateway.program.lines('stdout').filter((line) => /warning/i.test(line) && line.includes('::1'));
  assert.equal(warnings.length, 1, gateway.program.stdout);
});

test('a name', async (t) => {
  const { disk, port } = await startOn(t, '127.0.0.1');
  await assertReads(t, await startGateway(t, [`http://localhost:${port}`]), disk);
});

test('without --ip, http-disk-server listens on all addresses, IPv4 and IPv6', async (t) => {
  const { port } = await startOn(t, undefined);
  assert.ok(await accepts({ host: '127.0.0.1', port }));
  assert.ok(await accepts({ host: '::1', port }));
});

test('a name that does not resolve is said so, and the next server is used', async (t) => {
  const { disk, port } = await startOn(t, '127.0.0.1');
  const gateway = await startGateway(t, ['http://no-such-host.invalid:8000', `http://127.0.0.1:${port}`]);
  await assertReads(t, gateway, disk);
  assert.match(gateway.program.stdout, /Cannot use server `http:\/\/no-such-host\.invalid:8000`/);
});
