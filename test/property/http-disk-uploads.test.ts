/**
 * Uploads over a network that cuts them off, from clients that count wrongly: a write is done with its whole body or not at all.
 * test/simulation/ delivers messages whole or not; the check that they are whole is made by the HTTP binding, which is tested here.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SimulatedMedium } from '../support/simulated-disk.js';
import { chunk, HttpBench, put } from '../unit/disk-server/http-bench.js';

const sizeBytes = 4096;

interface Upload {
  readonly offset: number;
  readonly length: number;
  readonly chunked: boolean;
  readonly stamped: boolean;
  /** Where the body is divided into chunks, and the request into packets. */
  readonly divisions: readonly number[];
  /** How many bytes longer than its range the body is. */
  readonly excess: number;
  /** The connection ends so many bytes before the end of the request. 0: it is sent whole. */
  readonly missing: number;
  /** With a FIN, or at once. */
  readonly politely: boolean;
}

const upload: fc.Arbitrary<Upload> = fc
  .record({
    offset: fc.nat(sizeBytes - 1),
    length: fc.integer({ min: 1, max: 1500 }),
    chunked: fc.boolean(),
    stamped: fc.boolean(),
    divisions: fc.array(fc.nat(2000), { maxLength: 4 }),
    excess: fc.oneof(fc.constant(0), fc.integer({ min: -20, max: 20 })),
    missing: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 2000 })),
    politely: fc.boolean(),
  })
  .map(({ offset, length, ...rest }) => ({ offset, length: Math.min(length, sizeBytes - offset), ...rest }));

function divided(bytes: Buffer, divisions: readonly number[]): Buffer[] {
  const places = [...new Set(divisions.map((place) => place % Math.max(1, bytes.length)))].sort((a, b) => a - b);
  return [0, ...places].map((place, index) => bytes.subarray(place, places[index])).filter(({ length }) => length > 0);
}

function requestFor({ offset, length, chunked, stamped, divisions, excess }: Upload): Buffer {
  const body = Buffer.alloc(Math.max(0, length + excess), 7);
  const framing = chunked ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${body.length}\r\n`;
  const deadlineMs = Math.floor(performance.now()) + 30_000;
  const stamp = stamped ? `Disk-Stamp: s 1.1 i1 ${deadlineMs}\r\n` : '';
  const sent = chunked ? [...divided(body, divisions).map(chunk), Buffer.from('0\r\n\r\n')] : [body];
  return Buffer.concat([Buffer.from(put(offset, length, framing + stamp)), ...sent]);
}

test('a write is done with its whole body or not at all', async (t) => {
  await fc.assert(
    fc.asyncProperty(upload, async (attempt) => {
      const medium = new SimulatedMedium(sizeBytes);
      const bench = await HttpBench.started(t, { medium });
      const client = await bench.client();
      const request = requestFor(attempt);
      const arrives = request.subarray(0, Math.max(0, request.length - attempt.missing));
      for (const packet of divided(arrives, attempt.divisions)) {
        client.send(packet);
        await new Promise(setImmediate);
      }
      const isWhole = attempt.missing === 0 && attempt.excess === 0;
      if (attempt.missing === 0) assert.equal((await client.response()).status, isWhole ? 200 : 400);
      if (attempt.politely) client.socket.end();
      else client.socket.destroy();
      await bench.until(() => bench.binding.connections === 0);
      const expected = Buffer.alloc(sizeBytes);
      if (isWhole) expected.fill(7, attempt.offset, attempt.offset + attempt.length);
      assert.deepEqual(medium.cached, expected);
      await bench.binding.close();
      await bench.core.stop();
    }),
    { numRuns: 300 },
  );
});
