/** The HTTP disk protocol's codecs: what is encoded decodes to the same; garbage decodes to nothing but a Failure. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Failure, type FailureCode } from '../../src/base/failure.js';
import { isInside } from '../../src/base/range.js';
import { decodeFailure, encodeFailure } from '../../src/http-disk/failure-codec.js';
import type { DiskAnswer, DiskDescription, DiskRequest, WriteStamp } from '../../src/http-disk/messages.js';
import { features } from '../../src/http-disk/messages.js';
import { bodyBytesMax, decodeRequest, encodeRequest } from '../../src/http-disk/request-codec.js';
import {
  decodeAnswer,
  decodeDescription,
  encodeAnswer,
  encodeDescription,
} from '../../src/http-disk/response-codec.js';
import { receivedLines } from '../support/received-fields.js';

const plainObject = { noNullPrototype: true };
const sizeBytes = Number.MAX_SAFE_INTEGER;
const id = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/);
const whole = fc.maxSafeNat();
const range = fc
  .tuple(fc.maxSafeNat(), fc.integer({ min: 1, max: bodyBytesMax }))
  .map(([offset, length]) => ({ offset: Math.min(offset, sizeBytes - length), length }));
const stamp: fc.Arbitrary<WriteStamp> = fc.record(
  {
    session: id,
    epoch: fc.record({ generation: whole, counter: whole }, plainObject),
    instance: id,
    deadlineMs: whole,
  },
  plainObject,
);
const durability = fc.oneof(
  fc.constant({ deferred: false, stamp: undefined }),
  fc.tuple(fc.boolean(), stamp).map(([deferred, given]) => ({ deferred, stamp: given })),
);
const instance = fc.option(id, { nil: undefined });
const flags = fc.record({ mayTrim: fc.boolean(), fast: fc.boolean() }, plainObject);

type Operation = Exclude<DiskRequest, { op: 'probe' }>;
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.tuple(range, instance).map(([part, of]): Operation => ({ op: 'read', ...part, instance: of })),
  fc.tuple(range, durability).map(([part, how]): Operation => ({ op: 'write', ...part, ...how })),
  fc.tuple(range, flags, durability).map(([part, zero, how]): Operation => ({ op: 'zero', ...part, ...zero, ...how })),
  fc.tuple(range, durability).map(([part, how]): Operation => ({ op: 'trim', ...part, ...how })),
  instance.map((of): Operation => ({ op: 'flush', instance: of })),
  fc.tuple(range, instance).map(([part, of]): Operation => ({ op: 'map', ...part, instance: of })),
);

function guarded(request: Operation): boolean {
  return ('stamp' in request ? request.stamp : 'instance' in request ? request.instance : undefined) !== undefined;
}

test('a request survives the trip', () => {
  fc.assert(
    fc.property(operation, (request) => {
      const { method, headers } = encodeRequest(request);
      assert.match(headers, /^(?:[A-Za-z-]+: [^\r\n]+\r\n)+$/);
      assert.deepEqual(decodeRequest(method, receivedLines(headers), sizeBytes), request);
    }),
  );
});

test('an answer survives the trip', () => {
  fc.assert(
    fc.property(operation, id, whole, fc.array(fc.integer({ min: 1, max: 1000 })), (request, by, clockMs, lengths) => {
      const answer: DiskAnswer = guarded(request)
        ? { instance: by, clockMs }
        : { instance: undefined, clockMs: undefined };
      const given = request.op === 'map' ? { ...answer, extents: someExtents(request, lengths) } : answer;
      const disk = { sizeBytes, readOnly: false, instance: by };
      const { status, headers, body } = encodeAnswer(request, given, disk);
      assert.deepEqual(decodeAnswer(request, status, receivedLines(headers), body), given);
    }),
  );
});

function someExtents({ offset, length }: { offset: number; length: number }, lengths: number[]) {
  const extents = [];
  let position = offset;
  for (const wanted of [...lengths, 1]) {
    const part = Math.min(wanted, offset + length - position);
    if (part > 0)
      extents.push({ offset: position, length: part, kind: (['data', 'zero', 'hole'] as const)[part % 3] ?? 'data' });
    position += part;
  }
  return extents;
}

test('a description survives the trip', () => {
  const blockBytes = fc.integer({ min: 0, max: 31 }).map((bits) => 2 ** bits);
  const description: fc.Arbitrary<DiskDescription> = fc.record(
    {
      sizeBytes: whole,
      readOnly: fc.boolean(),
      features: fc.subarray([...features]).map((some) => new Set(some)),
      instance: id,
      clockMs: whole,
      logicalBlockBytes: blockBytes,
      physicalBlockBytes: blockBytes,
      endpoint: fc.constantFrom(undefined, '127.0.0.1:8000', '[::1]:65535', '[fe80::1%eth0]:1'),
    },
    plainObject,
  );
  fc.assert(
    fc.property(description, (given) => {
      const { status, headers } = encodeDescription(given);
      assert.deepEqual(decodeDescription(status, receivedLines(headers)), given);
    }),
  );
});

const wireCodes: FailureCode[] = [
  ...(['invalid-request', 'out-of-range', 'too-large', 'unsupported', 'read-only', 'no-space', 'disk-error'] as const),
  ...(['stale-epoch', 'other-instance', 'deadline-passed', 'unavailable', 'wrong-disk'] as const),
];

test('a failure survives the trip, with the instance and clock of who refused', () => {
  fc.assert(
    fc.property(
      operation,
      fc.constantFrom(...wireCodes),
      fc.string({ unit: 'binary' }),
      id,
      whole,
      (request, code, text, by, at) => {
        const answer = { instance: by, clockMs: at };
        const { status, headers, body } = encodeFailure(new Failure(code, text), { sizeBytes, answer });
        assert.match(body, /^[^\r\n]*\n$/u);
        const fields = receivedLines(headers);
        assert.equal(decodeFailure(request, status, fields, body).code, code);
        assert.equal(fields['disk-instance'], by);
        assert.equal(fields['disk-clock'], String(at));
      },
    ),
  );
});

const names = [
  ...['range', 'content-range', 'disk-operation', 'disk-stamp', 'disk-durability', 'disk-if-instance', 'disk-error'],
  ...[
    'content-length',
    'disk-clock',
    'disk-instance',
    'disk-features',
    'disk-block-size',
    'disk-endpoint',
    'content-type',
  ],
];
const almost = fc.constantFrom(
  ...[
    'bytes=0-',
    'bytes=-1',
    'bytes=5-1',
    'bytes=0-0,2-3',
    'bytes 0-511/-1',
    'bytes 0-511/*',
    'bytes 3-1/*',
    'bytes */5',
  ],
  ...[
    'zero; fast',
    'zero;',
    'flush',
    'trim',
    'map',
    'deferred',
    's 1.2 i 99',
    's 1.2 i -1',
    's 1 i 1',
    ' ',
    '512/4096',
    '1e3',
  ],
  ...['bytes=0-99999999999999999999', 'bytes 0-9007199254740992/*', '18446744073709551616', '+1', '0x10', 'session'],
);
const garbage = fc.dictionary(fc.constantFrom(...names), fc.oneof(almost, fc.string(), fc.maxSafeNat().map(String)));

/** Runs `decode`; whatever it throws must be a Failure. */
function onlyFailures(decode: () => void): void {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
  }
}

test('a garbled request is refused, or lies inside the disk', () => {
  const method = fc.oneof(fc.constantFrom('GET', 'PUT', 'POST', 'HEAD'), fc.string());
  fc.assert(
    fc.property(method, garbage, fc.oneof(fc.nat(2000), whole), (verb, fields, size) => {
      onlyFailures(() => {
        const request = decodeRequest(verb, fields, size);
        if ('offset' in request) assert.ok(isInside(request.offset, request.length, size));
      });
    }),
    { numRuns: 1000 },
  );
});

test('a garbled answer is refused with a Failure', () => {
  const status = fc.oneof(fc.constantFrom(200, 204, 206, 412, 503), fc.nat(999));
  const body = fc.oneof(fc.json(), fc.string(), fc.constant('[[1,"data"]]'));
  fc.assert(
    fc.property(operation, status, garbage, body, (request, code, fields, text) => {
      onlyFailures(() => decodeAnswer(request, code, fields, text));
      onlyFailures(() => decodeDescription(code, fields));
      decodeFailure(request, code, fields, text);
    }),
    { numRuns: 1000 },
  );
});
