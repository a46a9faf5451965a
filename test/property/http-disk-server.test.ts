/** The disk server against a model of a disk: any requests, written as HTTP and read back, do what they do to an array. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type CoreRequest, DiskServer } from '../../src/disk-server/disk-server.js';
import { noKillTimer } from '../../src/disk-server/fence.js';
import type { DiskRequest } from '../../src/http-disk/messages.js';
import { decodeRequest, encodeRequest } from '../../src/http-disk/request-codec.js';
import { decodeAnswer, encodeAnswer } from '../../src/http-disk/response-codec.js';
import { FakeClock, settled } from '../support/fake-clock.js';
import { receivedLines } from '../support/received-fields.js';
import { SimulatedMedium } from '../support/simulated-disk.js';

const sizeBytes = 4096;
const range = fc
  .tuple(fc.nat(sizeBytes - 1), fc.integer({ min: 1, max: 1500 }))
  .map(([offset, length]) => ({ offset, length: Math.min(length, sizeBytes - offset) }));

interface Step {
  readonly request: CoreRequest;
  readonly byte: number;
}

const request: fc.Arbitrary<CoreRequest> = fc.oneof(
  range.map((part): CoreRequest => ({ op: 'read', ...part })),
  range.map((part): CoreRequest => ({ op: 'write', ...part, deferred: false })),
  range.map((part): CoreRequest => ({ op: 'zero', ...part, deferred: false, mayTrim: true, fast: false })),
  fc.constant<CoreRequest>({ op: 'flush' }),
);
const step: fc.Arbitrary<Step> = fc.record({ request, byte: fc.nat(255) });

/** Over the wire and back. */
async function execute(server: DiskServer, { request: sent, byte }: Step): Promise<Buffer> {
  const { method, headers } = encodeRequest(sent);
  const received = decodeRequest(method, receivedLines(headers), server.disk?.sizeBytes ?? 0);
  assert.ok(received.op !== 'probe');
  const bytes = received.op === 'write' ? Buffer.alloc(received.length, byte) : undefined;
  const into = Buffer.alloc(received.op === 'read' ? received.length : 0);
  const outcome = await server.execute(received, bytes, into);
  const disk = server.disk;
  assert.ok(outcome.at === 'done' && disk !== undefined);
  const response = encodeAnswer(received, outcome.answer, disk);
  decodeAnswer(sent, response.status, receivedLines(response.headers), response.body);
  return into;
}

function apply(model: Buffer, { request: done, byte }: Step): void {
  if (done.op === 'write') model.fill(byte, done.offset, done.offset + done.length);
  if (done.op === 'zero') model.fill(0, done.offset, done.offset + done.length);
}

function expected(model: Buffer, done: DiskRequest): Buffer {
  return done.op === 'read' ? Buffer.from(model.subarray(done.offset, done.offset + done.length)) : Buffer.alloc(0);
}

test('any requests one after another do what they do to an array, and survive a crash', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.boolean(), async (steps, readsNow) => {
      const medium = new SimulatedMedium(sizeBytes, { readsNow });
      const server = new DiskServer({
        ...{ clock: new FakeClock(), openDisk: () => medium.open(), killTimer: noKillTimer, newInstance: () => 'i' },
      });
      await server.start();
      const model = Buffer.alloc(sizeBytes);
      for (const each of steps) {
        apply(model, each);
        assert.deepEqual(await execute(server, each), expected(model, each.request));
      }
      medium.crash();
      assert.deepEqual(medium.durable, model);
    }),
  );
});

test('concurrent writes to separate places are all there, and durable', async () => {
  const places = fc.uniqueArray(fc.nat(31), { minLength: 1 });
  await fc.assert(
    fc.asyncProperty(places, fc.integer({ min: 1, max: 4 }), async (blocks, slots) => {
      const medium = new SimulatedMedium(sizeBytes);
      // Slow enough for other writes to end meanwhile.
      medium.before = ({ op }) => (op === 'sync' ? settled() : undefined);
      const options = {
        clock: new FakeClock(),
        openDisk: () => medium.open(),
        killTimer: noKillTimer,
        newInstance: () => 'i',
        limits: { slots },
      };
      const server = new DiskServer(options);
      await server.start();
      await Promise.all(
        blocks.map((block) => {
          const write: CoreRequest = { op: 'write', offset: block * 128, length: 128, deferred: false };
          return execute(server, { request: write, byte: block + 1 });
        }),
      );
      medium.crash();
      for (const block of blocks) {
        assert.deepEqual(medium.durable.subarray(block * 128, (block + 1) * 128), Buffer.alloc(128, block + 1));
      }
    }),
  );
});
