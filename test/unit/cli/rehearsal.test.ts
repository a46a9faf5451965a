import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { Failure } from '../../../src/base/failure.js';
import { rehearsalMsMax, rehearse } from '../../../src/cli/rehearsal.js';
import { FakeClock } from '../../support/fake-clock.js';
import { MemoryVolume } from '../../support/memory-volume.js';

const descriptors = () => readdirSync('/proc/self/fd').length;

/** Counts its reads; whatever would change something is an error. */
class ReadVolume extends MemoryVolume {
  reads = 0;
  changes = 0;

  constructor(sizeBytes = 65_536, readOnly = false) {
    super(sizeBytes, new BufferPool(0), readOnly);
  }

  override read(offset: number, into: Buffer): Promise<void> {
    this.reads++;
    return super.read(offset, into);
  }

  override async write(): Promise<void> {
    this.changes++;
  }

  override async flush(): Promise<void> {
    this.changes++;
  }
}

for (const [mode, writeBack] of [
  ['write-through', undefined],
  ['write-back', { budgetBytes: 1024 * 1024 }],
] as const) {
  test(`${mode}: the volume is read and never changed, and nothing stays open`, async () => {
    const before = descriptors();
    const volume = new ReadVolume();
    assert.equal(await rehearse({ volume, clock: new FakeClock(), writeBack }), true);
    assert.deepEqual([volume.reads > 0, volume.changes], [true, 0]);
    await new Promise((resolve) => void setImmediate(resolve));
    assert.equal(descriptors(), before);
  });
}

test('a volume that cannot be written is rehearsed as well, and one smaller than a block not at all', async () => {
  const volume = new ReadVolume(65_536, true);
  assert.equal(await rehearse({ volume, clock: new FakeClock(), writeBack: undefined }), true);
  const small = new ReadVolume(4095);
  assert.equal(await rehearse({ volume: small, clock: new FakeClock(), writeBack: undefined }), true);
  assert.deepEqual([volume.reads > 0, small.reads], [true, 0]);
});

test('it is over in time when a read fails, or does not come back', async () => {
  const failing = new ReadVolume();
  failing.failNext = new Failure('gave-up');
  const silent = new ReadVolume();
  silent.gate = new Promise(() => {});
  for (const volume of [failing, silent]) {
    const clock = new FakeClock();
    const rehearsed = rehearse({ volume, clock, writeBack: undefined });
    while (volume.reads === 0) await new Promise((resolve) => void setImmediate(resolve));
    await clock.advance(rehearsalMsMax);
    assert.equal(await rehearsed, false);
  }
});
