/** The head of an HTTP/1.1 response, as text. */
import { Failure } from '../base/failure.js';
import { encodeFailure } from '../http-disk/failure-codec.js';
import type { EncodedResponse } from '../http-disk/response-codec.js';
import type { MalformedRequest } from './request-head.js';

const reasons: Readonly<Record<number, string>> = {
  200: 'OK',
  206: 'Partial Content',
  304: 'Not Modified',
  400: 'Bad Request',
  403: 'Forbidden',
  408: 'Request Timeout',
  412: 'Precondition Failed',
  413: 'Content Too Large',
  416: 'Range Not Satisfiable',
  417: 'Expectation Failed',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
  505: 'HTTP Version Not Supported',
  507: 'Insufficient Storage',
};

export const continueHead = 'HTTP/1.1 100 Continue\r\n\r\n';

/** The whole head with its empty line. `fields`, and `more` that goes with every response: lines, each with its CRLF. */
export function formatHead(status: number, fields: string, more: string): string {
  return `HTTP/1.1 ${status} ${reasons[status] ?? 'Unknown'}\r\n${more}${fields}\r\n`;
}

/** The answer to a request that HTTP itself forbids. */
export function malformedResponse({ status, reason }: MalformedRequest): EncodedResponse {
  const { headers, body } = encodeFailure(new Failure('invalid-request', reason));
  return { status, headers: status === 400 ? headers : headers.replace(/Disk-Error: .*\r\n/, ''), body };
}
