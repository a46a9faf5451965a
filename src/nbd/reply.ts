/**
 * Replies of the transmission phase ("Simple reply message", "Structured reply chunk message").
 * Encoders write at `at` into a buffer with room for them and return where the next byte goes.
 */
import type { ExtentKind } from '../base/range.js';
import { allocationContext, magic, replyFlag, replyType } from './constants.js';
import type { Cookie } from './request.js';
import { readU64, writeU64 } from './u64.js';

export const simpleReplyBytes = 16;
export const chunkHeaderBytes = 20;
export const offsetDataHeaderBytes = chunkHeaderBytes + 8;
export const blockStatusHeaderBytes = chunkHeaderBytes + 4;
export const descriptorBytes = 8;

const errorFixedBytes = 6;

function writeCookie(into: Buffer, at: number, { cookieHigh, cookieLow }: Cookie): number {
  return into.writeUInt32BE(cookieLow, into.writeUInt32BE(cookieHigh, at));
}

export interface SimpleReply extends Cookie {
  /** 0: success. */
  readonly error: number;
}

/** simple reply = magic u32 · error u32 · cookie u64 (· data of a READ that succeeded) */
export function encodeSimpleReply(into: Buffer, at: number, cookie: Cookie, error: number): number {
  into.writeUInt32BE(magic.simpleReply, at);
  into.writeUInt32BE(error, at + 4);
  return writeCookie(into, at + 8, cookie);
}

/** @public */
export function decodeSimpleReply(from: Buffer, at: number): SimpleReply | null {
  if (from.readUInt32BE(at) !== magic.simpleReply) return null;
  return {
    error: from.readUInt32BE(at + 4),
    cookieHigh: from.readUInt32BE(at + 8),
    cookieLow: from.readUInt32BE(at + 12),
  };
}

export interface ChunkHeader extends Cookie {
  readonly flags: number;
  readonly type: number;
  /** Bytes of payload that follow. */
  readonly length: number;
}

/** chunk = magic u32 · flags u16 · type u16 · cookie u64 · length u32 · payload. Every chunk sent here is the last one. */
function encodeChunkHeader(into: Buffer, at: number, type: number, cookie: Cookie, length: number): number {
  into.writeUInt32BE(magic.structuredReply, at);
  into.writeUInt16BE(replyFlag.done, at + 4);
  into.writeUInt16BE(type, at + 6);
  return into.writeUInt32BE(length, writeCookie(into, at + 8, cookie));
}

/** @public */
export function decodeChunkHeader(from: Buffer, at: number): ChunkHeader | null {
  if (from.readUInt32BE(at) !== magic.structuredReply) return null;
  return {
    flags: from.readUInt16BE(at + 4),
    type: from.readUInt16BE(at + 6),
    cookieHigh: from.readUInt32BE(at + 8),
    cookieLow: from.readUInt32BE(at + 12),
    length: from.readUInt32BE(at + 16),
  };
}

/** none = (nothing): the request succeeded */
export function encodeNone(into: Buffer, at: number, cookie: Cookie): number {
  return encodeChunkHeader(into, at, replyType.none, cookie, 0);
}

/** offset data = offset u64 · data. `dataLength`: at least 1; the data itself follows and is not written here. */
export function encodeOffsetDataHeader(
  into: Buffer,
  at: number,
  cookie: Cookie,
  offset: number,
  dataLength: number,
): number {
  return writeU64(into, offset, encodeChunkHeader(into, at, replyType.offsetData, cookie, 8 + dataLength));
}

/** @public */
export function decodeOffsetData(payload: Buffer): { offset: number; data: Buffer } | null {
  if (payload.length < 9) return null;
  return { offset: readU64(payload, 0), data: payload.subarray(8) };
}

export interface Descriptor {
  /** Bytes, 1 to 2^32 - 1. */
  readonly length: number;
  readonly kind: ExtentKind;
}

const flagsOfKind = {
  data: 0,
  zero: allocationContext.zero,
  hole: allocationContext.zero | allocationContext.hole,
} as const satisfies Record<ExtentKind, number>;

/** block status = context u32 · (length u32 · flags u32) × n. At least one descriptor. */
export function encodeBlockStatus(
  into: Buffer,
  at: number,
  cookie: Cookie,
  descriptors: readonly Descriptor[],
): number {
  const payloadBytes = 4 + descriptorBytes * descriptors.length;
  let next = encodeChunkHeader(into, at, replyType.blockStatus, cookie, payloadBytes);
  next = into.writeUInt32BE(allocationContext.id, next);
  for (const descriptor of descriptors) {
    next = into.writeUInt32BE(descriptor.length, next);
    next = into.writeUInt32BE(flagsOfKind[descriptor.kind], next);
  }
  return next;
}

/** @public */
export function decodeBlockStatus(payload: Buffer): { contextId: number; descriptors: Descriptor[] } | null {
  if (payload.length < 12 || (payload.length - 4) % descriptorBytes !== 0) return null;
  const descriptors: Descriptor[] = [];
  for (let at = 4; at < payload.length; at += descriptorBytes) {
    const flags = payload.readUInt32BE(at + 4);
    const kind = flags & allocationContext.hole ? 'hole' : flags & allocationContext.zero ? 'zero' : 'data';
    descriptors.push({ length: payload.readUInt32BE(at), kind });
  }
  return { contextId: payload.readUInt32BE(0), descriptors };
}

/** Joins neighbours of one kind, and cuts at `descriptorsMax`. The extents have at least one byte each, and less than 2^32 together. */
export function describeExtents(extents: readonly Descriptor[], descriptorsMax: number): Descriptor[] {
  const descriptors: { length: number; kind: ExtentKind }[] = [];
  for (const { length, kind } of extents) {
    const last = descriptors.at(-1);
    if (last?.kind === kind) last.length += length;
    else if (descriptors.length === descriptorsMax) return descriptors;
    else descriptors.push({ length, kind });
  }
  return descriptors;
}

export interface ErrorChunk {
  readonly error: number;
  readonly message: string;
}

/** How long the chunk for `message` is, header included. */
export function errorChunkBytes(message: Buffer): number {
  return chunkHeaderBytes + errorFixedBytes + message.length;
}

/** error = error u32 · message length u16 · message. `error` is not 0; `message` has at most 4096 bytes of UTF-8. */
export function encodeErrorChunk(into: Buffer, at: number, cookie: Cookie, error: number, message: Buffer): number {
  let next = encodeChunkHeader(into, at, replyType.error, cookie, errorFixedBytes + message.length);
  next = into.writeUInt32BE(error, next);
  next = into.writeUInt16BE(message.length, next);
  return next + message.copy(into, next);
}

/** @public */
export function decodeErrorChunk(payload: Buffer): ErrorChunk | null {
  if (payload.length < errorFixedBytes) return null;
  const messageBytes = payload.readUInt16BE(4);
  if (messageBytes > payload.length - errorFixedBytes) return null;
  const message = payload.toString('utf8', errorFixedBytes, errorFixedBytes + messageBytes);
  return { error: payload.readUInt32BE(0), message };
}
