/** The request header of the transmission phase ("Request message"). */
import { magic } from './constants.js';
import { readU64, writeU64 } from './u64.js';

/** What names a request: opaque to the server, comes back in the reply. Two halves, for a bigint costs several allocations. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export interface Request extends Cookie {
  readonly flags: number;
  /** One of `command`, or anything else that the client made up. */
  readonly type: number;
  /** Bytes. At 2^53 or above: only known to be at least 2^53. */
  readonly offset: number;
  /** Bytes, 0 to 2^32 - 1. */
  readonly length: number;
}

export const requestBytes = 28;

/** request = magic u32 · flags u16 · type u16 · cookie u64 · offset u64 · length u32 (· payload of a WRITE) */
export function encodeRequest(request: Request): Buffer {
  const into = Buffer.alloc(requestBytes);
  into.writeUInt32BE(magic.request, 0);
  into.writeUInt16BE(request.flags, 4);
  into.writeUInt16BE(request.type, 6);
  into.writeUInt32BE(request.cookieHigh, 8);
  into.writeUInt32BE(request.cookieLow, 12);
  writeU64(into, request.offset, 16);
  into.writeUInt32BE(request.length, 24);
  return into;
}

/** The request that starts at `at`, where `requestBytes` bytes must be. Null: the magic is wrong. */
export function decodeRequest(from: Buffer, at: number): Request | null {
  if (from.readUInt32BE(at) !== magic.request) return null;
  return {
    flags: from.readUInt16BE(at + 4),
    type: from.readUInt16BE(at + 6),
    cookieHigh: from.readUInt32BE(at + 8),
    cookieLow: from.readUInt32BE(at + 12),
    offset: readU64(from, at + 16),
    length: from.readUInt32BE(at + 24),
  };
}
