/**
 * Random operations through real sockets against a model: several connections at once, several lanes of requests on each. A lane has
 * its part of the disk for itself and does one thing after the other; the volume answers in an order of its own.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { command, commandFlag } from '../../src/nbd/constants.js';
import type { MemoryVolume } from '../support/memory-volume.js';
import type { NbdClient } from '../support/nbd-client.js';
import { serve } from '../unit/nbd-server/harness.js';
import { type Relay, startRelay } from '../unit/nbd-server/relay.js';

const laneBytes = 300_000;

interface Operation {
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
  readonly fill: number;
}

const operation: fc.Arbitrary<Operation> = fc
  .record({
    type: fc.constantFrom(
      command.read,
      command.write,
      command.write,
      command.writeZeroes,
      command.flush,
      command.cache,
    ),
    offset: fc.nat({ max: laneBytes - 1 }),
    size: fc.oneof(fc.nat({ max: 5000 }), fc.nat({ max: laneBytes })),
    fua: fc.boolean(),
    fill: fc.integer({ min: 1, max: 255 }),
  })
  .map(({ type, offset, size, fua, fill }) => {
    const length = type === command.flush ? 0 : Math.min(size, laneBytes - offset);
    return { type, offset, length, flags: fua ? commandFlag.fua : 0, fill };
  });

const lane = fc.array(operation, { minLength: 1, maxLength: 12 });

/** Lets the volume answer later, and in another order. */
function delay(volume: MemoryVolume, seed: number): void {
  let state = seed;
  const turns = async () => {
    state = (state * 48_271 + 11) % 2_147_483_647;
    for (let turn = state % 4; turn > 0; turn -= 1) await new Promise((resolve) => void setImmediate(resolve));
  };
  const [read, write, zero] = [volume.read.bind(volume), volume.write.bind(volume), volume.zero.bind(volume)];
  volume.read = async (offset, into) => {
    await turns();
    await read(offset, into);
    await turns();
  };
  volume.write = async (offset, bytes, fua) => {
    await turns();
    await write(offset, bytes, fua);
    await turns();
  };
  volume.zero = async (offset, length, options) => {
    await turns();
    await zero(offset, length, options);
  };
}

async function runLane(client: NbdClient, start: number, operations: readonly Operation[]): Promise<void> {
  const model = Buffer.alloc(laneBytes);
  for (const { type, offset, length, flags, fill } of operations) {
    const isWrite = type === command.write;
    const payload = Buffer.alloc(isWrite ? length : 0, fill);
    const place = { offset: type === command.flush ? 0 : start + offset, length };
    const { error, data } = await client.request({ type, flags, ...place, payload });
    assert.equal(error, null);
    if (type === command.read)
      assert.ok(data.equals(model.subarray(offset, offset + length)), `READ at ${start + offset}`);
    if (isWrite) model.fill(fill, offset, offset + length);
    if (type === command.writeZeroes) model.fill(0, offset, offset + length);
  }
  assert.ok((await client.read(start, laneBytes)).equals(model), 'all of it');
}

test('several connections read what they wrote', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ structured: fc.boolean(), lanes: fc.array(lane, { minLength: 1, maxLength: 4 }) }), {
        minLength: 1,
        maxLength: 4,
      }),
      fc.nat(),
      async (connections, seed) => {
        const { open, server, volume } = await serve(t, 16 * laneBytes);
        delay(volume, seed);
        let start = 0;
        const running: Promise<void>[] = [];
        for (const { structured, lanes } of connections) {
          const client = await open({ structured });
          for (const operations of lanes) {
            running.push(runLane(client, start, operations));
            start += laneBytes;
          }
        }
        await Promise.all(running);
        await server.close();
      },
    ),
    { numRuns: 40 },
  );
});

/** Hands the connection over again and again until `done`. */
async function handOver(relay: Relay, done: Promise<unknown>, turnsOf: readonly number[]): Promise<number> {
  let isDone = false;
  void done.finally(() => {
    isDone = true;
  });
  let times = 0;
  while (!isDone) {
    const turns = turnsOf[times % turnsOf.length] ?? 1;
    for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => void setImmediate(resolve));
    assert.notEqual(await relay.handOver(), null);
    times += 1;
  }
  return times;
}

test('a connection that is handed over all the time reads what it wrote', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(lane, { minLength: 1, maxLength: 4 }),
      fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 5 }),
      fc.nat(),
      async (lanes, turnsOf, seed) => {
        const { client, relay, volume, budget } = await startRelay(t);
        delay(volume, seed);
        const running = Promise.all(lanes.map((operations, index) => runLane(client, index * laneBytes, operations)));
        assert.ok((await handOver(relay, running, turnsOf)) > 0);
        await running;
        client.destroy();
        assert.equal(budget.takenBytes, 0);
      },
    ),
    { numRuns: 40 },
  );
});
