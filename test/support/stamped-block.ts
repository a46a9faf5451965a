/**
 * Blocks whose content says what they are: their own number, and the value that was written. Value 0 is a block of zeroes.
 * Promise: a block that is torn, misplaced or changed in any byte is never taken for a whole one.
 */

export const blockBytes = 4096;
const unitBytes = 16;

/** block = 256 × unit · unit = number u32 · index in the block u32 · value u64 */
export function stampBlock(number: number, value: number): Buffer {
  const block = Buffer.alloc(blockBytes);
  if (value === 0) return block;
  for (let at = 0; at < blockBytes; at += unitBytes) {
    block.writeUInt32LE(number, at);
    block.writeUInt32LE(at / unitBytes, at + 4);
    block.writeBigUInt64LE(BigInt(value), at + 8);
  }
  return block;
}

/** The value that `block` holds. Throws for anything but a whole block with this number. */
export function readStamp(block: Buffer, number: number): number {
  const [value, ...others] = readStamps(block, number);
  if (value === undefined || others.length > 0) throw notItsOwn(block, number);
  return value;
}

/**
 * The values of the parts that `block` is made of: one, unless it was read while it was written. Throws if any part is not of a
 * block with this number, or not in its place.
 */
export function readStamps(block: Buffer, number: number): number[] {
  const values = new Set<number>();
  for (let at = 0; at < blockBytes; at += unitBytes) {
    const value = Number(block.readBigUInt64LE(at + 8));
    const [owner, place] = value === 0 ? [0, 0] : [number, at / unitBytes];
    if (block.readUInt32LE(at) !== owner || block.readUInt32LE(at + 4) !== place) throw notItsOwn(block, number);
    values.add(value);
  }
  return [...values];
}

function notItsOwn(block: Buffer, number: number): Error {
  const units = Array.from({ length: blockBytes / unitBytes }, (_, unit) => {
    const at = unit * unitBytes;
    return `${block.readUInt32LE(at)}.${block.readUInt32LE(at + 4)}=${block.readBigUInt64LE(at + 8)}`;
  });
  return new Error(`block ${number} is torn or not its own: ${units.slice(0, 4).join(' ')} … ${units.at(-1)}`);
}
