import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { type CommandOutcome, runCommand } from '../../../src/disk/command.js';
import { type CommandRunner, primaryPeer } from '../../../src/disk/drbd.js';
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
    if (stdout === 'timed-out' || stdout === 'interrupted') return { at: stdout };
    return { at: 'done', stdout };
  };
  return { run, asked };
}

test('a peer that is Primary is named', async () => {
  const json = JSON.stringify([
    status('xcp-volume-1', 1000, 'Secondary', { 'host-b': 'Secondary', 'host-c': 'Primary' }),
  ]);
  assert.equal(await primaryPeer(byName, drbdsetup({ 'status xcp-volume-1 --json': json }).run), 'host-c');
});

test('without a Primary, or when this host is it, nothing speaks against opening', async () => {
  for (const resource of [
    status('xcp-volume-1', 1000, 'Secondary', { 'host-b': 'Secondary' }),
    status('xcp-volume-1', 1000, 'Secondary', {}),
    status('xcp-volume-1', 1000, 'Primary', { 'host-b': 'Primary' }),
  ]) {
    const { run, asked } = drbdsetup({ 'status xcp-volume-1 --json': JSON.stringify([resource]) });
    assert.equal(await primaryPeer(byName, run), undefined);
    assert.deepEqual(asked, ['status xcp-volume-1 --json']);
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
  assert.deepEqual(peer.asked, ['status xcp-volume-1 --json', 'role 1000']);
  for (const roles of [
    'Secondary/Secondary',
    'Primary/Secondary',
    'Primary/Primary',
    'Secondary/Unknown',
    'Unconfigured',
  ]) {
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
  assert.equal(hanging.asked.length, 1, 'what hangs once is not asked again');
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
  assert.deepEqual(await runCommand(script, ['hang'], 50), { at: 'timed-out' });
  assert.deepEqual(await runCommand(script, ['killed'], 10_000), { at: 'interrupted' });
  assert.deepEqual(await runCommand('no-such-program-anywhere', [], 10_000), { at: 'failed' });
});
