/**
 * Byte ranges as HTTP writes them (RFC 9110, section 14), both ways. Promise: positions never overflow; a position above
 * 2^53 - 1 is a position behind the end of every disk.
 */
import { assert } from '../base/assert.js';
import type { ByteRange } from '../base/range.js';
import { decimal } from './fields.js';

/** `bytes=A-B`. HTTP has no words for an empty range. */
export function formatRange(offset: number, length: number): string {
  assert(length > 0, 'an empty range cannot be written in HTTP');
  return `bytes=${offset}-${offset + length - 1}`;
}

/** `bytes A-B/SIZE`; without a size `bytes A-B/*`. */
export function formatContentRange(offset: number, length: number, sizeBytes: number | '*'): string {
  assert(length > 0, 'an empty range cannot be written in HTTP');
  return `bytes ${offset}-${offset + length - 1}/${sizeBytes}`;
}

/** The Content-Range of a 416. */
export function formatUnsatisfiedRange(sizeBytes: number): string {
  return `bytes */${sizeBytes}`;
}

export type Selection =
  | { readonly at: 'whole' }
  | ({ readonly at: 'part' } & ByteRange)
  /** Nothing of what was asked for exists. */
  | { readonly at: 'unsatisfiable' };

const whole: Selection = { at: 'whole' };
const unsatisfiable: Selection = { at: 'unsatisfiable' };

/**
 * What a `Range` field selects of `sizeBytes` (RFC 9110, section 14.2): `A-B` and `A-` cut off at the end, `-N` the last N
 * bytes. Another unit, several ranges and malformed ones select the whole, as if the field were not there.
 */
export function selectRange(field: string | undefined, sizeBytes: number): Selection {
  if (field === undefined) return whole;
  const positions = field.startsWith('bytes=') ? field.slice(6) : (/^bytes=(.*)$/i.exec(field)?.[1] ?? '');
  const text = positions.trim();
  const dash = text.indexOf('-');
  if (dash < 0) return whole;
  return dash === 0 ? selectSuffix(text, sizeBytes) : selectFrom(text, dash, sizeBytes);
}

function selectSuffix(text: string, sizeBytes: number): Selection {
  const suffix = decimal(text, 1);
  if (suffix === undefined) return whole;
  const length = Math.min(suffix, sizeBytes);
  return length === 0 ? unsatisfiable : { at: 'part', offset: sizeBytes - length, length };
}

function selectFrom(text: string, dash: number, sizeBytes: number): Selection {
  const first = decimal(text, 0, dash);
  const last = dash + 1 === text.length ? sizeBytes - 1 : decimal(text, dash + 1);
  if (first === undefined || last === undefined) return whole;
  if (first >= sizeBytes) return last < first && dash + 1 < text.length ? whole : unsatisfiable;
  if (last < first) return whole;
  return { at: 'part', offset: first, length: Math.min(last, sizeBytes - 1) - first + 1 };
}

/** A range that was asked for by exact positions. `last` (inclusive) may be beyond every disk, also by overflow. */
export interface Positions {
  readonly first: number;
  readonly last: number;
}

/**
 * The positions of `Range: bytes=A-B`. Undefined for every other form: an operation of our own needs exact positions.
 */
export function parseExactRange(field: string): Positions | undefined {
  return field.startsWith('bytes=') ? parsePositions(field, 6, field.length) : undefined;
}

/**
 * The positions of `Content-Range: bytes A-B/TOTAL`. TOTAL may be a number, `*`, or `-1` as curl writes it for a
 * chunked upload. It is not looked at: curl puts the length of its upload there. Undefined: malformed.
 */
export function parseContentRange(field: string): Positions | undefined {
  const slash = field.indexOf('/');
  if (slash < 0 || !(field.startsWith('bytes ') || /^bytes /i.test(field))) return undefined;
  const total = field.slice(slash + 1);
  if (total !== '*' && !isTotal(total.trimEnd())) return undefined;
  return parsePositions(field, 6, slash);
}

function isTotal(text: string): boolean {
  return text === '*' || text === '-1' || decimal(text) !== undefined;
}

function parsePositions(field: string, start: number, end: number): Positions | undefined {
  const dash = field.indexOf('-', start);
  if (dash < 0 || dash >= end) return undefined;
  const first = decimal(field, start, dash);
  const last = decimal(field, dash + 1, end);
  if (first === undefined || last === undefined || last < first) return undefined;
  return { first, last };
}
