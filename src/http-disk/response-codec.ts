/**
 * What a server answers, as HTTP, both ways (docs/http-disk-protocol.md). Our own servers' answers are taken literally;
 * old and plain servers' with the tolerance that they need, and no more.
 * Promise: decode(encode(answer)) is the same answer; whatever a server sends, decoding throws nothing but a `Failure`.
 *
 * The data of a read travels beside the fields: whoever receives it checks that it has exactly the requested length.
 */
import { Failure } from '../base/failure.js';
import type { Extent } from '../base/range.js';
import { decodeFailure, decodeProbeFailure } from './failure-codec.js';
import { instanceLines, isEndpoint, isId, listMembers, type ReceivedFields, wholeNumber } from './fields.js';
import { decodeExtents, encodeExtents } from './map-codec.js';
import { type DiskAnswer, type DiskDescription, type DiskRequest, type Feature, features } from './messages.js';
import { formatContentRange, parseContentRange } from './ranges.js';
import type { WholeRead } from './request-codec.js';

/** `body` is text; a read's data is not in here, but `Content-Length` counts it. */
export interface EncodedResponse {
  readonly status: number;
  /** Lines that end in CRLF, spelt as plain HTTP clients of old expect them (`Accept-Ranges`, not `accept-ranges`). */
  readonly headers: string;
  readonly body: string;
}

/** What every plain answer tells of the disk. */
export interface DiskFacts {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly instance: string | undefined;
}

/** The validator of a disk that cannot be written: it changes with the instance. Others have none. */
export function entityTag(disk: DiskFacts): string | undefined {
  return disk.readOnly && disk.instance !== undefined ? `"${disk.instance}"` : undefined;
}

function cacheLines(disk: DiskFacts): string {
  const etag = entityTag(disk);
  return etag === undefined
    ? 'Cache-Control: no-store, no-transform\r\n'
    : `Cache-Control: no-transform\r\nETag: ${etag}\r\n`;
}

/** The answer to HEAD. */
export function encodeDescription(description: DiskDescription): EncodedResponse {
  const { sizeBytes, readOnly, logicalBlockBytes, physicalBlockBytes, endpoint } = description;
  const announced = [...description.features].join(', ');
  const headers =
    `Accept-Ranges: bytes\r\nContent-Length: ${sizeBytes}\r\nContent-Type: application/octet-stream\r\n` +
    cacheLines(description) +
    (announced === '' ? '' : `Disk-Features: ${announced}\r\n`) +
    `Disk-Block-Size: ${logicalBlockBytes}/${physicalBlockBytes}\r\n` +
    (readOnly ? 'Disk-Read-Only: 1\r\n' : '') +
    instanceLines(description) +
    (endpoint === undefined ? '' : `Disk-Endpoint: ${endpoint}\r\n`);
  return { status: 200, headers, body: '' };
}

/** The answer to a conditional request for what the client already has. */
export function encodeNotModified(disk: DiskFacts): EncodedResponse {
  return { status: 304, headers: cacheLines(disk), body: '' };
}

/** The answer to a request that has succeeded. */
export function encodeAnswer(
  request: Exclude<DiskRequest, { op: 'probe' }> | WholeRead,
  answer: DiskAnswer,
  disk: DiskFacts,
): EncodedResponse {
  if (request.op === 'read') return encodeReadAnswer(request, answer, disk);
  if (request.op === 'map') {
    const body = encodeExtents(answer.extents ?? []);
    const lines = `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`;
    return { status: 200, headers: `${lines}Cache-Control: no-store\r\n${instanceLines(answer)}`, body };
  }
  return { status: 200, headers: okLines + instanceLines(answer), body: okBody };
}

const okBody = 'Ok.\n';
const okLines = `Content-Type: text/plain; charset=utf-8\r\nContent-Length: ${okBody.length}\r\nCache-Control: no-store\r\n`;

function encodeReadAnswer(
  request: { offset: number; length: number },
  answer: DiskAnswer,
  disk: DiskFacts,
): EncodedResponse {
  const { offset, length } = request;
  const headers =
    `Accept-Ranges: bytes\r\nContent-Length: ${length}\r\nContent-Type: application/octet-stream\r\n` +
    cacheLines(disk) +
    instanceLines(answer);
  if ('whole' in request) return { status: 200, headers, body: '' };
  const range = `Content-Range: ${formatContentRange(offset, length, disk.sizeBytes)}\r\n`;
  return { status: 206, headers: headers + range, body: '' };
}

/**
 * The description in an answer to HEAD. `fields` have lower-case names.
 * A server without `Disk-` fields is a plain one: no extensions; whether it takes writes is not known, so not read-only.
 * `askedAt`: the `ADDRESS:PORT` that was connected to, unless there is a proxy.
 * Throws a `Failure`: what the status says (`NoDisk` among others), or `malformed-response`.
 */
export function decodeDescription(status: number, fields: ReceivedFields, askedAt?: string): DiskDescription {
  if (status !== 200) throw decodeProbeFailure(status, fields, askedAt);
  if (fields['accept-ranges']?.trim().toLowerCase() === 'none') {
    throw new Failure('server-error', 'the server does not serve byte ranges');
  }
  requireUnencoded(fields);
  const { instance, clockMs } = decodeInstance(fields);
  const announced = decodeFeatures(fields['disk-features']);
  if (announced.has('session') && (instance === undefined || clockMs === undefined)) {
    throw malformed('sessions are announced without Disk-Instance or Disk-Clock');
  }
  const endpoint = fields['disk-endpoint'];
  return {
    sizeBytes: required(fields['content-length'], 'Content-Length'),
    readOnly: fields['disk-read-only'] === '1',
    features: announced,
    instance,
    clockMs,
    ...decodeBlockSize(fields['disk-block-size']),
    // Only good for a short cut: one that cannot be read is as good as none.
    endpoint: endpoint !== undefined && isEndpoint(endpoint) ? endpoint : undefined,
  };
}

/**
 * The answer to `request`, which is anything but a probe. `body` is needed for a map only.
 * Throws a `Failure`: what the status says (of `body`, one line goes into its message), or `malformed-response`.
 */
export function decodeAnswer(
  request: Exclude<DiskRequest, { op: 'probe' }>,
  status: number,
  fields: ReceivedFields,
  body = '',
): DiskAnswer {
  if (status < 200 || status > 299) throw decodeFailure(request, status, fields, body);
  const { instance, clockMs } = decodeInstance(fields);
  const guarded = 'stamp' in request ? request.stamp : 'instance' in request ? request.instance : undefined;
  if (guarded !== undefined && (instance === undefined || clockMs === undefined)) {
    throw malformed('an answer without Disk-Instance or Disk-Clock');
  }
  switch (request.op) {
    case 'read':
      requireData(request, status, fields, instance !== undefined);
      return { instance, clockMs };
    case 'map': {
      if (status !== 200) throw malformed(`status ${status} for a map`);
      return { instance, clockMs, extents: decodeMap(body, request) };
    }
    default:
      // 204 is how plain servers that take partial PUTs say the same.
      if (status !== 200 && status !== 204) throw malformed(`status ${status} for an operation that changes the disk`);
      return { instance, clockMs };
  }
}

function decodeMap(body: string, range: { offset: number; length: number }): Extent[] {
  const extents = decodeExtents(body, range.offset, range.length);
  if (extents === undefined) throw malformed('a map that cannot be read');
  return extents;
}

/**
 * A 206 must be about the range that was asked for. The old server's Content-Range ends with the length instead of the
 * last position, so the end is looked at only when our own server says it; the start is right in both.
 */
function requireData(
  request: { offset: number; length: number },
  status: number,
  fields: ReceivedFields,
  ours: boolean,
): void {
  if (status !== 206) throw malformed(`status ${status} for a read of a range`);
  requireUnencoded(fields);
  if (/^multipart\//i.test(fields['content-type'] ?? '')) throw malformed('several ranges instead of one');
  const length = fields['content-length'];
  if (length !== undefined && wholeNumber(length) !== request.length) throw malformed('data of another length');
  const field = fields['content-range'];
  const positions = field === undefined ? undefined : parseContentRange(field);
  if (positions === undefined) {
    if (ours) throw malformed('a Content-Range that cannot be read');
    return;
  }
  if (positions.first !== request.offset) throw malformed('data of another range');
  if (ours && positions.last - positions.first + 1 !== request.length) throw malformed('data of another range');
}

function requireUnencoded(fields: ReceivedFields): void {
  const encoding = fields['content-encoding'];
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity') throw malformed('encoded data');
}

function decodeInstance(fields: ReceivedFields): { instance: string | undefined; clockMs: number | undefined } {
  const instance = fields['disk-instance'];
  if (instance !== undefined && !isId(instance)) throw malformed('Disk-Instance cannot be read');
  const clock = fields['disk-clock'];
  return { instance, clockMs: clock === undefined ? undefined : required(clock, 'Disk-Clock') };
}

function decodeFeatures(field: string | undefined): ReadonlySet<Feature> {
  const members = new Set(listMembers(field ?? ''));
  return new Set(features.filter((feature) => members.has(feature)));
}

/** Without the field: 512-byte sectors that the page cache behind a plain server turns into pages. */
function decodeBlockSize(field: string | undefined): { logicalBlockBytes: number; physicalBlockBytes: number } {
  if (field === undefined) return { logicalBlockBytes: 512, physicalBlockBytes: 4096 };
  const [logical, physical, ...rest] = field.split('/').map((text) => wholeNumber(text));
  if (!isBlockSize(logical) || !isBlockSize(physical) || rest.length > 0)
    throw malformed('Disk-Block-Size cannot be read');
  return { logicalBlockBytes: logical, physicalBlockBytes: physical };
}

function isBlockSize(bytes: number | undefined): bytes is number {
  return bytes !== undefined && bytes >= 1 && bytes <= 2 ** 31 && Number.isInteger(Math.log2(bytes));
}

function required(field: string | undefined, name: string): number {
  const value = field === undefined ? undefined : wholeNumber(field);
  if (value === undefined) throw malformed(`${name} cannot be read`);
  return value;
}

function malformed(what: string): Failure {
  return new Failure('malformed-response', what);
}
