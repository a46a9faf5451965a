/**
 * The head of an HTTP/1 response (RFC 9112, sections 4 to 6), read line by line from received bytes.
 * Promise: strict: a line that is not exactly as the grammar has it, or that contradicts another one, throws a `Failure`;
 * a field that nobody needs costs one pass over its bytes and no memory.
 */
import { Failure } from '../base/failure.js';
import { FamiliarHead } from './familiar-head.js';

/** The head of one response, status line to empty line. More is malformed. */
export const headBytesMax = 16 * 1024;
const headLinesMax = 128;
/** What a line reader returns when the line does not end inside the given bytes. */
export const incomplete = -1;

const tab = 0x09;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const space = 0x20;
const dash = 0x2d;
const slash = 0x2f;
const digit0 = 0x30;
const colon = 0x3a;

/** token characters, RFC 9110, section 5.6.2 */
const isToken = table("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
/** The characters of an instance id. */
const isIdCharacter = table('-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ');
/** field-vchar, blank, tab: RFC 9110, section 5.5 */
const isValue = new Uint8Array(256).map((_, code) => (code === tab || (code >= space && code !== 0x7f) ? 1 : 0));

function table(characters: string): Uint8Array {
  const result = new Uint8Array(256);
  for (const character of characters) result[character.charCodeAt(0)] = 1;
  return result;
}

const statusLineStart = Buffer.from('HTTP/1.', 'latin1');
const names = {
  etag: Buffer.from('etag', 'latin1'),
  connection: Buffer.from('connection', 'latin1'),
  keepAlive: Buffer.from('keep-alive', 'latin1'),
  diskClock: Buffer.from('disk-clock', 'latin1'),
  contentRange: Buffer.from('content-range', 'latin1'),
  lastModified: Buffer.from('last-modified', 'latin1'),
  diskInstance: Buffer.from('disk-instance', 'latin1'),
  contentLength: Buffer.from('content-length', 'latin1'),
  contentEncoding: Buffer.from('content-encoding', 'latin1'),
  transferEncoding: Buffer.from('transfer-encoding', 'latin1'),
};
const bytesUnit = Buffer.from('bytes', 'latin1');
const timeoutStart = Buffer.from('timeout=', 'latin1');

/**
 * One head; a parser uses the same object for all its responses, so what a reader wants to keep it copies.
 * Numbers that the response does not have are -1.
 */
export class ResponseHead {
  status = 0;
  /** HTTP/1.0 or HTTP/1.1. */
  minorVersion = 0;
  contentLength = -1;
  chunked = false;
  /** `Connection: close` was announced. */
  close = false;
  /** `Keep-Alive: timeout=…`, seconds. */
  keepAliveSeconds = -1;
  /** `Content-Range: bytes FIRST-LAST/TOTAL`, taken literally. -1, all of them, unless it reads exactly so. */
  rangeFirst = -1;
  rangeLast = -1;
  rangeTotal = -1;
  /** The body has a Content-Encoding other than `identity`. */
  encoded = false;
  instance: string | undefined = undefined;
  clockMs = -1;
  etag: string | undefined = undefined;
  lastModified: string | undefined = undefined;
  /** One of the `disk-` fields is not as the protocol has it: {@link fields} tells. */
  oddDiskField = false;

  #lastInstance = '';
  /** The last head that was read line by line: what is in the attributes. */
  readonly #familiar = new FamiliarHead();
  #lines = 0;
  #bytes: Buffer = statusLineStart;
  #fieldsStart = 0;

  /**
   * Reads the whole head that starts at `at`, if it lies in `bytes[at, end)` and is like the last one that was read line by line. Returns
   * where the body starts, or {@link incomplete}: it has to be read line by line.
   */
  readFamiliar(bytes: Buffer, at: number, end: number): number {
    const familiar = this.#familiar;
    const next = familiar.match(bytes, at, end);
    if (next === incomplete) return incomplete;
    this.rangeFirst = familiar.rangeFirst;
    this.rangeLast = familiar.rangeLast;
    this.clockMs = familiar.clockMs;
    return next;
  }

  /** The head that has been read lies in `bytes[start, end)`: others like it are familiar from now on. */
  learn(bytes: Buffer, start: number, end: number): void {
    this.#familiar.learn(bytes, start, end, this);
  }

  /**
   * Reads the status line in `bytes[at, end)`. Returns where the next line starts, or {@link incomplete}.
   * Throws `malformed-response` as soon as the bytes cannot become a status line.
   */
  readStatusLine(bytes: Buffer, at: number, end: number): number {
    for (let index = 0; index < statusLineStart.length && at + index < end; index++) {
      if (bytes[at + index] !== statusLineStart[index]) throw malformed('this is not HTTP/1');
    }
    const lineEnd = readText(bytes, at, end);
    if (lineEnd === incomplete) return incomplete;
    if (lineEnd - at < 12) throw malformed('the status line is too short');
    const minor = (bytes[at + 7] ?? 0) - digit0;
    const status = readNumber(bytes, at + 9, at + 12);
    const after = bytes[at + 12];
    const ends = lineEnd === at + 12 || after === space;
    if ((minor !== 0 && minor !== 1) || bytes[at + 8] !== space || status < 100 || status > 599 || !ends) {
      throw malformed('the status line cannot be read');
    }
    this.#reset(minor, status);
    return lineEnd + 2;
  }

  #reset(minorVersion: number, status: number): void {
    this.minorVersion = minorVersion;
    this.status = status;
    this.contentLength = -1;
    this.chunked = false;
    this.close = false;
    this.keepAliveSeconds = -1;
    this.rangeFirst = -1;
    this.rangeLast = -1;
    this.rangeTotal = -1;
    this.encoded = false;
    this.instance = undefined;
    this.clockMs = -1;
    this.etag = undefined;
    this.lastModified = undefined;
    this.oddDiskField = false;
    this.#lines = 0;
  }

  /** Whether the empty line that ends the head stands at `at`. Throws on a carriage return without its line feed. */
  static isEnd(bytes: Buffer, at: number, end: number): boolean {
    if (bytes[at] !== carriageReturn || at + 1 >= end) return false;
    if (bytes[at + 1] !== lineFeed) throw malformed('a bare carriage return');
    return true;
  }

  /** Reads one field line, as {@link readStatusLine}. Not for the empty line. */
  readField(bytes: Buffer, at: number, end: number): number {
    let index = at;
    while (index < end && isToken[bytes[index] ?? 0] === 1) index++;
    if (index === end) return incomplete;
    if (bytes[index] !== colon || index === at) {
      // The first half of the empty line: its second half has not arrived.
      if (index === at && bytes[at] === carriageReturn && at + 1 === end) return incomplete;
      throw malformed('a header line that cannot be read');
    }
    const nameEnd = index;
    const lineEnd = readText(bytes, nameEnd + 1, end);
    if (lineEnd === incomplete) return incomplete;
    if (++this.#lines > headLinesMax) throw malformed(`more than ${headLinesMax} header lines`);
    this.#take(bytes, at, nameEnd, nameEnd + 1, lineEnd);
    return lineEnd + 2;
  }

  /** Dispatches by the name's length, so that most fields are told from the needed ones by one comparison. */
  #take(bytes: Buffer, nameStart: number, nameEnd: number, valueStart: number, valueEnd: number): void {
    let start = valueStart;
    let end = valueEnd;
    while (start < end && isBlank(bytes[start])) start++;
    while (end > start && isBlank(bytes[end - 1])) end--;
    switch (nameEnd - nameStart) {
      case 4:
        if (isName(bytes, nameStart, names.etag)) this.etag = bytes.toString('latin1', start, end);
        return;
      case 10:
        if (isName(bytes, nameStart, names.diskClock)) this.#takeClock(bytes, start, end);
        else if (isName(bytes, nameStart, names.connection)) this.#takeConnection(bytes, start, end);
        else if (isName(bytes, nameStart, names.keepAlive)) this.#takeKeepAlive(bytes, start, end);
        return;
      case 13:
        if (isName(bytes, nameStart, names.contentRange)) this.#takeRange(bytes, start, end);
        else if (isName(bytes, nameStart, names.diskInstance)) this.#takeInstance(bytes, start, end);
        else if (isName(bytes, nameStart, names.lastModified)) this.lastModified = bytes.toString('latin1', start, end);
        return;
      case 14:
        if (isName(bytes, nameStart, names.contentLength)) this.#takeLength(bytes, start, end);
        return;
      case 16:
        if (isName(bytes, nameStart, names.contentEncoding)) this.#takeEncoding(bytes.toString('latin1', start, end));
        return;
      case 17:
        if (isName(bytes, nameStart, names.transferEncoding)) this.#takeTransfer(bytes.toString('latin1', start, end));
        return;
    }
  }

  #takeLength(bytes: Buffer, start: number, end: number): void {
    const length = readNumber(bytes, start, end);
    if (length < 0) throw malformed('Content-Length cannot be read');
    if (this.contentLength >= 0) throw malformed('two Content-Length fields');
    this.contentLength = length;
  }

  #takeTransfer(value: string): void {
    if (value.toLowerCase() !== 'chunked' || this.chunked) throw malformed('an unknown Transfer-Encoding');
    this.chunked = true;
  }

  #takeEncoding(value: string): void {
    if (value.toLowerCase() !== 'identity') this.encoded = true;
  }

  /** The usual values of this and the next field are told without making strings of them. */
  #takeConnection(bytes: Buffer, start: number, end: number): void {
    if (end - start === names.keepAlive.length && isName(bytes, start, names.keepAlive)) return;
    const value = bytes.toString('latin1', start, end);
    if (/(?:^|,)[ \t]*close[ \t]*(?:,|$)/i.test(value)) this.close = true;
  }

  #takeKeepAlive(bytes: Buffer, start: number, end: number): void {
    const usual = isName(bytes, start, timeoutStart) ? readNumber(bytes, start + timeoutStart.length, end) : -1;
    if (usual >= 0) this.keepAliveSeconds = usual;
    else {
      const value = bytes.toString('latin1', start, end);
      const seconds = /(?:^|[,; \t])timeout[ \t]*=[ \t]*"?(\d{1,7})/i.exec(value)?.[1];
      if (seconds !== undefined) this.keepAliveSeconds = Number(seconds);
    }
  }

  #takeInstance(bytes: Buffer, start: number, end: number): void {
    let index = start;
    while (index < end && isIdCharacter[bytes[index] ?? 0] === 1) index++;
    const isId = index === end && end > start && end - start <= 64;
    if (!isId || this.instance !== undefined) this.oddDiskField = true;
    else this.instance = this.#instanceAt(bytes, start, end);
  }

  /** Nearly always the one of the answer before: then the same string, which is compared faster, too. */
  #instanceAt(bytes: Buffer, start: number, end: number): string {
    if (!isText(bytes, start, end, this.#lastInstance)) this.#lastInstance = bytes.toString('latin1', start, end);
    return this.#lastInstance;
  }

  #takeClock(bytes: Buffer, start: number, end: number): void {
    const clockMs = readNumber(bytes, start, end);
    if (clockMs < 0 || this.clockMs >= 0) this.oddDiskField = true;
    else this.clockMs = clockMs;
  }

  /** `bytes FIRST-LAST/TOTAL`, TOTAL may be `*`. Old servers end it with nonsense, so here it is only read. */
  #takeRange(bytes: Buffer, start: number, end: number): void {
    if (this.rangeFirst >= 0) throw malformed('two Content-Range fields');
    if (!isName(bytes, start, bytesUnit) || bytes[start + 5] !== space) return;
    const dashAt = indexOf(bytes, dash, start, end);
    const slashAt = indexOf(bytes, slash, dashAt, end);
    const first = readNumber(bytes, start + 6, dashAt);
    const last = readNumber(bytes, dashAt + 1, slashAt);
    if (first < 0 || last < 0) return;
    this.rangeFirst = first;
    this.rangeLast = last;
    this.rangeTotal = readNumber(bytes, slashAt + 1, end);
  }

  /** Tells where the field lines are, for {@link fields}: valid until the bytes change. */
  locate(bytes: Buffer, fieldsStart: number): void {
    this.#bytes = bytes;
    this.#fieldsStart = fieldsStart;
  }

  /**
   * All fields, names in lower case, repeated ones joined with a comma. Slow, and only while the response is being begun:
   * for the rare answers of which more is needed than the attributes above.
   */
  fields(): Record<string, string> {
    const fields = Object.create(null) as Record<string, string>;
    let at = this.#fieldsStart;
    while (this.#bytes[at] !== carriageReturn) {
      const nameEnd = this.#bytes.indexOf(colon, at);
      const lineEnd = this.#bytes.indexOf(carriageReturn, nameEnd);
      const name = this.#bytes.toString('latin1', at, nameEnd).toLowerCase();
      const value = this.#bytes.toString('latin1', nameEnd + 1, lineEnd).trim();
      const before = fields[name];
      fields[name] = before === undefined ? value : `${before}, ${value}`;
      at = lineEnd + 2;
    }
    return fields;
  }
}

/** Where the text of a line ends (at its CRLF), or {@link incomplete}. Throws on anything that no line may hold. */
export function readText(bytes: Buffer, at: number, end: number): number {
  let index = at;
  while (index < end && isValue[bytes[index] ?? 0] === 1) index++;
  if (index === end) return incomplete;
  if (bytes[index] !== carriageReturn) throw malformed('a control character in a header line');
  if (index + 1 === end) return incomplete;
  if (bytes[index + 1] !== lineFeed) throw malformed('a bare carriage return');
  return index;
}

/** The decimal number that fills `bytes[start, end)`, or -1. At most 2^53 - 1. */
function readNumber(bytes: Buffer, start: number, end: number): number {
  if (end <= start || end - start > 16) return -1;
  let value = 0;
  for (let index = start; index < end; index++) {
    const digit = (bytes[index] ?? 0) - digit0;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : -1;
}

/** `name` is in lower case, and the bytes are token characters, of which none but letters and `-` differ by that bit. */
function isName(bytes: Buffer, at: number, name: Buffer): boolean {
  for (let index = 0; index < name.length; index++) {
    if (((bytes[at + index] ?? 0) | 0x20) !== name[index]) return false;
  }
  return true;
}

/** Whether `bytes[start, end)` is `text`, in latin1. */
function isText(bytes: Buffer, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let index = 0; index < text.length; index++) {
    if (bytes[start + index] !== text.charCodeAt(index)) return false;
  }
  return true;
}

function isBlank(byte: number | undefined): boolean {
  return byte === space || byte === tab;
}

function indexOf(bytes: Buffer, byte: number, start: number, end: number): number {
  let index = start;
  while (index < end && bytes[index] !== byte) index++;
  return index;
}

export function malformed(what: string): Failure {
  return new Failure('malformed-response', `malformed response: ${what}`);
}
