/**
 * What drbdsetup says, and what it does not. The kernel's own DRBD is 8.4, so the answers of DRBD 9 come from a stand-in; the
 * device is real, Primary, and could be opened all the time.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { answersSoon, Peers, until } from './drbd-peers.js';
import { probe, read } from './http.js';
import { mebibyte, startServer, temporaryFolder } from './volume.js';

const real = '/usr/sbin/drbdsetup';

/** As drbdsetup 9.2 prints it. `fields` of the resource instead of the usual ones. */
function status(connections: readonly unknown[], fields: Record<string, unknown> = {}): string {
  const device = {
    ...{ volume: 0, minor: 1, 'disk-state': 'UpToDate', client: false, open: false, quorum: true },
    ...{ size: 49_116, read: 0, written: 0, 'al-writes': 0, 'bm-writes': 0, 'upper-pending': 0, 'lower-pending': 0 },
  };
  const suspended = {
    suspended: false,
    'suspended-user': false,
    'suspended-no-data': false,
    'suspended-fencing': false,
  };
  const usual = { role: 'Secondary', ...suspended, 'suspended-quorum': false, 'force-io-failures': false };
  const resource = { name: 'volume-a', 'node-id': 0, ...usual, ...fields };
  return `${JSON.stringify([{ ...resource, 'write-ordering': 'flush', devices: [device], connections }], undefined, 2)}\n`;
}

function connection(peerRole: string) {
  const device = {
    ...{ volume: 0, 'replication-state': 'Established', 'peer-disk-state': 'UpToDate', 'peer-client': false },
    ...{ 'resync-suspended': 'no', received: 0, sent: 0, 'out-of-sync': 0, pending: 0, unacked: 0 },
  };
  const state = { 'connection-state': 'Connected', congested: false, 'peer-role': peerRole, tls: false };
  return { 'peer-node-id': 1, name: 'host-b', ...state, 'ap-in-flight': 0, 'rs-in-flight': 0, peer_devices: [device] };
}

interface StandIn {
  readonly environment: Record<string, string>;
  /** What it does when it is asked: the text of a shell script. */
  does(script: string): void;
  prints(text: string): void;
  /** It is not there, and the real one is not either. */
  leaves(): void;
  /** How often it has been asked since it got something to do. */
  asked(): number;
}

function standIn(context: CaseContext): StandIn {
  const folder = temporaryFolder(context);
  const [command, printed, log] = ['drbdsetup', 'printed', 'log'].map((name) => join(folder, name));
  assert.ok(command !== undefined && printed !== undefined && log !== undefined);
  const isAway = () => existsSync(`${real}.away`);
  const does = (script: string) => {
    if (isAway()) renameSync(`${real}.away`, real);
    writeFileSync(log, '');
    writeFileSync(`${command}.new`, `#!/bin/sh\necho "$*" >>'${log}'\n${script}`, { mode: 0o755 });
    renameSync(`${command}.new`, command);
  };
  const leaves = () => {
    renameSync(real, `${real}.away`);
    rmSync(command);
  };
  context.after(() => does(''));
  return {
    environment: { PATH: `${folder}:${process.env['PATH'] ?? ''}` },
    does,
    prints: (text) => {
      writeFileSync(`${printed}.new`, text);
      renameSync(`${printed}.new`, printed);
      does(`cat '${printed}'\n`);
    },
    leaves,
    asked: () => readFileSync(log, 'latin1').split('\n').length - 1,
  };
}

const primaryPeer = status([connection('Secondary'), { ...connection('Primary'), name: 'host-c' }]);

/** What it can do instead of telling that there is a Primary peer. */
const untold: Record<string, (drbdsetup: StandIn) => void> = {
  'no peer': (drbdsetup) => drbdsetup.prints(status([])),
  'a peer that cannot be reached': (drbdsetup) => drbdsetup.prints(status([connection('Unknown')])),
  'another device': (drbdsetup) => drbdsetup.prints(primaryPeer.replace('"minor": 1,', '"minor": 7,')),
  'broken JSON': (drbdsetup) => drbdsetup.prints(primaryPeer.slice(0, -20)),
  nothing: (drbdsetup) => drbdsetup.prints(''),
  'a failure': (drbdsetup) =>
    drbdsetup.does('echo "Could not connect to \'drbd\' generic netlink family" >&2; exit 20\n'),
  absence: (drbdsetup) => drbdsetup.leaves(),
  'no end': (drbdsetup) => drbdsetup.does('exec sleep 1000\n'),
};

machineCase(
  'DRBD: a device is not opened while drbdsetup tells of a Primary peer; whatever it does not tell, the kernel decides',
  async (context) => {
    const { a } = await Peers.start(context);
    await a.primary();
    const drbdsetup = standIn(context);
    drbdsetup.prints(primaryPeer);
    const startMs = performance.now();
    const server = await startServer(context, a.byResource, { environment: drbdsetup.environment });
    context.note(`ready after ${Math.round(performance.now() - startMs)} ms`);
    await until('it was asked again and again', async () => drbdsetup.asked() >= 3);
    // DRBD refuses this while anybody has the device open.
    await a.secondary();
    const refused = await read(server.url, 0);
    assert.deepEqual([refused.status, server.program.output.includes('Disk open!')], [503, false]);
    assert.match(refused.text, /host-c is Primary/);

    let rounds = 1;
    for (const [what, arrange] of Object.entries(untold)) {
      await server.program.nth(/Cannot open device `[^`]+`: `host-c is Primary of the DRBD resource`\.\n/, rounds);
      arrange(drbdsetup);
      await server.program.nth(/`Read-only file system \(the DRBD device is Secondary\)`\.\n/, rounds);
      rounds += 1;
      if (what !== 'no end') drbdsetup.prints(primaryPeer);
    }
    const promotedMs = performance.now();
    await a.primary();
    await server.program.line(/Disk open!$/);
    context.note(`open ${Math.round(performance.now() - promotedMs)} ms after \`primary\`, drbdsetup hanging`);
    assert.equal((await read(server.url, 0)).status, 206);
    assert.equal(await server.program.stop(), 0);
  },
  600_000,
);

/** From now on the kernel tells of its version only, as DRBD 9 does. */
async function hideKernelReport(context: CaseContext): Promise<void> {
  const version = join(temporaryFolder(context), 'version');
  writeFileSync(version, readFileSync('/proc/drbd', 'latin1').split('\n').slice(0, 2).join('\n'));
  await run('mount', ['--bind', version, '/proc/drbd']);
  context.after(() => run('umount', ['/proc/drbd']));
}

machineCase(
  'DRBD: suspended I/O of which drbdsetup alone tells',
  async (context) => {
    const peers = await Peers.start(context, 'resource-and-stonith');
    const { a } = peers;
    await a.primary();
    await hideKernelReport(context);
    const drbdsetup = standIn(context);
    drbdsetup.prints(status([connection('Secondary')], { role: 'Primary' }));
    const server = await startServer(context, a.byResource, { environment: drbdsetup.environment });
    context.after(peers.release);
    assert.equal((await read(server.url, 0)).status, 206);
    await peers.cutLink();
    const suspension = { suspended: true, 'suspended-fencing': true };
    drbdsetup.prints(status([connection('Unknown')], { role: 'Primary', ...suspension }));
    const [answer] = await answersSoon(context, [read(server.url, 4 * mebibyte)]);
    assert.equal(answer?.status, 503);
    assert.match(answer.text, /DRBD has suspended the I\/O \(fencing\)/);
    assert.equal((await probe(server.url)).status, 503);
    assert.equal(drbdsetup.asked(), 1);

    // The kernel lets the read go; drbdsetup says for a while that it is suspended, and the device is not opened.
    await peers.mendLink();
    await server.program.line(/Cannot open device .*`DRBD has suspended the I\/O \(fencing\)`/);
    await peers.inSync();
    await a.secondary();
    await a.primary();
    drbdsetup.prints(status([connection('Secondary')], { role: 'Primary' }));
    await server.program.nth(/Disk open!\n/, 2);
    assert.equal((await read(server.url, 4 * mebibyte)).status, 206);

    drbdsetup.prints(status([connection('Secondary')], { role: 'Primary', suspended: true, 'suspended-user': true }));
    const headMs = performance.now();
    await until('HEAD tells of it', async () => (await probe(server.url)).status === 503);
    context.note(`HEAD is refused after ${Math.round(performance.now() - headMs)} ms`);
    await server.program.line(/Disk lost: `DRBD has suspended the I\/O \(user\)`/);
    drbdsetup.prints(status([connection('Secondary')], { role: 'Primary' }));
    await server.program.nth(/Disk open!\n/, 3);
    assert.equal(await server.program.stop(), 0);
  },
  600_000,
);
