/** Drives a response parser over bytes in pieces, and notes everything that it reports. */
import { Failure } from '../../../src/base/failure.js';
import type { ResponseHead } from '../../../src/http-client/response-head.js';
import { type Destination, type Method, ResponseParser } from '../../../src/http-client/response-parser.js';

export interface Expected {
  readonly method: Method;
  /** A number: collect so many at most. `{ fill }`: into a buffer of that length. */
  readonly destination: number | { readonly fill: number };
}

/** What came of it: one line for each head and each finished body, and how it ended. */
export function parse(expected: readonly Expected[], pieces: readonly Buffer[], closes = false): string[] {
  const log: string[] = [];
  let next = 0;
  let into: Buffer | undefined;
  const parser = new ResponseParser({
    awaited: () => expected[next]?.method,
    begin(head): Destination {
      log.push(describe(head));
      const destination = expected[next]?.destination ?? 0;
      into = typeof destination === 'number' ? undefined : Buffer.alloc(destination.fill, 0xee);
      return into ?? (destination as number);
    },
    finish(body) {
      log.push(`body ${(into ?? body).toString('hex')}`);
      next += 1;
    },
  });
  try {
    for (const piece of pieces) {
      // The bytes lie somewhere in a larger buffer, which is overwritten afterwards.
      const reused = Buffer.alloc(piece.length + 7, 0x0d);
      piece.copy(reused);
      parser.push(reused, piece.length);
      reused.fill(0x58);
    }
    if (closes) parser.end();
    log.push(parser.isBetween ? 'between' : 'inside or over');
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    log.push(error.code);
  }
  return log;
}

function describe(head: ResponseHead): string {
  const { status, minorVersion, contentLength, chunked, close, keepAliveSeconds, encoded, instance, clockMs } = head;
  const { rangeFirst, rangeLast, rangeTotal, etag, lastModified, oddDiskField } = head;
  const attributes = {
    status,
    minorVersion,
    contentLength,
    chunked,
    close,
    keepAliveSeconds,
    encoded,
    instance,
    clockMs,
  };
  return JSON.stringify({
    ...attributes,
    ...{ rangeFirst, rangeLast, rangeTotal, etag, lastModified, oddDiskField },
    fields: head.fields(),
  });
}
