import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Expected, parse } from '../unit/http-client/recording-handler.js';

const token = fc.stringMatching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}$/);
const value = fc.stringMatching(/^[\x21-\x7e]{0,30}$/);
const knownField = fc.constantFrom(
  'Content-Range: bytes 4-9/100',
  'Connection: keep-alive',
  'Keep-Alive: timeout=5',
  'Disk-Instance: abc',
  'Disk-Clock: 99',
  'ETag: "q"',
  'Content-Encoding: identity',
  'Date: Mon, 01 Jan 2024 00:00:00 GMT',
);
const otherField = fc.tuple(token, value).map(([name, text]) => `X${name}:${text}`);
const body = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));

interface Sent {
  readonly expected: Expected;
  readonly bytes: Buffer;
}

const response: fc.Arbitrary<Sent> = fc
  .record({
    interim: fc.boolean(),
    method: fc.constantFrom('GET' as const, 'HEAD' as const, 'PUT' as const),
    status: fc.constantFrom(200, 204, 206, 404, 503),
    fields: fc.array(fc.oneof(knownField, otherField), { maxLength: 6 }),
    data: body,
    chunks: fc.option(fc.array(fc.nat({ max: 40 }), { maxLength: 5 }), { nil: undefined }),
    fills: fc.boolean(),
  })
  .map(({ interim, method, status, fields, data, chunks, fills }) => {
    const unique = fields.filter((field, index) => fields.indexOf(field) === index);
    const bodiless = method === 'HEAD' || status === 204;
    const framing = chunks === undefined ? `Content-Length: ${data.length}` : 'Transfer-Encoding: chunked';
    const head = [`HTTP/1.1 ${status} Reason`, ...unique, ...(status === 204 ? [] : [framing]), '', ''].join('\r\n');
    const encoded = bodiless ? Buffer.alloc(0) : chunks === undefined ? data : inChunks(data, chunks);
    const first = interim ? 'HTTP/1.1 100 Continue\r\nX: y\r\n\r\n' : '';
    return {
      expected: { method, destination: fills && !bodiless ? { fill: data.length } : 300 },
      bytes: Buffer.concat([Buffer.from(`${first}${head}`, 'latin1'), encoded]),
    };
  });

function inChunks(data: Buffer, sizes: readonly number[]): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (const size of [...sizes, data.length]) {
    const piece = data.subarray(at, at + size);
    at += piece.length;
    if (piece.length > 0) parts.push(Buffer.from(`${piece.length.toString(16)};e=1\r\n`), piece, Buffer.from('\r\n'));
  }
  return Buffer.concat([...parts, Buffer.from('0\r\nT: r\r\n\r\n')]);
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((place, index) => bytes.subarray(places[index], place));
}

const cuts = fc.array(fc.nat(), { maxLength: 30 });

test('whole responses are read as they were written, and any split of the bytes reads the same', () => {
  fc.assert(
    fc.property(fc.array(response, { minLength: 1, maxLength: 5 }), cuts, (responses, places) => {
      const expected = responses.map((one) => one.expected);
      const bytes = Buffer.concat(responses.map((one) => one.bytes));
      const whole = parse(expected, [bytes]);
      assert.equal(whole.at(-1), 'between');
      assert.equal(whole.length, 2 * responses.length + 1);
      assert.deepEqual(parse(expected, split(bytes, places)), whole);
    }),
    { numRuns: 300 },
  );
});

test('a head is read as if it were the first one, however like the ones before it', () => {
  const number = fc.oneof(
    fc.nat(),
    fc.nat({ max: 1 }),
    fc.constantFrom('', '00', '*', '9007199254740991', '9007199254740993', '99999999999999999999'),
  );
  const shape = fc.record({
    end: fc.constantFrom('/100', '/*', ''),
    unreadable: fc.constantFrom(undefined, undefined, '', 'bytes x', 'bytes 0-99999999999999999/100'),
    clocks: fc.nat({ max: 2 }),
    clockComesFirst: fc.boolean(),
  });
  const hit = fc.oneof(
    { weight: 8, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })) },
  );
  const numbers = fc.record({ first: number, last: number, clock: number, hit, isAsParsed: fc.boolean() });
  const similarHeads = fc.tuple(shape, fc.array(numbers, { minLength: 2, maxLength: 12 })).map(([shared, each]) =>
    each.map((one) => {
      const { end, unreadable, clocks, clockComesFirst } = shared;
      // A field that could not be read in one head is well-formed in the next.
      const odd = unreadable === undefined ? [] : [`Content-Range: ${one.isAsParsed ? unreadable : 'bytes 5-8/100'}`];
      const range = [...odd, `Content-Range: bytes ${one.first}-${one.last}${end}`];
      const clockLines = Array.from({ length: clocks }, () => `Disk-Clock: ${one.clock}`);
      const lines = clockComesFirst ? [...clockLines, ...range] : [...range, ...clockLines];
      const bytes = Buffer.from(['HTTP/1.1 206 Partial', 'Content-Length: 4', ...lines, '', 'data'].join('\r\n'));
      if (one.hit !== undefined) bytes[one.hit[0] % bytes.length] = one.hit[1];
      return bytes;
    }),
  );
  const expected: Expected = { method: 'GET', destination: { fill: 4 } };
  fc.assert(
    fc.property(similarHeads, (heads) => {
      const whole: Buffer[] = [];
      const apart: string[] = [];
      let end: string | undefined = 'between';
      for (const bytes of heads) {
        if (end !== 'between') break; // what follows is part of it
        const alone = parse([expected], [bytes]);
        end = alone.pop();
        apart.push(...alone);
        whole.push(bytes);
      }
      const together = parse(
        whole.map(() => expected),
        whole,
      );
      assert.deepEqual(together, [...apart, end]);
    }),
    { numRuns: 2000 },
  );
});

test('also what is damaged, garbled or cut off reads the same however it is split', () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }), fc.nat({ max: 3 })), { maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(response, { minLength: 1, maxLength: 3 }),
      damage,
      cuts,
      fc.boolean(),
      (sent, hits, places, closes) => {
        const expected = sent.map((one) => one.expected);
        const bytes = hits.reduce(damaged, Buffer.concat(sent.map((one) => one.bytes)));
        const whole = parse(expected, [bytes], closes);
        assert.deepEqual(parse(expected, split(bytes, places), closes), whole);
        const single = Array.from(bytes, (byte) => Buffer.of(byte));
        assert.deepEqual(parse(expected, single, closes), whole);
      },
    ),
    { numRuns: 500 },
  );
});

/** Overwrites, removes, inserts a byte, or cuts the rest off. */
function damaged(bytes: Buffer, [place, byte, kind]: [number, number, number]): Buffer {
  const at = place % (bytes.length + 1);
  const before = bytes.subarray(0, at);
  const after = bytes.subarray(at);
  switch (kind) {
    case 0:
      return Buffer.concat([before, Buffer.of(byte), after.subarray(1)]);
    case 1:
      return Buffer.concat([before, after.subarray(1)]);
    case 2:
      return Buffer.concat([before, Buffer.of(byte), after]);
    default:
      return before;
  }
}
