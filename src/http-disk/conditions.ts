/**
 * Preconditions (RFC 9110, section 13). A disk that can be written has no validator: nothing matches, so a range that
 * depends on one becomes the whole. Dates are ignored: a disk has none.
 */
import { listMembers, type ReceivedFields } from './fields.js';

export type ConditionResult =
  | 'proceed'
  /** `If-Range` does not match: answer as if there were no `Range`. */
  | 'ignore-range'
  | 'not-modified'
  | 'failed';

/** Evaluates the fields against `etag`, the disk's validator. Cheap when there are none. */
export function evaluateConditions(method: string, fields: ReceivedFields, etag: string | undefined): ConditionResult {
  const ifMatch = fields['if-match'];
  if (ifMatch !== undefined && !matches(ifMatch, etag)) return 'failed';
  const ifNoneMatch = fields['if-none-match'];
  const reads = method === 'GET' || method === 'HEAD';
  if (ifNoneMatch !== undefined && matchesWeakly(ifNoneMatch, etag)) return reads ? 'not-modified' : 'failed';
  const ifRange = fields['if-range'];
  if (method === 'GET' && ifRange !== undefined && ifRange.trim() !== etag) return 'ignore-range';
  return 'proceed';
}

function matches(field: string, etag: string | undefined): boolean {
  return field.trim() === '*' || (etag !== undefined && listMembers(field).includes(etag));
}

function matchesWeakly(field: string, etag: string | undefined): boolean {
  return matches(field, etag) || (etag !== undefined && listMembers(field).includes(`W/${etag}`));
}
