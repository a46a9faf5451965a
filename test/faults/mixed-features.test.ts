/** What old servers do not have, asked for through our nbd-server while ours, an old one, and ours again is in use. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { command, commandFlag } from '../../src/nbd/constants.js';
import { MixedHost } from '../support/mixed-host.js';
import { NbdClient } from '../support/nbd-client.js';
import { seededFile, startGateway } from '../support/stack.js';

const mebibyte = 2 ** 20;
/** Four parts of the disk, for each server that comes into use. */
const partBytes = 256 * 1024;

for (const mode of ['writethrough', 'writeback'] as const) {
  test(`trim, zeroes, fast zeroes, map and flush at ours, at an old server, and at ours again: ${mode}`, async (t) => {
    const disk = seededFile(t, 1, 3 * mebibyte);
    const expected = readFileSync(disk);
    const host = await MixedHost.started(t, disk, 'ours');
    const gateway = await startGateway(t, [host.url], ['--cache', mode]);
    const client = await NbdClient.open({ path: gateway.socketPath });
    t.after(() => client.destroy());
    const ask = async (type: number, offset: number, length: number, flags = 0): Promise<string | null> =>
      (await client.request({ type, offset, length, flags })).error;

    const featuresOf = async (): Promise<string> =>
      (await fetch(host.url, { method: 'HEAD', headers: { connection: 'close' } })).headers.get('disk-features') ?? '';

    for (const [turn, kind] of (['ours', 'old', 'ours'] as const).entries()) {
      if (turn > 0) {
        await host.stop('SIGKILL');
        await host.start(kind);
      }
      const start = turn * mebibyte;
      // The gateway finds out with the first request that it sends.
      assert.ok((await client.read(start, 512)).equals(expected.subarray(start, start + 512)));
      const old = kind === 'old' ? host.olds.at(-1) : undefined;
      const isFast = (await featuresOf()).includes('fast-zero');

      assert.equal(await ask(command.writeZeroes, start, partBytes), null);
      assert.equal(await ask(command.writeZeroes, start + partBytes, partBytes, commandFlag.noHole), null);
      expected.fill(0, start, start + 2 * partBytes);
      const fast = await ask(command.writeZeroes, start + 2 * partBytes, partBytes, commandFlag.fastZero);
      assert.equal(fast, isFast ? null : 'ENOTSUP');
      if (isFast) expected.fill(0, start + 2 * partBytes, start + 3 * partBytes);
      if (kind === 'old') assert.equal(isFast, false);

      const before = old?.requests.length;
      assert.equal(await ask(command.trim, start + 3 * partBytes, partBytes), null);
      assert.equal(await ask(command.flush, 0, 0), null);
      const status = await client.request({ type: command.blockStatus, offset: start, length: mebibyte });
      assert.equal(status.error, null);
      if (old === undefined) {
        assert.notEqual(status.descriptors[0]?.kind, 'data', 'what was zeroed is told apart from data');
        expected.fill(0, start + 3 * partBytes, start + 4 * partBytes);
      } else {
        assert.deepEqual(status.descriptors, [{ length: mebibyte, kind: 'data' }], 'all of it is data');
        assert.equal(old.requests.length, before, 'it is not asked for what it does not have');
      }
      assert.ok((await client.read(start, mebibyte)).equals(expected.subarray(start, start + mebibyte)));
      assert.ok(readFileSync(disk).equals(expected), `what lies on the disk, ${turn}: ${kind}`);
    }
    const old = host.olds[0];
    const puts = old?.requests.filter(({ line }) => line.startsWith('PUT')) ?? [];
    assert.deepEqual(
      puts.map(({ fields }) => fields['content-range']),
      [
        `bytes ${mebibyte}-${mebibyte + partBytes - 1}/*`,
        `bytes ${mebibyte + partBytes}-${mebibyte + 2 * partBytes - 1}/*`,
      ],
      'the zeroes were written, and nothing else',
    );
  });
}
