import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { formatIdentifier, isSameDevice, parseIdentifier } from '../../../src/kernel-device/identifier.js';
import { listDevices } from '../../../src/kernel-device/other-users.js';
import { kernelTimeouts } from '../../../src/kernel-device/timeouts.js';
import {
  decodeRecord,
  encodeRecord,
  loadRecord,
  thisBoot,
  VolumeLedger,
  type VolumeRecord,
  writeFlightMsMax,
} from '../../../src/kernel-device/volume-record.js';
import { temporaryFolder } from '../../support/processes.js';

const fresh: VolumeRecord = {
  ...{ bootId: thisBoot(), pid: 77, session: 'cafe', generation: 3, device: undefined, servers: [], unflushed: 'none' },
};

function ledgerAt(t: TestContext, record = fresh) {
  const path = join(temporaryFolder(t), 'record');
  const time = { nowMs: 1000 };
  const errors: unknown[] = [];
  const ledger = new VolumeLedger(
    path,
    record,
    () => time.nowMs,
    (error) => void errors.push(error),
  );
  return { path, time, errors, ledger };
}

test('a record is read as it was written', (t) => {
  const device = { index: 3, identifier: 'x', sizeBytes: 4096, connections: 2, thread: 99 };
  const servers = [
    { server: 'http://a', endpoint: '127.0.0.1:1', instance: 'i', leftAtMs: undefined },
    { server: 'http://b', endpoint: undefined, instance: undefined, leftAtMs: 5 },
  ];
  const { path, ledger } = ledgerAt(t, { ...fresh, device, servers, unflushed: 'instance' });
  assert.ok(!existsSync(path), 'nothing is on file before it is kept');
  ledger.keep();
  const loaded = loadRecord(path);
  assert.deepEqual(loaded, JSON.parse(JSON.stringify(ledger.current)));
  assert.deepEqual(loaded?.device, device);
  assert.deepEqual(readdirSync(join(path, '..')), ['record'], 'no draft is left');
  ledger.remove();
  assert.equal(loadRecord(path), undefined);
  ledger.change({ generation: 4 });
  assert.ok(!existsSync(path), 'and it does not come back');
});

test('a record of another boot, and what is none, count as none', (t) => {
  const { path } = ledgerAt(t);
  writeFileSync(path, encodeRecord({ ...fresh, bootId: 'another' }));
  assert.equal(loadRecord(path), undefined);
  const good = JSON.parse(encodeRecord(fresh)) as Record<string, unknown>;
  assert.ok(decodeRecord(JSON.stringify(good)));
  const broken = [
    ...['', '{', '[]', 'null', '7'],
    ...Object.keys(good).map((key) => JSON.stringify({ ...good, [key]: { no: 1 } })),
    JSON.stringify({ ...good, device: { index: 1 } }),
    JSON.stringify({ ...good, device: { index: 1, identifier: 'x', sizeBytes: 1, connections: 1, thread: 'x' } }),
    JSON.stringify({ ...good, servers: [{ server: 1 }] }),
    JSON.stringify({ ...good, unflushed: 'maybe' }),
  ];
  for (const text of broken) assert.equal(decodeRecord(text), undefined, text);
});

test('a server stays on record as long as a write may be on its way there', async (t) => {
  const { time, ledger } = ledgerAt(t);
  const use = (server: string, instance: string | undefined) =>
    ledger.record({ server, endpoint: undefined, instance, unflushed: 'none' });
  const names = () => ledger.current.servers.map(({ server, leftAtMs }) => `${server} ${leftAtMs}`);
  await use('a', 'i1');
  await use('b', 'i2');
  assert.deepEqual(names(), ['b undefined', 'a 1000']);
  time.nowMs += writeFlightMsMax - 1;
  await use('c', 'i3');
  assert.deepEqual(names(), ['c undefined', `b ${time.nowMs}`, 'a 1000']);
  time.nowMs += 1;
  await use('b', 'i2');
  assert.deepEqual(names(), ['b undefined', `c ${time.nowMs}`], 'b is in use again, a is forgotten');
  await use('old', undefined);
  await use('a', 'i4');
  assert.ok(!names().some((name) => name.startsWith('old')), 'nothing can be known of a server without sessions');
});

/** Nothing can be written while there is a folder where the draft should be. */
function makeUnwritable(path: string): void {
  mkdirSync(`${path}.new`);
}

function makeWritable(path: string): void {
  rmdirSync(`${path}.new`);
}

test('a first record that cannot be written leaves that of the predecessor as it was', (t) => {
  const { path, errors, ledger } = ledgerAt(t);
  const former = encodeRecord({ ...fresh, generation: 2 });
  writeFileSync(path, former);
  makeUnwritable(path);
  assert.throws(() => ledger.keep());
  ledger.change({ unflushed: 'instance' });
  assert.equal(readFileSync(path, 'utf8'), former);
  assert.deepEqual(errors, []);
});

test('a change that cannot be written leaves no record that a successor could believe; the next change is whole again', (t) => {
  const { path, errors, ledger } = ledgerAt(t);
  ledger.keep();
  makeUnwritable(path);
  ledger.change({ unflushed: 'instance' });
  assert.equal(loadRecord(path), undefined);
  assert.equal(errors.length, 1);
  makeWritable(path);
  ledger.change({ generation: 4 });
  assert.deepEqual([loadRecord(path)?.unflushed, loadRecord(path)?.generation], ['instance', 4]);
  assert.deepEqual(readdirSync(join(path, '..')), ['record'], 'no draft is left');
});

test('after a release the file is not touched any more', (t) => {
  const { path, ledger } = ledgerAt(t);
  ledger.keep();
  ledger.release();
  ledger.change({ generation: 9 });
  ledger.remove();
  assert.equal(loadRecord(path)?.generation, 3);
});

test('without an identifier of the kernel, the thread that connected a device tells whose it is', () => {
  const found = { index: 1, sizeBytes: 512, thread: 70, identifier: 'ours' };
  assert.ok(isSameDevice(found, { identifier: 'ours', thread: 71 }), 'the identifier decides where there is one');
  assert.ok(!isSameDevice(found, { identifier: 'theirs', thread: 70 }));
  const old = { ...found, identifier: '' };
  assert.ok(isSameDevice(old, { identifier: 'ours', thread: 70 }));
  assert.ok(!isSameDevice(old, { identifier: 'ours', thread: 71 }));
  assert.ok(!isSameDevice({ ...old, thread: undefined }, { identifier: 'ours', thread: undefined }));
});

test('a device is ours and served, ours and not, ours and not to be known, or foreign', () => {
  const identifiers = ['served', 'left', 'hidden'].map((name) => formatIdentifier({ name, session: 'cafe' }));
  const devices = [...identifiers, 'something else', ''].map((identifier, index) => {
    return { index, sizeBytes: 512, thread: 7, identifier };
  });
  const held: Record<string, boolean> = { served: true, left: false };
  assert.deepEqual(
    listDevices((volume) => held[volume], devices).map(({ volume, state }) => [volume, state]),
    [
      ['served', 'alive'],
      ['left', 'dead'],
      ['hidden', 'unknown'],
      [undefined, 'foreign'],
      [undefined, 'foreign'],
    ],
  );
});

test('a device says whose it is', () => {
  for (const name of ['heartbeat', 'a:b:c', 'x']) {
    assert.deepEqual(parseIdentifier(formatIdentifier({ name, session: '0af3' })), { name, session: '0af3' });
  }
  for (const foreign of ['', 'http-nbd-transfer', 'http-nbd-transfer:x', 'other:x:0af3', 'http-nbd-transfer:x:zz']) {
    assert.equal(parseIdentifier(foreign), undefined, foreign);
  }
});

test("the kernel's patience is longer than the gateway may take for its last answer", () => {
  for (const [requestTimeoutMs, ioTimeoutMs] of [
    [3000, 30_000],
    [1, 2],
    [999, 1000],
    [60_000, 86_400_000],
  ] as const) {
    const { timeoutS } = kernelTimeouts({ requestTimeoutMs, ioTimeoutMs, deadTimeoutMs: 1500 });
    assert.ok(timeoutS * 1000 > ioTimeoutMs + requestTimeoutMs + 1000, String(timeoutS));
  }
  assert.equal(kernelTimeouts({ requestTimeoutMs: 1, ioTimeoutMs: 2, deadTimeoutMs: 1500 }).deadTimeoutS, 2);
});
