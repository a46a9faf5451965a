/** Unsigned 64-bit numbers (sizes, offsets) as JavaScript numbers. */

/**
 * Exact below 2^53. What is larger comes out rounded, but never below 2^53, so that every check against a disk's size
 * still refuses it.
 */
export function readU64(buffer: Buffer, at: number): number {
  return buffer.readUInt32BE(at) * 2 ** 32 + buffer.readUInt32BE(at + 4);
}

/** `value`: a whole number from 0 to 2^53 - 1. Returns where the next field starts. */
export function writeU64(buffer: Buffer, value: number, at: number): number {
  buffer.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  return buffer.writeUInt32BE(value % 2 ** 32, at + 4);
}
