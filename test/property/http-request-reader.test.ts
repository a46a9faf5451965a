/** The reader of HTTP requests: any split of the bytes gives the same requests; no bytes make it throw. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type RequestEvent, RequestReader } from '../../src/disk-server/request-reader.js';

/** What was read, with each body in one piece. What exactly was found wrong first may depend on the split. */
type Read = Exclude<RequestEvent, { at: 'body' | 'malformed' }> | { at: 'body'; bytes: string } | { at: 'malformed' };

function readAll(pieces: readonly Buffer[]): Read[] {
  const reader = new RequestReader();
  const all: Read[] = [];
  for (const piece of pieces) {
    // The reader may not keep views of what it was given.
    const lent = Buffer.from(piece);
    reader.push(lent);
    for (let event = reader.next(); event !== undefined; event = reader.next()) append(all, event);
    lent.fill(0xff);
  }
  return all;
}

function append(all: Read[], event: RequestEvent): void {
  const last = all.at(-1);
  if (event.at === 'malformed') all.push({ at: 'malformed' });
  else if (event.at !== 'body') all.push(event);
  else if (last?.at === 'body') all.splice(-1, 1, { at: 'body', bytes: last.bytes + event.bytes.toString('latin1') });
  else all.push({ at: 'body', bytes: event.bytes.toString('latin1') });
}

/** Cuts `bytes` at the given positions, as far as they lie inside. */
function cut(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const positions = [...new Set(cuts.map((position) => position % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...positions].map((start, index) => bytes.subarray(start, positions[index] ?? bytes.length));
}

const body = fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => Buffer.from(bytes));
const plain = fc
  .tuple(fc.constantFrom('GET', 'HEAD'), fc.nat(9))
  .map(([method, last]) => Buffer.from(`${method} /x HTTP/1.1\r\nHost: d\r\nRange: bytes=0-${last}\r\n\r\n`));
const sized = body.map((bytes) =>
  Buffer.concat([Buffer.from(`PUT / HTTP/1.1\r\nHost: d\r\nContent-Length: ${bytes.length}\r\n\r\n`), bytes]),
);
const chunked = fc
  .array(body, { maxLength: 4 })
  .map((chunks) =>
    Buffer.concat([
      Buffer.from('PUT / HTTP/1.1\r\nhost: d\r\nTransfer-Encoding: Chunked\r\n\r\n'),
      ...chunks.flatMap((bytes) => [Buffer.from(`${bytes.length.toString(16)};ext=1\r\n`), bytes, Buffer.from('\r\n')]),
      Buffer.from('0\r\nA: b\r\n\r\n'),
    ]),
  );
const request = fc.oneof(plain, sized, chunked);
const cuts = fc.array(fc.nat(5000), { maxLength: 40 });

test('any split of the bytes gives the same requests', () => {
  fc.assert(
    fc.property(fc.array(request, { minLength: 1, maxLength: 6 }), cuts, (requests, positions) => {
      const bytes = Buffer.concat(requests);
      const whole = readAll([bytes]);
      assert.equal(whole.filter((event) => event.at === 'head').length, requests.length);
      assert.ok(!whole.some((event) => event.at === 'malformed'));
      assert.deepEqual(readAll(cut(bytes, positions)), whole);
      assert.deepEqual(readAll(Array.from(bytes, (byte) => Buffer.of(byte))), whole);
    }),
  );
});

test('bodies arrive as they were sent', () => {
  fc.assert(
    fc.property(body, fc.array(body, { minLength: 1, maxLength: 4 }), cuts, (first, chunks, positions) => {
      const sent = Buffer.concat([
        Buffer.from(`PUT / HTTP/1.1\r\nHost: d\r\nContent-Length: ${first.length}\r\n\r\n`),
        first,
        Buffer.from('PUT / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n'),
        ...chunks.flatMap((bytes) => [Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]),
        Buffer.from('0\r\n\r\n'),
      ]);
      const bodies = readAll(cut(sent, positions)).filter((event) => event.at === 'body');
      assert.deepEqual(
        bodies.map(({ bytes }) => bytes),
        [first.toString('latin1'), Buffer.concat(chunks).toString('latin1')],
      );
    }),
  );
});

test('garbage never makes it throw, and nothing follows what is malformed', () => {
  const garbled = fc
    .tuple(fc.array(request, { maxLength: 3 }), fc.uint8Array({ maxLength: 200 }), fc.nat(2000))
    .map(([requests, noise, at]) => {
      const bytes = Buffer.concat(requests);
      const position = at % (bytes.length + 1);
      return Buffer.concat([bytes.subarray(0, position), noise, bytes.subarray(position)]);
    });
  fc.assert(
    fc.property(garbled, cuts, (bytes, positions) => {
      const whole = readAll([bytes]);
      const malformed = whole.findIndex((event) => event.at === 'malformed');
      assert.ok(malformed < 0 || malformed === whole.length - 1);
      assert.deepEqual(readAll(cut(bytes, positions)), whole);
    }),
    { numRuns: 500 },
  );
});

test('a head is read as if it were the first one, however like the ones before it', () => {
  const number = fc.oneof(
    fc.nat(),
    fc.constantFrom('', ' ', '0', '00', '99999999999999999999', '-1', '7\t', '\x80', '0'.repeat(20_000)),
  );
  const value = fc.tuple(number, number).map(([first, last]) => `${first}-${last}`);
  const shape = fc.record({
    start: fc.constantFrom('Range: bytes=', 'range:bytes=', 'Content-Range: bytes '),
    hasStamp: fc.boolean(),
  });
  const damage = fc.oneof(
    { weight: 8, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })) },
  );
  const part = fc.record({
    value,
    stamp: number,
    blank: fc.constantFrom('', '', '', ' ', '\t'),
    hasSecondBlank: fc.nat(9).map((draw) => draw === 0),
    damage,
  });
  const similarHeads = fc
    .tuple(shape, fc.array(part, { minLength: 2, maxLength: 12 }))
    .map(([{ start, hasStamp }, each]) =>
      each.map(({ value: range, stamp, blank, hasSecondBlank, damage: hit }) => {
        const line = `${hasSecondBlank ? start.replace(':', ': ') : start}${range}${blank}\r\n`;
        const stampLine = hasStamp ? `Disk-Stamp: a 1.2 i ${stamp}\r\n` : '';
        const text = `GET / HTTP/1.1\r\nHost: d\r\n${line}${stampLine}Disk-If-Instance: i\r\n\r\n`;
        const bytes = Buffer.from(text, 'latin1');
        if (hit !== undefined) bytes[hit[0] % bytes.length] = hit[1];
        return bytes;
      }),
    );
  fc.assert(
    fc.property(similarHeads, (heads) => {
      const together = new RequestReader();
      const expected: Read[] = [];
      const read: Read[] = [];
      for (const bytes of heads) {
        const alone = new RequestReader();
        expected.push(...readAllWith(alone, bytes));
        read.push(...readAllWith(together, bytes));
        if (alone.isInHead || alone.isInBody || expected.at(-1)?.at === 'malformed') break; // what follows is part of it
      }
      assert.deepEqual(read, expected);
    }),
    { numRuns: 2000 },
  );
});

function readAllWith(reader: RequestReader, bytes: Buffer): Read[] {
  const all: Read[] = [];
  reader.push(Buffer.from(bytes));
  for (let event = reader.next(); event !== undefined; event = reader.next()) append(all, event);
  return all;
}
