/**
 * Failures as HTTP, both ways: the status says it to any client, `Disk-Error` says it exactly
 * (docs/http-disk-protocol.md, "Failures").
 * Promise: what is told as certainly not applied is certain: either the server itself said so, or no server could apply it.
 */
import { Failure, type FailureCode } from '../base/failure.js';
import { instanceLines, type ReceivedFields } from './fields.js';
import type { DiskAnswer, DiskRequest } from './messages.js';
import { formatUnsatisfiedRange } from './ranges.js';

const statusOfCode = {
  'invalid-request': 400,
  'read-only': 403,
  'stale-epoch': 412,
  'other-instance': 412,
  'deadline-passed': 412,
  'too-large': 413,
  'out-of-range': 416,
  'disk-error': 500,
  unsupported: 501,
  unavailable: 503,
  'no-space': 507,
} as const satisfies Partial<Record<FailureCode, number>>;

type WireCode = keyof typeof statusOfCode;

function isWireCode(code: string): code is WireCode {
  return Object.hasOwn(statusOfCode, code);
}

export interface EncodedFailure {
  readonly status: number;
  /** Lines that end in CRLF. */
  readonly headers: string;
  /** One line of text. */
  readonly body: string;
}

/**
 * The answer of a server to a probe at its own address: it has no disk open, so that every instance that answered there before is over and takes
 * nothing new any more (rule T5). What that instance had begun may still land, though: it proves no death (rule G5).
 */
export class NoDisk extends Failure {
  /** `ADDRESS:PORT`. */
  readonly endpoint: string;

  constructor(message: string, endpoint: string) {
    super('unavailable', message);
    this.endpoint = endpoint;
  }
}

/** What goes with a failure. `answer`: the instance that refused a stamped request, and its clock. */
export interface FailureContext {
  /** Undefined while there is no disk. */
  readonly sizeBytes?: number | undefined;
  readonly answer?: DiskAnswer | undefined;
  /** Only in an answer to a probe, and only while there is no disk: where the server is (see {@link NoDisk}). */
  readonly endpoint?: string | undefined;
}

/** The answer to a request that has failed. A failed precondition (`wrong-disk`) has no `Disk-Error`. */
export function encodeFailure(failure: Failure, { sizeBytes, answer, endpoint }: FailureContext = {}): EncodedFailure {
  const { code } = failure;
  const status = isWireCode(code) ? statusOfCode[code] : code === 'wrong-disk' ? 412 : 500;
  const body = `${oneLine(failure.message)}\n`;
  const length = Buffer.byteLength(body);
  const headers =
    `Content-Type: text/plain; charset=utf-8\r\nContent-Length: ${length}\r\nCache-Control: no-store\r\n` +
    (isWireCode(code) ? `Disk-Error: ${code}\r\n` : '') +
    (code === 'unavailable' ? 'Retry-After: 1\r\n' : '') +
    (code === 'out-of-range' && sizeBytes !== undefined
      ? `Content-Range: ${formatUnsatisfiedRange(sizeBytes)}\r\n`
      : '') +
    (answer === undefined ? '' : instanceLines(answer)) +
    (endpoint === undefined ? '' : `Disk-Endpoint: ${endpoint}\r\n`);
  return { status, headers, body };
}

/**
 * The failure in an answer to `request` whose status is none of success. `fields` have lower-case names; `bodyText` may be
 * cut short. Never throws.
 */
export function decodeFailure(request: DiskRequest, status: number, fields: ReceivedFields, bodyText: string): Failure {
  const said = fields['disk-error'];
  const code =
    said !== undefined && isWireCode(said) && statusOfCode[said] === status ? said : plainCode(request, status);
  const reason = /^text\/plain\b/i.test(fields['content-type'] ?? '') ? oneLine(bodyText.split('\n', 1)[0] ?? '') : '';
  return new Failure(code, reason === '' ? `HTTP status ${status}` : `HTTP status ${status}: ${reason}`);
}

/** The failure in an answer to a probe that was sent to `askedAt` (`ADDRESS:PORT`; undefined: through a proxy). Never throws. */
export function decodeProbeFailure(status: number, fields: ReceivedFields, askedAt: string | undefined): Failure {
  const failure = decodeFailure({ op: 'probe' }, status, fields, '');
  // Whatever stands in between has another address, or does not know this field.
  const isOwnWord = askedAt !== undefined && fields['disk-endpoint'] === askedAt;
  return isOwnWord && failure.code === 'unavailable' ? new NoDisk(failure.message, askedAt) : failure;
}

/**
 * What a status means that comes without `Disk-Error`: from an old or plain server, or from a proxy on the way. A proxy may
 * have passed a stamped write on before it answered 503, so for those the outcome is unknown.
 */
function plainCode(request: DiskRequest, status: number): FailureCode {
  const changes = request.op === 'write' || request.op === 'zero' || request.op === 'trim';
  if (status === 503 || status === 429) {
    return changes && request.stamp !== undefined ? 'server-error' : 'unavailable';
  }
  if (changes && (status === 403 || status === 405 || status === 501)) return 'read-only';
  switch (status) {
    case 400:
      return 'invalid-request';
    case 401:
    case 403:
    case 407:
      return 'access-denied';
    case 404:
    case 410:
      return 'not-found';
    case 412:
      return 'wrong-disk';
    case 413:
      return 'too-large';
    case 416:
      return 'out-of-range';
    case 501:
      return 'unsupported';
    case 507:
      return 'no-space';
    default:
      return status >= 200 && status <= 299 ? 'malformed-response' : 'server-error';
  }
}

const reasonCharactersMax = 200;

/** Fit for a log: no control characters, bounded. */
function oneLine(text: string): string {
  const printable = text.slice(0, reasonCharactersMax).replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]+/gu, ' ');
  return printable.trim();
}
