/**
 * The allocation map: [[LENGTH,"data"],[LENGTH,"hole"],[LENGTH,"zero"],…] in JSON, gapless from the first position that was
 * asked for, 1 to 4096 extents.
 */
import { assert } from '../base/assert.js';
import type { Extent, ExtentKind } from '../base/range.js';

export const extentsMax = 4096;

export function encodeExtents(extents: readonly Extent[]): string {
  assert(extents.length >= 1 && extents.length <= extentsMax, 'a map has 1 to 4096 extents');
  return JSON.stringify(extents.map((extent) => [extent.length, extent.kind]));
}

/** The extents from `offset` on; undefined unless `text` is a map that ends inside `offset + length`. */
export function decodeExtents(text: string, offset: number, length: number): Extent[] | undefined {
  const parsed = parseJson(text);
  if (!Array.isArray(parsed) || parsed.length < 1 || parsed.length > extentsMax) return undefined;
  const extents: Extent[] = [];
  let position = offset;
  for (const member of parsed as unknown[]) {
    const extent = decodeExtent(member, position);
    if (extent === undefined || extent.length > offset + length - position) return undefined;
    extents.push(extent);
    position += extent.length;
  }
  return extents;
}

function decodeExtent(member: unknown, offset: number): Extent | undefined {
  if (!Array.isArray(member) || member.length !== 2) return undefined;
  const [length, kind] = member as unknown[];
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 1 || !isKind(kind)) return undefined;
  return { offset, length, kind };
}

function isKind(kind: unknown): kind is ExtentKind {
  return kind === 'data' || kind === 'zero' || kind === 'hole';
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
