/** What the codecs make of requests and answers that others wrote: curl, old servers, plain servers, proxies. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { FailureCode } from '../../../src/base/failure.js';
import { evaluateConditions } from '../../../src/http-disk/conditions.js';
import { decodeFailure } from '../../../src/http-disk/failure-codec.js';
import { decodeRequest } from '../../../src/http-disk/request-codec.js';
import { decodeAnswer, decodeDescription, encodeDescription } from '../../../src/http-disk/response-codec.js';

const size = 16 * 1024 * 1024;
const refusedAs = (code: FailureCode) => ({ name: 'Failure', code });

test('an old gateway is understood', () => {
  assert.deepEqual(decodeRequest('HEAD', { host: 'x' }, size), { op: 'probe' });
  assert.deepEqual(decodeRequest('GET', { range: 'bytes=0-511' }, size), {
    ...{ op: 'read', offset: 0, length: 512, instance: undefined },
  });
  const put = { 'content-range': 'bytes 0-511/-1', 'transfer-encoding': 'chunked', expect: '100-continue' };
  assert.deepEqual(decodeRequest('PUT', put, size), {
    ...{ op: 'write', offset: 0, length: 512, deferred: false, stamp: undefined },
  });
});

test('a stamp that is nearly the one before is another one', () => {
  const decode = (stamp: string) => {
    const request = decodeRequest('PUT', { 'content-range': 'bytes 0-0/*', 'disk-stamp': stamp }, size);
    return 'stamp' in request ? request.stamp : undefined;
  };
  const epoch = { generation: 1, counter: 2 };
  assert.deepEqual(decode('s 1.2 i 5'), { session: 's', epoch, instance: 'i', deadlineMs: 5 });
  assert.deepEqual(decode('s 1.2 i 6'), { session: 's', epoch, instance: 'i', deadlineMs: 6 });
  assert.deepEqual(decode('s 1.2 ix 6'), { session: 's', epoch, instance: 'ix', deadlineMs: 6 });
  assert.deepEqual(decode('t 1.2 ix 6'), { session: 't', epoch, instance: 'ix', deadlineMs: 6 });
  assert.throws(() => decode('t 1.2 i? 6'), refusedAs('invalid-request'));
  assert.throws(() => decode('t 1.2 i? 6'), refusedAs('invalid-request'));
  assert.throws(() => decode('t 1.2 ix'), refusedAs('invalid-request'));
  assert.deepEqual(decode('t 1.2 ix 6'), { session: 't', epoch, instance: 'ix', deadlineMs: 6 });
});

test('requests that cannot be served are refused with the right code', () => {
  const cases: [string, Record<string, string>, FailureCode][] = [
    ['PUT', {}, 'invalid-request'],
    ['PUT', { 'content-range': 'bytes 5-1/*' }, 'invalid-request'],
    ['PUT', { 'content-range': `bytes 0-${size}/*` }, 'out-of-range'],
    ['PUT', { 'content-range': 'bytes 0-18446744073709551616/*' }, 'out-of-range'],
    ['PUT', { 'content-range': 'bytes 0-0/*', 'disk-durability': 'deferred' }, 'invalid-request'],
    ['PUT', { 'content-range': 'bytes 0-0/*', 'disk-durability': 'soon' }, 'invalid-request'],
    ['PUT', { 'content-range': 'bytes 0-0/*', 'disk-stamp': 's 1.1 i' }, 'invalid-request'],
    ['PUT', { 'content-range': 'bytes 0-0/*', 'disk-stamp': 's 1.1 i 5 6' }, 'invalid-request'],
    ['PUT', { 'content-range': 'bytes 0-0/*', 'disk-stamp': 's 1.-1 i 5' }, 'invalid-request'],
    ['PUT', { 'content-range': 'bytes 0-0/*', 'disk-stamp': 's 1.9007199254740992 i 5' }, 'invalid-request'],
    ['GET', { range: `bytes=${size}-` }, 'out-of-range'],
    ['GET', { 'disk-if-instance': 'a b' }, 'invalid-request'],
    ['POST', {}, 'invalid-request'],
    ['POST', { 'disk-operation': 'format' }, 'unsupported'],
    ['POST', { 'disk-operation': 'zero; quickly', 'content-range': 'bytes 0-0/*' }, 'unsupported'],
    ['POST', { 'disk-operation': 'trim' }, 'invalid-request'],
    ['POST', { 'disk-operation': 'map', range: 'bytes=0-' }, 'invalid-request'],
    ['POST', { 'disk-operation': 'map', range: `bytes=0-${size}` }, 'out-of-range'],
    ['DELETE', {}, 'unsupported'],
  ];
  for (const [method, fields, code] of cases) {
    assert.throws(() => decodeRequest(method, fields, size), refusedAs(code), `${method} ${JSON.stringify(fields)}`);
  }
  const large = { 'content-range': `bytes 0-${64 * 1024 * 1024}/*` };
  assert.throws(() => decodeRequest('PUT', large, 2 ** 40), refusedAs('too-large'));
});

test('a GET without a usable range reads the whole disk', () => {
  const whole = { op: 'read', offset: 0, length: size, instance: undefined, whole: true };
  assert.deepEqual(decodeRequest('GET', {}, size), whole);
  assert.deepEqual(decodeRequest('GET', { range: 'bytes=0-1,3-4' }, size), whole);
});

const read = { op: 'read', offset: 1048576, length: 512 } as const;
const write = { op: 'write', offset: 0, length: 512, deferred: false } as const;
const stamp = { session: 's', epoch: { generation: 1, counter: 1 }, instance: 'i', deadlineMs: 5 };

test("the old server's wrong Content-Range is not looked at, our own server's is", () => {
  const fields = { 'content-range': 'bytes 1048576-511/16777216', 'content-length': '512' };
  assert.deepEqual(decodeAnswer(read, 206, fields), { instance: undefined, clockMs: undefined });
  const small = { op: 'read', offset: 256, length: 512 } as const;
  decodeAnswer(small, 206, { 'content-range': 'bytes 256-511/16777216' });
  const ours = { 'disk-instance': 'i', 'disk-clock': '5' };
  assert.throws(() => decodeAnswer(read, 206, { ...fields, ...ours }), refusedAs('malformed-response'));
  assert.throws(
    () => decodeAnswer(small, 206, { ...ours, 'content-range': 'bytes 256-511/16777216' }),
    refusedAs('malformed-response'),
  );
});

test('data that is not what was asked for is refused', () => {
  const cases: [number, Record<string, string>][] = [
    [200, { 'content-length': '512' }],
    [204, {}],
    [206, { 'content-length': '511' }],
    [206, { 'content-range': 'bytes 0-511/16777216' }],
    [206, { 'content-type': 'multipart/byteranges; boundary=x' }],
    [206, { 'content-encoding': 'gzip' }],
    [206, { 'disk-instance': 'not an id' }],
  ];
  for (const [status, fields] of cases) {
    assert.throws(() => decodeAnswer(read, status, fields), refusedAs('malformed-response'), JSON.stringify(fields));
  }
});

test('an answer to a guarded request without the instance is refused', () => {
  const guarded = { ...read, instance: 'i' };
  const fields = { 'content-range': 'bytes 1048576-1049087/16777216' };
  assert.throws(() => decodeAnswer(guarded, 206, fields), refusedAs('malformed-response'));
  assert.throws(() => decodeAnswer({ ...write, stamp }, 200, {}), refusedAs('malformed-response'));
});

test('a write is done when an old server says 200 or a plain one 204, and with nothing else', () => {
  decodeAnswer(write, 200, {}, 'Ok.');
  decodeAnswer(write, 204, {});
  for (const status of [201, 202, 206]) {
    assert.throws(() => decodeAnswer(write, status, {}), refusedAs('malformed-response'));
  }
});

test('a map that leaves its range or makes no sense is refused', () => {
  const map = { op: 'map', offset: 100, length: 50 } as const;
  assert.deepEqual(decodeAnswer(map, 200, {}, '[[20,"data"],[30,"hole"]]').extents, [
    { offset: 100, length: 20, kind: 'data' },
    { offset: 120, length: 30, kind: 'hole' },
  ]);
  for (const body of [
    '',
    '[]',
    '{}',
    '[[51,"data"]]',
    '[[0,"data"]]',
    '[[-1,"data"]]',
    '[[1.5,"data"]]',
    '[[1,"gone"]]',
  ]) {
    assert.throws(() => decodeAnswer(map, 200, {}, body), refusedAs('malformed-response'), body);
  }
});

test('a plain server is described by its length alone', () => {
  const { features, instance, ...rest } = decodeDescription(200, {
    'content-length': '4096',
    'accept-ranges': 'bytes',
  });
  assert.equal(features.size, 0);
  assert.equal(instance, undefined);
  assert.equal(rest.sizeBytes, 4096);
  assert.equal(rest.readOnly, false);
});

test('a description without what it needs is refused', () => {
  const cases: [number, Record<string, string>, FailureCode][] = [
    [200, {}, 'malformed-response'],
    [200, { 'content-length': '1e3' }, 'malformed-response'],
    [200, { 'content-length': '9007199254740992' }, 'malformed-response'],
    [200, { 'content-length': '5', 'content-encoding': 'gzip' }, 'malformed-response'],
    [200, { 'content-length': '5', 'disk-features': 'session' }, 'malformed-response'],
    [200, { 'content-length': '5', 'disk-block-size': '500/4096' }, 'malformed-response'],
    [200, { 'content-length': '5', 'accept-ranges': 'none' }, 'server-error'],
    [206, { 'content-length': '5' }, 'malformed-response'],
    [404, {}, 'not-found'],
    [503, { 'disk-error': 'unavailable' }, 'unavailable'],
  ];
  for (const [status, fields, code] of cases) {
    assert.throws(() => decodeDescription(status, fields), refusedAs(code), JSON.stringify(fields));
  }
});

test('an endpoint that cannot be read is as good as none', () => {
  const fields = { 'content-length': '5', 'disk-endpoint': 'evil host:1' };
  assert.equal(decodeDescription(200, fields).endpoint, undefined);
});

test('a status without Disk-Error means what it means to a plain server', () => {
  const plain = (request: Parameters<typeof decodeFailure>[0], status: number) =>
    decodeFailure(request, status, {}, '').code;
  assert.equal(plain(read, 403), 'access-denied');
  assert.equal(plain(read, 401), 'access-denied');
  assert.equal(plain(write, 401), 'access-denied');
  for (const status of [403, 405, 501]) assert.equal(plain(write, status), 'read-only');
  assert.equal(plain(read, 404), 'not-found');
  assert.equal(plain(read, 412), 'wrong-disk');
  assert.equal(plain(read, 416), 'out-of-range');
  assert.equal(plain(write, 503), 'unavailable');
  for (const status of [302, 408, 500, 502, 504]) assert.equal(plain(write, status), 'server-error');
});

test("a proxy's 503 does not say that a stamped write was not applied, our server's does", () => {
  const stamped = { ...write, stamp };
  assert.equal(decodeFailure(stamped, 503, {}, '').code, 'server-error');
  assert.equal(decodeFailure(stamped, 503, { 'disk-error': 'unavailable' }, '').code, 'unavailable');
});

test('Disk-Error counts only with its own status', () => {
  assert.equal(decodeFailure(write, 500, { 'disk-error': 'unavailable' }, '').code, 'server-error');
  assert.equal(decodeFailure(write, 500, { 'disk-error': 'toString' }, '').code, 'server-error');
});

test("a failure's message is one bounded line of plain text", () => {
  const text = { 'content-type': 'text/plain' };
  assert.equal(decodeFailure(read, 503, text, 'a\u0007b\nsecond line').message, 'HTTP status 503: a b');
  assert.ok(decodeFailure(read, 503, text, 'x'.repeat(5000)).message.length < 300);
  assert.equal(decodeFailure(read, 503, { 'content-type': 'text/html' }, '<html>').message, 'HTTP status 503');
});

test('only a disk that cannot be written has a validator', () => {
  const disk = {
    ...{ sizeBytes: 5, features: new Set<never>(), instance: 'i', clockMs: 1.5, endpoint: undefined },
    ...{ logicalBlockBytes: 512, physicalBlockBytes: 4096 },
  };
  const writable = encodeDescription({ ...disk, readOnly: false }).headers;
  assert.doesNotMatch(writable, /ETag/);
  assert.match(writable, /^Cache-Control: .*\bno-store\b/m);
  const readOnly = encodeDescription({ ...disk, readOnly: true }).headers;
  assert.match(readOnly, /^ETag: "i"\r$/m);
  assert.doesNotMatch(readOnly, /no-store/);
});

test('conditions are decided by the validator, and fail where there is none', () => {
  const cases: [string, Record<string, string>, string | undefined, string][] = [
    ['GET', {}, '"i"', 'proceed'],
    ['GET', { 'if-match': '"x", "i"' }, '"i"', 'proceed'],
    ['PUT', { 'if-match': '"x"' }, '"i"', 'failed'],
    ['GET', { 'if-match': '"i"' }, undefined, 'failed'],
    ['PUT', { 'if-match': '*' }, undefined, 'proceed'],
    ['GET', { 'if-match': 'W/"i"' }, '"i"', 'failed'],
    ['GET', { 'if-none-match': 'W/"i"' }, '"i"', 'not-modified'],
    ['HEAD', { 'if-none-match': '"i"' }, '"i"', 'not-modified'],
    ['GET', { 'if-none-match': '"x"' }, '"i"', 'proceed'],
    ['PUT', { 'if-none-match': '*' }, undefined, 'failed'],
    ['GET', { 'if-range': '"i"' }, '"i"', 'proceed'],
    ['GET', { 'if-range': '"x"' }, '"i"', 'ignore-range'],
    ['GET', { 'if-range': 'Wed, 21 Oct 2015 07:28:00 GMT' }, '"i"', 'ignore-range'],
    ['GET', { 'if-range': '"i"' }, undefined, 'ignore-range'],
  ];
  for (const [method, fields, etag, expected] of cases) {
    assert.equal(evaluateConditions(method, fields, etag), expected, `${method} ${JSON.stringify(fields)} ${etag}`);
  }
});
