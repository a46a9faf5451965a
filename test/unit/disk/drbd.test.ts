import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { type CommandOutcome, runCommand } from '../../../src/disk/command.js';
import { type CommandRunner, type DrbdDevice, Drbdsetup } from '../../../src/disk/drbd.js';
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

function primaryPeer(device: DrbdDevice, run: CommandRunner): Promise<string | undefined> {
  return new Drbdsetup(run).primaryPeer(device);
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
  });
  await setup.primaryPeer(byNumber);
  assert.deepEqual(limits.splice(0), [3000], 'not asked again at once');
  await setup.primaryPeer(byNumber);
  assert.deepEqual(limits.splice(0), [700]);
  outcome = { at: 'done', stdout: JSON.stringify([status('r', 1000, 'Secondary', { 'host-b': 'Primary' })]) };
  assert.equal(await setup.primaryPeer(byNumber), 'host-b');
  await setup.primaryPeer(byNumber);
  assert.deepEqual(limits, [700, 3000]);
});

test('while the kernel does not let a killed drbdsetup go, no other is started', async () => {
  let started = 0;
  const gone = new Gate();
  const setup = new Drbdsetup(async () => {
    started++;
    return { at: 'timed-out', gone: gone.passed };
  });
  for (let attempt = 0; attempt < 10; attempt++) assert.equal(await setup.primaryPeer(byName), undefined);
  assert.equal(started, 1);
  gone.open();
  await gone.passed;
  await setup.primaryPeer(byName);
  assert.equal(started, 2);
});

test('a drbdsetup that is killed, as with the whole process group, does not lead to an open', async () => {
  const { run } = drbdsetup({ 'status xcp-volume-1 --json': 'interrupted', 'role 1000': 'Secondary/Secondary' });
  await assert.rejects(primaryPeer(byName, run), { code: 'unavailable' });
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
