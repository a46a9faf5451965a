import assert from 'node:assert/strict';
import test from 'node:test';
import { KnownBytes } from '../../../src/base/known-bytes.js';

const text = 'GET 12 of the disk, in words that are longer than a short loop is good for: 7.';
const gaps = [
  { start: 4, end: 6 },
  { start: text.length - 2, end: text.length - 1 },
];

/** A gap takes digits, at least one. */
function endOfDigits(bytes: Buffer, at: number): number {
  let end = at;
  while ((bytes[end] ?? 0) >= 0x30 && (bytes[end] ?? 0) <= 0x39) end++;
  return end === at ? -1 : end;
}

function match(known: KnownBytes<(typeof gaps)[number]>, bytes: Buffer, at = 0, end = bytes.length): number {
  return known.match(bytes, at, end, (_gap, place) => endOfDigits(bytes, place));
}

test('what differs only in the gaps is recognized, wherever it lies and however long the gaps are', () => {
  const known = new KnownBytes(Buffer.from(text), gaps);
  const like = text.replace('12', '3').replace('7.', '12345.');
  assert.equal(match(known, Buffer.from(text)), text.length);
  assert.equal(match(known, Buffer.from(`before${like}after`), 6), 6 + like.length);
  assert.equal(match(known, Buffer.from(like), 0, like.length - 1), -1, 'not all there');
  for (const other of [text.replace('GET', 'PUT'), text.replace('disk', 'desk'), text.replace('12', 'x'), '']) {
    assert.equal(match(known, Buffer.from(other)), -1, other);
  }
});

test('what is known stays so when the memory that it was learnt from is used again', () => {
  const memory = Buffer.from(text);
  const known = new KnownBytes(memory, gaps);
  memory.write('PUT');
  assert.equal(match(known, memory), -1);
  assert.equal(match(known, Buffer.from(text)), text.length);
});
