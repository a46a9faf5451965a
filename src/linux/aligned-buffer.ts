/** Buffers for O_DIRECT, which wants memory that starts at a block's boundary. */
import { assert } from '../base/assert.js';
import { addressOf } from './libc.js';

/** A fresh buffer of `length` bytes with arbitrary content, whose address is a multiple of `alignment` (bytes). */
export function alignedBuffer(length: number, alignment: number): Buffer {
  const whole = Buffer.allocUnsafeSlow(length + alignment);
  const over = addressOf(whole) % alignment;
  const buffer = whole.subarray(alignment - over, alignment - over + length);
  assert(addressOf(buffer) % alignment === 0, 'aligned');
  return buffer;
}
