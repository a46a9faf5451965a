/**
 * Disk requests as HTTP requests, both ways (docs/http-disk-protocol.md).
 * Promise: decode(encode(request)) is the same request; whatever a client sends, decoding throws nothing but a `Failure`;
 * every range that decoding returns lies inside the disk.
 */
import { assert } from '../base/assert.js';
import { Failure } from '../base/failure.js';
import { isInside } from '../base/range.js';
import { decimal, isId, overflow, type ReceivedFields, wholeNumber } from './fields.js';
import type { DiskRequest, Epoch, WriteStamp } from './messages.js';
import {
  formatContentRange,
  formatRange,
  type Positions,
  parseContentRange,
  parseExactRange,
  selectRange,
} from './ranges.js';

/** The longest body of a PUT, and the longest payload of one write. */
export const bodyBytesMax = 64 * 1024 * 1024;

export interface EncodedRequest {
  readonly method: 'HEAD' | 'GET' | 'PUT' | 'POST';
  /** Lines that end in CRLF. Without Host, Content-Length and Connection: they belong to the transport. */
  readonly headers: string;
}

const encodedProbe: EncodedRequest = { method: 'HEAD', headers: '' };

/** The HTTP request for `request`. A read, write, zero, trim or map must have a length of at least one byte. */
export function encodeRequest(request: DiskRequest): EncodedRequest {
  switch (request.op) {
    case 'probe':
      return encodedProbe;
    case 'read':
      return { method: 'GET', headers: `${rangeLine(request)}${instanceLine(request.instance)}` };
    case 'write':
      return { method: 'PUT', headers: `${contentRangeLine(request)}${writeLines(request)}` };
    case 'zero': {
      const parameters = `${request.mayTrim ? '; may-trim' : ''}${request.fast ? '; fast' : ''}`;
      return {
        method: 'POST',
        headers: `Disk-Operation: zero${parameters}\r\n${contentRangeLine(request)}${writeLines(request)}`,
      };
    }
    case 'trim':
      return { method: 'POST', headers: `Disk-Operation: trim\r\n${contentRangeLine(request)}${writeLines(request)}` };
    case 'flush':
      return { method: 'POST', headers: `Disk-Operation: flush\r\n${instanceLine(request.instance)}` };
    case 'map':
      return {
        method: 'POST',
        headers: `Disk-Operation: map\r\n${rangeLine(request)}${instanceLine(request.instance)}`,
      };
  }
}

function rangeLine(range: { offset: number; length: number }): string {
  return `Range: ${formatRange(range.offset, range.length)}\r\n`;
}

function contentRangeLine(range: { offset: number; length: number }): string {
  return `Content-Range: ${formatContentRange(range.offset, range.length, '*')}\r\n`;
}

function instanceLine(instance: string | undefined): string {
  return instance === undefined ? '' : `Disk-If-Instance: ${instance}\r\n`;
}

function writeLines(write: { deferred: boolean; stamp?: WriteStamp | undefined }): string {
  const { deferred, stamp } = write;
  assert(!deferred || stamp !== undefined, 'a deferred write carries a stamp');
  if (stamp === undefined) return '';
  return `Disk-Stamp: ${formatStamp(stamp)}\r\n${deferred ? 'Disk-Durability: deferred\r\n' : ''}`;
}

/** stamp = SESSION SP GENERATION "." COUNTER SP INSTANCE SP DEADLINE */
function formatStamp({ session, epoch, instance, deadlineMs }: WriteStamp): string {
  // Rounded down: the server must not accept a write for longer than the gateway waits.
  return `${session} ${epoch.generation}.${epoch.counter} ${instance} ${Math.floor(deadlineMs)}`;
}

/** A GET that is answered with 200 and the whole disk, rather than with 206. */
export type WholeRead = Extract<DiskRequest, { op: 'read' }> & { readonly whole: true };

/**
 * The disk request in an HTTP request to a disk of `sizeBytes`. `fields` have lower-case names.
 * Throws a `Failure`: `invalid-request`, `out-of-range`, `too-large`, `unsupported`.
 */
export function decodeRequest(method: string, fields: ReceivedFields, sizeBytes: number): DiskRequest | WholeRead {
  switch (method) {
    case 'GET':
      return decodeRead(fields, sizeBytes);
    case 'HEAD':
      return { op: 'probe' };
    case 'PUT':
      return decodeWrite(fields, sizeBytes);
    case 'POST':
      return decodeOperation(fields, sizeBytes);
    default:
      throw new Failure('unsupported', 'this method is not supported');
  }
}

function decodeRead(fields: ReceivedFields, sizeBytes: number): DiskRequest | WholeRead {
  const instance = decodeInstance(fields);
  const selection = selectRange(fields['range'], sizeBytes);
  switch (selection.at) {
    case 'part':
      return { op: 'read', offset: selection.offset, length: selection.length, instance };
    case 'whole':
      return { op: 'read', offset: 0, length: sizeBytes, instance, whole: true };
    case 'unsatisfiable':
      throw new Failure('out-of-range', 'nothing of this range is on the disk');
  }
}

function decodeWrite(fields: ReceivedFields, sizeBytes: number): DiskRequest {
  const { offset, length } = decodeContentRange(fields, sizeBytes);
  if (length > bodyBytesMax) throw new Failure('too-large', `more than ${bodyBytesMax} bytes in one request`);
  const { deferred, stamp } = decodeDurability(fields);
  return { op: 'write', offset, length, deferred, stamp };
}

function decodeOperation(fields: ReceivedFields, sizeBytes: number): DiskRequest {
  const [operation = '', ...parameters] = (fields['disk-operation'] ?? '').split(';').map((part) => part.trim());
  if (operation === '') throw new Failure('invalid-request', 'a POST needs Disk-Operation');
  if (operation === 'zero') {
    const { mayTrim, fast } = decodeZeroParameters(parameters);
    return { op: 'zero', ...decodeContentRange(fields, sizeBytes), mayTrim, fast, ...decodeDurability(fields) };
  }
  if (parameters.length > 0) throw new Failure('unsupported', 'this Disk-Operation has no parameters');
  switch (operation) {
    case 'trim':
      return { op: 'trim', ...decodeContentRange(fields, sizeBytes), ...decodeDurability(fields) };
    case 'flush':
      return { op: 'flush', instance: decodeInstance(fields) };
    case 'map':
      return { op: 'map', ...decodeExactRange(fields, sizeBytes), instance: decodeInstance(fields) };
    default:
      throw new Failure('unsupported', 'this Disk-Operation is not supported');
  }
}

function decodeZeroParameters(parameters: readonly string[]): { mayTrim: boolean; fast: boolean } {
  for (const parameter of parameters) {
    if (parameter !== 'may-trim' && parameter !== 'fast') {
      throw new Failure('unsupported', 'this parameter of Disk-Operation is not supported');
    }
  }
  return { mayTrim: parameters.includes('may-trim'), fast: parameters.includes('fast') };
}

function decodeContentRange(fields: ReceivedFields, sizeBytes: number): { offset: number; length: number } {
  const field = fields['content-range'];
  if (field === undefined) throw new Failure('invalid-request', 'this request needs Content-Range');
  return insideRange(parseContentRange(field), sizeBytes);
}

function decodeExactRange(fields: ReceivedFields, sizeBytes: number): { offset: number; length: number } {
  const field = fields['range'];
  if (field === undefined) throw new Failure('invalid-request', 'this request needs Range');
  return insideRange(parseExactRange(field), sizeBytes);
}

function insideRange(positions: Positions | undefined, sizeBytes: number): { offset: number; length: number } {
  if (positions === undefined) throw new Failure('invalid-request', 'the range is malformed');
  const { first, last } = positions;
  // `last` is compared before it is computed with: it may be an overflow.
  if (last >= sizeBytes) throw new Failure('out-of-range', `the range ends behind the disk's ${sizeBytes} bytes`);
  const length = last - first + 1;
  assert(isInside(first, length, sizeBytes), 'a range in order that ends inside the disk is inside the disk');
  return { offset: first, length };
}

function decodeInstance(fields: ReceivedFields): string | undefined {
  const field = fields['disk-if-instance'];
  if (field !== undefined && !isId(field)) throw new Failure('invalid-request', 'Disk-If-Instance is malformed');
  return field;
}

function decodeDurability(fields: ReceivedFields): { deferred: boolean; stamp: WriteStamp | undefined } {
  const durability = fields['disk-durability'];
  const stamp = decodeStamp(fields['disk-stamp']);
  if (durability === undefined) return { deferred: false, stamp };
  if (durability !== 'deferred') throw new Failure('invalid-request', 'Disk-Durability is malformed');
  if (stamp === undefined) throw new Failure('invalid-request', 'a deferred write needs Disk-Stamp');
  return { deferred: true, stamp };
}

/** What one session's writes have in common, and how it was written: nearly every stamp is like the one before. */
let lastPrefix = '';
let lastIdentity: Omit<WriteStamp, 'deadlineMs'> | undefined;

function decodeStamp(field: string | undefined): WriteStamp | undefined {
  if (field === undefined) return undefined;
  const end = field.lastIndexOf(' ');
  const deadlineMs = decimal(field, end + 1);
  if (lastIdentity === undefined || end !== lastPrefix.length || !field.startsWith(lastPrefix)) {
    lastPrefix = field.slice(0, Math.max(end, 0));
    lastIdentity = decodeIdentity(lastPrefix);
  }
  if (lastIdentity === undefined || deadlineMs === undefined || deadlineMs === overflow) {
    throw new Failure('invalid-request', 'Disk-Stamp is malformed');
  }
  const { session, epoch, instance } = lastIdentity;
  return { session, epoch, instance, deadlineMs };
}

function decodeIdentity(text: string): Omit<WriteStamp, 'deadlineMs'> | undefined {
  const [session = '', epochText = '', instance = '', ...rest] = text.split(' ');
  const epoch = decodeEpoch(epochText);
  if (!isId(session) || epoch === undefined || !isId(instance) || rest.length > 0) return undefined;
  return { session, epoch, instance };
}

function decodeEpoch(text: string): Epoch | undefined {
  const [generationText = '', counterText = '', ...rest] = text.split('.');
  const generation = wholeNumber(generationText);
  const counter = wholeNumber(counterText);
  if (generation === undefined || counter === undefined || rest.length > 0) return undefined;
  return { generation, counter };
}
