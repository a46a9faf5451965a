import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { type CommandOutcome, runCommand } from '../../../src/disk/command.js';
import { type CommandRunner, type DrbdDevice, Drbdsetup, type KernelReport } from '../../../src/disk/drbd.js';
import { Gate } from '../../support/gate.js';
import { temporaryFolder } from '../../support/processes.js';

const byName = { path: '/dev/drbd/by-res/xcp-volume-1/0', minor: 1000 };
const byNumber = { path: '/dev/drbd1000', minor: 1000 };

/** The shape that drbdsetup 9 prints, with what is not looked at left in. */
function status(name: string, minor: number, role: string, peers: Record<string, string>) {
  return {
    name,
    'node-id': 0,
    role,
    suspended: false,
    'write-ordering': 'flush',
    devices: [{ volume: 0, minor, 'disk-state': 'UpToDate', client: false, quorum: true }],
    connections: Object.entries(peers).map(([peer, peerRole], index) => ({
      'peer-node-id': index + 1,
      name: peer,
      'connection-state': 'Connected',
      congested: false,
      'peer-role': peerRole,
      peer_devices: [{ volume: 0, 'replication-state': 'Established', 'peer-disk-state': 'UpToDate' }],
    })),
  };
}

/** A drbdsetup that prints what `outputs` says for its arguments, and fails for others. */
function drbdsetup(outputs: Record<string, string>) {
  const asked: string[] = [];
  const run: CommandRunner = async (command, args): Promise<CommandOutcome> => {
    assert.equal(command, 'drbdsetup');
    asked.push(args.join(' '));
    const stdout = outputs[args.join(' ')];
    if (stdout === undefined) return { at: 'failed' };
    if (stdout === 'timed-out') return { at: stdout, gone: Promise.resolve() };
    if (stdout === 'interrupted') return { at: stdout };
    return { at: 'done', stdout };
  };
  return { run, asked };
}

const noReport: KernelReport = async () => '';

/** The peer that speaks against opening the device. */
async function primaryPeer(device: DrbdDevice, run: CommandRunner | Drbdsetup): Promise<string | undefined> {
  const setup = run instanceof Drbdsetup ? run : new Drbdsetup(run, noReport);
  const obstacle = await setup.obstacle(device);
  return obstacle?.replace(/ is Primary of the DRBD resource$/, '');
}

test('a peer that is Primary is named', async () => {
  const json = JSON.stringify([
    status('xcp-volume-1', 1000, 'Secondary', { 'host-b': 'Secondary', 'host-c': 'Primary' }),
  ]);
  assert.equal(await primaryPeer(byName, drbdsetup({ 'status xcp-volume-1 --json': json }).run), 'host-c');
});

test('without a Primary among the peers nothing speaks against opening', async () => {
  for (const resource of [
    status('xcp-volume-1', 1000, 'Secondary', { 'host-b': 'Secondary' }),
    status('xcp-volume-1', 1000, 'Secondary', {}),
    status('xcp-volume-1', 1000, 'Secondary', { 'host-b': 'Unknown' }),
    status('xcp-volume-1', 1000, 'Primary', { 'host-b': 'Secondary' }),
  ]) {
    const { run, asked } = drbdsetup({ 'status xcp-volume-1 --json': JSON.stringify([resource]) });
    assert.equal(await primaryPeer(byName, run), undefined);
    assert.deepEqual(asked, ['status xcp-volume-1 --json']);
  }
});

test('two Primaries at a time are one too many, also when this host is one of them', async () => {
  const json = JSON.stringify([status('xcp-volume-1', 1000, 'Primary', { 'host-b': 'Primary' })]);
  assert.equal(await primaryPeer(byName, drbdsetup({ 'status xcp-volume-1 --json': json }).run), 'host-b');
  assert.equal(await primaryPeer(byName, drbdsetup({ 'role 1000': 'Primary/Primary' }).run), 'the peer');
});

test('the device counts, not the name: a resource that has gone, or has other devices now, is not asked', async () => {
  const all = JSON.stringify([
    status('xcp-volume-1', 7, 'Secondary', { 'host-b': 'Secondary' }),
    status('renamed', 1000, 'Secondary', { 'host-c': 'Primary' }),
  ]);
  const stale = JSON.stringify([status('xcp-volume-1', 7, 'Secondary', { 'host-b': 'Secondary' })]);
  assert.equal(await primaryPeer(byName, drbdsetup({ 'status --json': all }).run), 'host-c');
  const answers = { 'status xcp-volume-1 --json': stale, 'status --json': all };
  assert.equal(await primaryPeer(byName, drbdsetup(answers).run), 'host-c');
});

test('a name reaches drbdsetup as it is, and never as an option', async () => {
  const path = (resource: string) => `/dev/drbd/by-res/${resource}/0`;
  for (const name of ['a b', "it's", '$(reboot)', 'ü', '..name', '*']) {
    const { run, asked } = drbdsetup({});
    await primaryPeer({ path: path(name), minor: 1 }, run);
    assert.deepEqual(asked, [`status ${name} --json`, 'status --json', 'role 1'], name);
  }
  for (const device of [path('--help'), path('-s'), '/dev/drbd1', '/dev/drbd/by-disk/sda/0', '/dev/drbd/by-res/r']) {
    const { run, asked } = drbdsetup({});
    await primaryPeer({ path: device, minor: 1 }, run);
    assert.deepEqual(asked, ['status --json', 'role 1'], device);
  }
});

test('a device that is given by its number is found among all resources', async () => {
  const json = JSON.stringify([
    status('other', 1001, 'Secondary', { 'host-b': 'Primary' }),
    status('this', 1000, 'Secondary', { 'host-c': 'Primary' }),
  ]);
  assert.equal(await primaryPeer(byNumber, drbdsetup({ 'status --json': json }).run), 'host-c');
  assert.equal(
    await primaryPeer({ path: '/dev/drbd7', minor: 7 }, drbdsetup({ 'status --json': json }).run),
    undefined,
  );
});

test('DRBD 8.4, which has no JSON, is asked for the roles', async () => {
  const peer = drbdsetup({ 'role 1000': 'Secondary/Primary\n' });
  assert.equal(await primaryPeer(byName, peer.run), 'the peer');
  assert.deepEqual(peer.asked, ['status xcp-volume-1 --json', 'status --json', 'role 1000']);
  for (const roles of ['Secondary/Secondary', 'Primary/Secondary', 'Secondary/Unknown', 'Unconfigured']) {
    assert.equal(await primaryPeer(byName, drbdsetup({ 'role 1000': roles }).run), undefined, roles);
  }
});

test('whatever drbdsetup prints or does, the kernel decides when it does not tell', async () => {
  for (const json of ['', '[', 'null', '{}', '[null]', '[{"name":"xcp-volume-1","connections":[7,null,{}]}]', '[[]]']) {
    assert.equal(await primaryPeer(byName, drbdsetup({ 'status xcp-volume-1 --json': json }).run), undefined, json);
  }
  assert.equal(await primaryPeer(byName, drbdsetup({}).run), undefined);
  const hanging = drbdsetup({ 'status xcp-volume-1 --json': 'timed-out', 'role 1000': 'Secondary/Primary' });
  assert.equal(await primaryPeer(byName, hanging.run), undefined);
});

test('a drbdsetup that has hung is waited for less until it answers again', async () => {
  const limits: number[] = [];
  let outcome: CommandOutcome = { at: 'timed-out', gone: Promise.resolve() };
  const setup = new Drbdsetup(async (_command, _args, timeoutMs) => {
    limits.push(timeoutMs);
    return outcome;
  }, noReport);
  await primaryPeer(byNumber, setup);
  assert.deepEqual(limits.splice(0), [3000], 'not asked again at once');
  await primaryPeer(byNumber, setup);
  assert.deepEqual(limits.splice(0), [700]);
  outcome = { at: 'done', stdout: JSON.stringify([status('r', 1000, 'Secondary', { 'host-b': 'Primary' })]) };
  assert.equal(await primaryPeer(byNumber, setup), 'host-b');
  await primaryPeer(byNumber, setup);
  assert.deepEqual(limits, [700, 3000]);
});

test('while the kernel does not let a killed drbdsetup go, no other is started', async () => {
  let started = 0;
  const gone = new Gate();
  const setup = new Drbdsetup(async () => {
    started++;
    return { at: 'timed-out', gone: gone.passed };
  }, noReport);
  for (let attempt = 0; attempt < 10; attempt++) assert.equal(await primaryPeer(byName, setup), undefined);
  assert.equal(started, 1);
  gone.open();
  await gone.passed;
  await primaryPeer(byName, setup);
  assert.equal(started, 2);
});

test('a drbdsetup that is killed, as with the whole process group, does not lead to an open', async () => {
  const { run } = drbdsetup({ 'status xcp-volume-1 --json': 'interrupted', 'role 1000': 'Secondary/Secondary' });
  await assert.rejects(primaryPeer(byName, run), { code: 'unavailable' });
});

/** What the kernel's DRBD 8.4 reports in /proc/drbd, with these flags for the device 1000. */
function report(flags: string, protocol = 'C'): string {
  return [
    'version: 8.4.11 (api:1/proto:86-101)',
    'srcversion: 211FB288A383ED945B83420 ',
    '',
    ' 0: cs:Unconfigured',
    ' 7: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C s-----',
    '    ns:0 nr:0 dw:0 dr:672 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0',
    `1000: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown ${protocol} ${flags}`,
    '    ns:0 nr:0 dw:8 dr:672 al:1 bm:0 lo:0 pe:0 ua:0 ap:1 ep:1 wo:f oos:4',
    '',
  ].join('\n');
}

const reportOf9 = 'version: 9.2.11 (api:2/proto:86-122)\nGIT-hash: d7212a2eaeda23f8cb71be36ba52a5163f4dc694\n';

function suspendedStatus(fields: Record<string, unknown>, name = 'xcp-volume-1', minor = 1000): string {
  return JSON.stringify([{ ...status(name, minor, 'Primary', { 'host-b': 'Unknown' }), ...fields }]);
}

test('DRBD 9: suspended I/O speaks against opening, and is told with its reasons', async () => {
  const whys: [Record<string, unknown>, string | undefined][] = [
    [{ suspended: true }, 'DRBD has suspended the I/O'],
    [{ suspended: true, 'suspended-fencing': true, 'suspended-user': false }, 'DRBD has suspended the I/O (fencing)'],
    [{ 'suspended-no-data': true, 'suspended-quorum': true }, 'DRBD has suspended the I/O (no-data, quorum)'],
    [{ suspended: true, 'suspended-user': true }, 'DRBD has suspended the I/O (user)'],
    [{ suspended: false, 'suspended-fencing': false }, undefined],
    [{ suspended: 'no' }, undefined],
    [{}, undefined],
  ];
  for (const [fields, why] of whys) {
    const { run, asked } = drbdsetup({ 'status xcp-volume-1 --json': suspendedStatus(fields) });
    const setup = new Drbdsetup(run, async () => reportOf9);
    assert.equal(await setup.suspension(byName), why, JSON.stringify(fields));
    assert.equal(await setup.obstacle(byName), why, JSON.stringify(fields));
    assert.deepEqual(asked, ['status xcp-volume-1 --json', 'status xcp-volume-1 --json']);
  }
});

test('DRBD 9: the suspension of another resource says nothing about this device', async () => {
  const others = suspendedStatus({ suspended: true }, 'other', 7);
  const { run, asked } = drbdsetup({ 'status xcp-volume-1 --json': others, 'status --json': others });
  const setup = new Drbdsetup(run, noReport);
  assert.equal(await setup.suspension(byName), undefined);
  assert.deepEqual(asked, ['status xcp-volume-1 --json', 'status --json'], 'roles tell nothing of it');
  assert.equal(await setup.obstacle(byName), undefined);
});

test('DRBD 8.4: the kernel itself tells of suspended I/O, and nobody else is asked', async () => {
  const { run, asked } = drbdsetup({});
  for (const [flags, why] of [
    ['s-----', 'DRBD has suspended the I/O'],
    ['s---d-', 'DRBD has suspended the I/O'],
    ['r-----', undefined],
    ['r---s-', undefined],
  ] as const) {
    for (const protocol of ['C', 'A', ' ']) {
      const setup = new Drbdsetup(run, async () => report(flags, protocol));
      assert.equal(await setup.suspension(byName), why, flags);
      if (why !== undefined) assert.equal(await setup.obstacle(byName), why, flags);
    }
  }
  const other = new Drbdsetup(run, async () => report('r-----'));
  assert.equal(await other.suspension({ path: '/dev/drbd7', minor: 7 }), 'DRBD has suspended the I/O');
  const last = new Drbdsetup(run, async () => report('s-----'));
  assert.equal(await last.suspension({ path: '/dev/drbd0', minor: 0 }), undefined, 'not the 0 of 1000');
  assert.deepEqual(asked, ['status --json']);
  const running = drbdsetup({ 'role 1000': 'Primary/Primary' });
  assert.equal(await primaryPeer(byName, new Drbdsetup(running.run, async () => report('r-----'))), 'the peer');
});

test('DRBD 8.4: a report that does not name the device, or makes no sense, tells nothing', async () => {
  for (const text of [
    '',
    report('s-----').replace('1000:', '100:'),
    report('?'),
    ' 1000: cs:Unconfigured\n',
    reportOf9,
  ]) {
    assert.equal(await new Drbdsetup(drbdsetup({}).run, async () => text).suspension(byName), undefined, text);
  }
});

test('when drbdsetup hangs, is killed or fails, nothing is known of a suspension', async () => {
  for (const outcome of ['timed-out', 'interrupted', '[']) {
    const { run } = drbdsetup({ 'status xcp-volume-1 --json': outcome });
    assert.equal(await new Drbdsetup(run, noReport).suspension(byName), undefined, outcome);
  }
});

test('there is one drbdsetup at a time, also for two that ask', async () => {
  let running = 0;
  const setup = new Drbdsetup(async () => {
    running++;
    assert.equal(running, 1);
    await new Promise((resolve) => void setImmediate(resolve));
    running--;
    return { at: 'failed' };
  }, noReport);
  await Promise.all([setup.obstacle(byName), setup.suspension(byName), setup.obstacle(byNumber)]);
});

test('a helper program is not waited for beyond its time, and its absence is no error', async (t) => {
  const script = join(temporaryFolder(t), 'script');
  writeFileSync(
    script,
    '#!/bin/sh\n[ "$1" = hang ] && exec sleep 1000\n[ "$1" = fail ] && exit 20\n[ "$1" = killed ] && kill -TERM $$\necho "$1"\n',
  );
  chmodSync(script, 0o755);
  assert.deepEqual(await runCommand(script, ['said'], 10_000), { at: 'done', stdout: 'said\n' });
  assert.deepEqual(await runCommand(script, ['fail'], 10_000), { at: 'failed' });
  const hung = await runCommand(script, ['hang'], 50);
  assert.equal(hung.at, 'timed-out');
  // Nobody waits for it otherwise.
  const awake = setInterval(() => {}, 1000);
  await hung.gone;
  clearInterval(awake);
  assert.deepEqual(await runCommand(script, ['killed'], 10_000), { at: 'interrupted' });
  assert.deepEqual(await runCommand('no-such-program-anywhere', [], 10_000), { at: 'failed' });
});
