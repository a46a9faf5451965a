/**
 * Hosts that really crash: http-disk-server runs in virtual machines, the load goes through nbd-server in write-back mode, the machines
 * are killed, and what was in their page caches is gone. Every byte is checked.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { NbdClient } from '../../demo/nbd-client.js';
import { freePort, temporaryFolder } from '../support/processes.js';
import { RecordedLoad } from '../support/recorded-load.js';
import { blockBytes } from '../support/stamped-block.js';
import { type Gateway, startGateway } from '../support/stack.js';
import { DiskMachine } from './disk-machine.js';

const blocks = 512;
const timeLimitMs = 1_200_000;
/** The machines are many times slower than real ones. */
const answerWaitMs = 300_000;
const gatewayOptions = [
  ...['--cache', 'writeback', '--cache-size', '4M', '--device-size', String(blocks * blockBytes)],
  ...['--request-timeout', '5s', '--io-timeout', '10m'],
];

function emptyImage(t: TestContext): string {
  const path = join(temporaryFolder(t), 'disk.img');
  writeFileSync(path, Buffer.alloc(blocks * blockBytes));
  return path;
}

async function machineWith(
  t: TestContext,
  image: string,
  shared: boolean,
  options: readonly string[],
): Promise<DiskMachine> {
  const machine = new DiskMachine(await freePort(), { path: image, shared }, options);
  t.after(() => machine.kill());
  await machine.boot();
  return machine;
}

async function loadOn(t: TestContext, gateway: Gateway): Promise<RecordedLoad> {
  const clients = await Promise.all([1, 2].map(() => NbdClient.connect(gateway.socketPath)));
  for (const client of clients) t.after(() => client.close());
  const load = new RecordedLoad(clients, {
    ...{ blocks, workers: 6, pauseMsMax: 5, answerWaitMs },
    durableWhenAnswered: false,
  });
  t.after(() => load.expectLoss());
  return load;
}

/** Kills the machine in the middle of the load. Resolves with how many blocks of the image are older than what was acknowledged. */
async function crash(t: TestContext, machine: DiskMachine, image: string, load: RecordedLoad): Promise<number> {
  const atMs = await machine.kill();
  const remains = readFileSync(image);
  load.judgeRemains(remains, atMs);
  const lost = load.countLost(remains, atMs);
  t.diagnostic(
    `crash after ${load.answered} requests: ${lost} blocks of the image are older than what was acknowledged`,
  );
  return lost;
}

/** Every block, through the gateway. */
async function check(load: RecordedLoad): Promise<void> {
  await load.stop();
  await load.readBack();
  load.judge();
  load.forget();
}

/** A host that kept what it reads in its page cache would go on with that when its turn comes. */
async function readEverything({ url }: DiskMachine): Promise<void> {
  const response = await fetch(url, { headers: { connection: 'close' } });
  assert.equal((await response.arrayBuffer()).byteLength, blocks * blockBytes);
}

/** Every byte of the image itself, after a flush and a last crash. */
async function checkImage(load: RecordedLoad, machine: DiskMachine, image: string): Promise<void> {
  load.start();
  await load.progress(100);
  await load.stop();
  await load.flush();
  await machine.kill();
  load.found(readFileSync(image));
  load.judge();
}

test('a host that crashes under load and comes back: every block holds what was acknowledged', {
  timeout: timeLimitMs,
}, async (t) => {
  const image = emptyImage(t);
  const machine = await machineWith(t, image, false, []);
  await machine.ready();
  const gateway = await startGateway(t, [machine.url], gatewayOptions);
  const load = await loadOn(t, gateway);
  load.start();
  await load.progress(300);
  await crash(t, machine, image, load);
  await machine.boot();
  await machine.ready();
  await load.progress(100);
  await check(load);

  load.start();
  await load.progress(300);
  load.withholdSyncs();
  await load.progress(50);
  const lost = await crash(t, machine, image, load);
  assert.ok(lost > 0, 'the page cache of the machine was lost: there was something to replay');
  await machine.boot();
  await machine.ready();
  await load.progress(100);
  await check(load);
  assert.match(gateway.program.stdout, /Writing [1-9]\d* writes that are not durable/);
  await checkImage(load, machine, image);
});

test('two hosts on one shared image: each crashes in its turn, and the other one goes on with what was acknowledged', {
  timeout: timeLimitMs,
}, async (t) => {
  const image = emptyImage(t);
  const machines = [
    await machineWith(t, image, true, ['--direct']),
    await machineWith(t, image, true, ['--direct']),
  ] as const;
  await Promise.all(machines.map((machine) => machine.ready()));
  const gateway = await startGateway(
    t,
    machines.map(({ url }) => url),
    gatewayOptions,
  );
  const load = await loadOn(t, gateway);
  for (let round = 0; round < 2; round++) {
    load.start();
    await load.progress(100);
    // Slow as the machines are, the gateway may have changed on its own.
    await readEverything(other(machines, inUse(gateway, machines)));
    await load.progress(200);
    const victim = inUse(gateway, machines);
    await crash(t, victim, image, load);
    await load.progress(50);
    assert.notEqual(inUse(gateway, machines), victim);
    if (round === 0) await victim.boot();
    await check(load);
    if (round === 0) await victim.ready();
  }
  await checkImage(load, inUse(gateway, machines), image);
});

type Pair = readonly [DiskMachine, DiskMachine];

/** The machine that the gateway said last that it uses. */
function inUse(gateway: Gateway, machines: Pair): DiskMachine {
  const selected = gateway.program.lines('stdout').findLast((line) => line.includes('Selected server: '));
  const machine = machines.find(({ url }) => selected?.includes(url));
  assert.ok(machine !== undefined, gateway.program.report());
  return machine;
}

function other(machines: Pair, machine: DiskMachine): DiskMachine {
  return machine === machines[0] ? machines[1] : machines[0];
}
