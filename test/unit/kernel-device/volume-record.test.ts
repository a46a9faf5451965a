import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { formatIdentifier, parseIdentifier } from '../../../src/kernel-device/identifier.js';
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
  const device = { index: 3, identifier: 'x', sizeBytes: 4096, connections: 2 };
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

test('a record that cannot be written is told', (t) => {
  const { errors, path } = ledgerAt(t);
  const ledger = new VolumeLedger(
    join(path, 'below', 'nothing'),
    fresh,
    () => 0,
    (error) => void errors.push(error),
  );
  ledger.keep();
  assert.equal(errors.length, 1);
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
