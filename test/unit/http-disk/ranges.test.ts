import assert from 'node:assert/strict';
import test from 'node:test';
import { formatRange, parseContentRange, parseExactRange, selectRange } from '../../../src/http-disk/ranges.js';

const part = (offset: number, length: number) => ({ at: 'part', offset, length });

test('a range selects what RFC 9110 says', () => {
  const cases: [string, number, unknown][] = [
    ['bytes=0-511', 1000, part(0, 512)],
    ['bytes=0-0', 1000, part(0, 1)],
    ['bytes=500-', 1000, part(500, 500)],
    ['bytes=-100', 1000, part(900, 100)],
    ['bytes=-5000', 1000, part(0, 1000)],
    ['bytes=990-5000', 1000, part(990, 10)],
    ['Bytes= 0-1 ', 1000, part(0, 2)],
    ['bytes=0-99999999999999999999', 1000, part(0, 1000)],
    ['bytes=0-', Number.MAX_SAFE_INTEGER, part(0, Number.MAX_SAFE_INTEGER)],
  ];
  for (const [field, size, expected] of cases) assert.deepEqual(selectRange(field, size), expected, field);
});

test('a range of which nothing exists is unsatisfiable', () => {
  for (const field of ['bytes=1000-', 'bytes=1000-1001', 'bytes=-0', 'bytes=99999999999999999999-']) {
    assert.deepEqual(selectRange(field, 1000), { at: 'unsatisfiable' }, field);
  }
  assert.deepEqual(selectRange('bytes=0-', 0), { at: 'unsatisfiable' });
  assert.deepEqual(selectRange('bytes=-1', 0), { at: 'unsatisfiable' });
});

test('several ranges, another unit, and malformed ranges select the whole', () => {
  const fields = [
    'bytes=0-1,4-5',
    'lines=0-1',
    'bytes=',
    'bytes=-',
    'bytes=5-1',
    'bytes=5000-1',
    'bytes=a-b',
    'bytes=+1-2',
  ];
  for (const field of [...fields, 'bytes=1.5-2', 'bytes=0x1-2', 'bytes', '']) {
    assert.deepEqual(selectRange(field, 1000), { at: 'whole' }, field);
  }
  assert.deepEqual(selectRange(undefined, 1000), { at: 'whole' });
});

test('a Content-Range is read with any total, as curl and others write it', () => {
  for (const total of ['*', '-1', '512', '0']) {
    assert.deepEqual(parseContentRange(`bytes 1024-1535/${total}`), { first: 1024, last: 1535 }, total);
  }
});

test('a malformed Content-Range is not read', () => {
  const fields = [
    'bytes 0-511',
    'bytes 0-511/-2',
    'bytes 0-511/x',
    'bytes */5',
    'bytes 9-3/*',
    'bytes -5/*',
    'bytes 5-/*',
  ];
  for (const field of [...fields, 'bytes=0-511/*', 'bytes  0-511/*', 'items 0-1/*', '']) {
    assert.equal(parseContentRange(field), undefined, field);
  }
});

test('positions above 2^53 - 1 are behind every disk, and never wrap around', () => {
  assert.deepEqual(parseContentRange('bytes 0-18446744073709551615/*'), { first: 0, last: Number.POSITIVE_INFINITY });
  assert.deepEqual(parseExactRange('bytes=0-9007199254740991'), { first: 0, last: Number.MAX_SAFE_INTEGER });
  assert.deepEqual(parseExactRange('bytes=0-9007199254740992'), { first: 0, last: Number.POSITIVE_INFINITY });
});

test('only the exact form is an exact range', () => {
  for (const field of ['bytes=0-', 'bytes=-5', 'bytes=0-1,2-3', 'bytes=3-1', 'bytes 0-1']) {
    assert.equal(parseExactRange(field), undefined, field);
  }
});

test('an empty range cannot be written', () => {
  assert.throws(() => formatRange(0, 0), { name: 'AssertionFailure' });
});
