/**
 * The head of an HTTP/1.x request: its grammar (RFC 9112, sections 3 and 5), read strictly, because what two readers of one
 * request take differently is how requests are smuggled.
 *
 *     head = METHOD SP TARGET SP "HTTP/1." DIGIT CRLF *( NAME ":" OWS VALUE OWS CRLF ) CRLF
 *
 * Promise: fields that can be given once are there once; a body's framing is unambiguous, or the head is malformed.
 */
import { decimal, overflow, type ReceivedFields } from '../http-disk/fields.js';

export type BodyFraming =
  | { readonly at: 'none' }
  | { readonly at: 'length'; readonly bytes: number }
  | { readonly at: 'chunked' };

export interface RequestHead {
  readonly method: string;
  readonly target: string;
  /** HTTP/1.0 or HTTP/1.1; a higher minor version is read as 1.1. */
  readonly version: '1.0' | '1.1';
  /** Those that this server knows, with names in lower case. */
  readonly fields: ReceivedFields;
  readonly body: BodyFraming;
}

/** What is wrong with a request, as status and reason. */
export class MalformedRequest {
  readonly status: 400 | 408 | 413 | 417 | 431 | 501 | 505;
  readonly reason: string;

  constructor(status: MalformedRequest['status'], reason: string) {
    this.status = status;
    this.reason = reason;
  }
}

export const headBytesMax = 16 * 1024;
const fieldsMax = 100;

const absent: string | undefined = undefined;

/** The fields that this server knows, none of them there. Always all of them: one shape of object is what the engine is fast with. */
function noFields() {
  return {
    host: absent,
    'content-length': absent,
    'content-range': absent,
    range: absent,
    'disk-stamp': absent,
    'disk-durability': absent,
    'disk-if-instance': absent,
    'disk-operation': absent,
    connection: absent,
    'transfer-encoding': absent,
    expect: absent,
    'content-encoding': absent,
    'if-match': absent,
    'if-none-match': absent,
    'if-range': absent,
  };
}

type Fields = ReturnType<typeof noFields>;
type FieldName = keyof Fields;

/** Fields that may be repeated; the values are joined by commas. */
const isList: ReadonlySet<FieldName> = new Set(['connection', 'transfer-encoding', 'if-match', 'if-none-match']);

/** From the spellings that clients use to the lower case; other spellings take a detour. */
const knownNames = new Map<string, FieldName>(
  (Object.keys(noFields()) as FieldName[]).flatMap((name) => [
    [name, name],
    [name.replace(/(^|-)[a-z]/g, (initial) => initial.toUpperCase()), name],
  ]),
);

const requestLine = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~\x80-\xff]+) HTTP\/(\d)\.(\d)$/;
const fieldName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** In all field lines together: control characters, and CR and LF but as the end of a line. */
const forbidden = /[^\t\r\n -~\x80-\xff]|\r(?!\n)|(?<!\r)\n/;

/** The head in `text`: latin1, from the first character of the request line, with the empty line cut off. */
export function parseHead(text: string): RequestHead | MalformedRequest {
  const lineEnd = text.indexOf('\r\n');
  const parts = requestLine.exec(lineEnd < 0 ? text : text.slice(0, lineEnd));
  if (parts === null) return malformed('the request line is malformed');
  const [, method = '', target = '', major = '', minor = ''] = parts;
  if (major !== '1') return new MalformedRequest(505, 'this server speaks HTTP/1.1');
  const fields = noFields();
  const objection = lineEnd < 0 ? undefined : parseFields(fields, text, lineEnd + 2);
  if (objection !== undefined) return objection;
  const version = minor === '0' ? '1.0' : '1.1';
  if (version === '1.1' && fields.host === undefined) return malformed('Host is missing');
  const body = framing(fields, version);
  return body instanceof MalformedRequest ? body : { method, target, version, fields, body };
}

function parseFields(fields: Fields, text: string, start: number): MalformedRequest | undefined {
  if (forbidden.test(text)) return malformed('a control character in a header field');
  let count = 0;
  for (let at = start; at < text.length; ) {
    const found = text.indexOf('\r\n', at);
    const end = found < 0 ? text.length : found;
    if (++count > fieldsMax) return new MalformedRequest(431, `more than ${fieldsMax} header fields`);
    const colon = text.indexOf(':', at);
    if (colon < 0 || colon > end) return malformed('a header field without a colon');
    const objection = addField(fields, text.slice(at, colon), text.slice(colon + 1, end));
    if (objection !== undefined) return objection;
    at = end + 2;
  }
  return undefined;
}

/** A line that starts with a blank (obsolete folding) has no valid name, nor has one with a blank before the colon. */
function addField(fields: Fields, spelling: string, rawValue: string): MalformedRequest | undefined {
  let name = knownNames.get(spelling);
  if (name === undefined) {
    if (!fieldName.test(spelling)) return malformed('the name of a header field is malformed');
    name = knownNames.get(spelling.toLowerCase());
    if (name === undefined) return undefined;
  }
  const value = rawValue.trim();
  const before = fields[name];
  if (before !== undefined && !isList.has(name)) return malformed(`${spelling} is there twice`);
  fields[name] = before === undefined ? value : `${before}, ${value}`;
  return undefined;
}

const noBody: BodyFraming = { at: 'none' };

/** RFC 9112, section 6: one of the two, or none. */
function framing(fields: Fields, version: '1.0' | '1.1'): BodyFraming | MalformedRequest {
  const encoding = fields['transfer-encoding'];
  const length = fields['content-length'];
  if (encoding !== undefined) {
    if (length !== undefined) return malformed('both Content-Length and Transfer-Encoding');
    if (version === '1.0') return malformed('Transfer-Encoding in HTTP/1.0');
    return encoding.toLowerCase() === 'chunked'
      ? { at: 'chunked' }
      : new MalformedRequest(501, 'unknown Transfer-Encoding');
  }
  if (length === undefined) return noBody;
  const bytes = decimal(length);
  if (bytes === undefined) return malformed('Content-Length is malformed');
  if (bytes === overflow) return new MalformedRequest(413, 'Content-Length is too large');
  return bytes === 0 ? noBody : { at: 'length', bytes };
}

function malformed(reason: string): MalformedRequest {
  return new MalformedRequest(400, reason);
}
