/**
 * Reads and writes over a network that cuts, truncates, splits, delays and garbles: what a read is answered with is always right, and
 * whatever goes wrong is told as a failure.
 */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Failure } from '../../src/base/failure.js';
import type { HttpBackend } from '../../src/http-client/http-backend.js';
import { type Rules, TcpProxy } from '../support/tcp-proxy.js';
import {
  backendFor,
  diskAnswer,
  instance,
  RawServer,
  read,
  session,
  testDisk,
} from '../unit/http-client/raw-server.js';

const disk = testDisk(1 << 20);

/** Garbles one byte of the first head in a piece, of those that `candidates` chooses. */
function garbling(candidates: RegExp, place: number, byte: number): NonNullable<Rules['corrupt']> {
  return (piece) => {
    const from = piece.indexOf('HTTP/1.1');
    // The clock and the instance, which stand last, are the caller's to judge.
    const end = piece.indexOf('Disk-', from);
    if (from < 0 || end < 0) return piece;
    const places = [...piece.toString('latin1', from, end).matchAll(candidates)].map(({ index }) => from + index);
    const garbled = Buffer.from(piece);
    garbled[places[place % places.length] ?? from] = byte;
    return garbled;
  };
}

interface Fault {
  readonly rules: Rules;
  readonly cuts: boolean;
}

function garblingWith(candidates: RegExp, bytes: string): fc.Arbitrary<Fault> {
  return fc
    .tuple(fc.nat({ max: 500 }), fc.constantFrom(...Buffer.from(bytes)))
    .map(([place, byte]) => ({ rules: { corrupt: garbling(candidates, place, byte) }, cuts: false }));
}

const fault: fc.Arbitrary<Fault> = fc.oneof(
  fc.constant({ rules: {}, cuts: true }),
  fc
    .nat({ max: 30_000 })
    .map((truncateAfterBytes) => ({ rules: { truncateAfterBytes: truncateAfterBytes + 1 }, cuts: false })),
  fc.nat({ max: 3 }).map((delayMs) => ({ rules: { delayMs }, cuts: false })),
  garblingWith(/./gs, '0123456789 :-\r\nax\0'),
  garblingWith(/[0-9]/g, '0123456789'),
);

/** Reads everywhere at once; a read that gets no answer at all is given up, as the gateway does. */
async function readAll(
  backend: HttpBackend,
  ranges: readonly (readonly [number, number])[],
  meanwhile: () => void,
): Promise<number> {
  const limit = setTimeout(() => backend.abandon(), 150);
  let failures = 0;
  const all = ranges.map(async ([offset, length]) => {
    try {
      const { data, instance: from } = await read(backend, offset, length, 'one');
      assert.equal(from, 'one');
      assert.ok(data.equals(disk.subarray(offset, offset + length)), `wrong data at ${offset}`);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      failures += 1;
    }
  });
  meanwhile();
  await Promise.all(all);
  clearTimeout(limit);
  return failures;
}

async function start(t: TestContext): Promise<{ proxy: TcpProxy; backend: HttpBackend }> {
  // The answers' own fields stand last: what is garbled stands before them.
  const proper = diskAnswer(disk, { announces: session, fields: [] });
  const server = await RawServer.start(t, (request) => {
    const reply: typeof request.reply = (head, ...rest) =>
      request.reply(String(head).replace('\r\n\r\n', `\r\n${instance.join('\r\n')}\r\n\r\n`), ...rest);
    if (request.method === 'GET') proper({ ...request, reply });
    else proper(request);
  });
  const proxy = await TcpProxy.start(server.port);
  t.after(() => proxy.close());
  return { proxy, backend: backendFor(t, proxy.url) };
}

test('whatever the network does, a read is answered with the right bytes or with a failure', async (t) => {
  const { proxy, backend } = await start(t);
  const range = fc
    .tuple(fc.nat({ max: 900_000 }), fc.integer({ min: 1, max: 100_000 }))
    .map(([a, b]) => [a, b] as const);
  let failures = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 20 }), fault, async (ranges, { rules, cuts }) => {
      proxy.change({});
      await backend.probe();
      proxy.change({ toClient: rules });
      failures += await readAll(backend, ranges, () => {
        if (cuts) proxy.cut();
      });
      backend.abandon();
    }),
    { numRuns: 120 },
  );
  assert.ok(failures > 0, 'no fault had any effect');
  proxy.change({});
  await backend.probe();
  assert.equal(await readAll(backend, [[0, 100_000]], () => undefined), 0);
});
