import assert from 'node:assert/strict';
import test from 'node:test';
import { bulkBuffer } from '../../../src/base/bulk-buffer.js';
import { addressOf } from '../../../src/linux/libc.js';

test('a large buffer does not start just behind the start of a page', () => {
  for (let length = 128 * 1024; length <= 8 * 1024 * 1024; length *= 2) {
    const buffer = bulkBuffer(length);
    assert.equal(buffer.length, length);
    const place = addressOf(buffer) % 4096;
    assert.ok(place === 0 || place >= 32, `${length} bytes at ${place}`);
  }
});
