/**
 * Messages of the handshake ("Newstyle negotiation", "Fixed newstyle negotiation"). All are rare and small:
 * encoders return a buffer of their own.
 */
import { handshakeFlag, magic } from './constants.js';
import { readU64, writeU64 } from './u64.js';

/** @public */
export const greetingBytes = 18;
export const clientFlagsBytes = 4;
export const optionHeaderBytes = 16;
/** @public */
export const optionReplyHeaderBytes = 20;
const exportReplyBytes = 10;
const exportReplyZeroes = 124;

/** greeting = server magic u64 · option magic u64 · handshake flags u16 */
export function encodeGreeting(): Buffer {
  const into = Buffer.alloc(greetingBytes);
  into.writeBigUInt64BE(magic.server, 0);
  into.writeBigUInt64BE(magic.option, 8);
  into.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 16);
  return into;
}

/** The handshake flags. @public */
export function decodeGreeting(from: Buffer): number | null {
  const known = from.readBigUInt64BE(0) === magic.server && from.readBigUInt64BE(8) === magic.option;
  return known ? from.readUInt16BE(16) : null;
}

/** client flags = flags u32. @public */
export function encodeClientFlags(flags: number): Buffer {
  const into = Buffer.alloc(clientFlagsBytes);
  into.writeUInt32BE(flags, 0);
  return into;
}

export function decodeClientFlags(from: Buffer): number {
  return from.readUInt32BE(0);
}

export interface OptionHeader {
  readonly option: number;
  /** Bytes of data that follow. */
  readonly length: number;
}

/** option = option magic u64 · option u32 · length u32 · data. @public */
export function encodeOption(option: number, data: Buffer): Buffer {
  const into = Buffer.alloc(optionHeaderBytes);
  into.writeBigUInt64BE(magic.option, 0);
  into.writeUInt32BE(option, 8);
  into.writeUInt32BE(data.length, 12);
  return Buffer.concat([into, data]);
}

/** Null: the magic is wrong. */
export function decodeOptionHeader(from: Buffer): OptionHeader | null {
  if (from.readBigUInt64BE(0) !== magic.option) return null;
  return { option: from.readUInt32BE(8), length: from.readUInt32BE(12) };
}

export interface OptionReplyHeader extends OptionHeader {
  readonly type: number;
}

/** option reply = reply magic u64 · option u32 · type u32 · length u32 · data */
export function encodeOptionReply(option: number, type: number, data: Buffer): Buffer {
  const into = Buffer.alloc(optionReplyHeaderBytes);
  into.writeBigUInt64BE(magic.optionReply, 0);
  into.writeUInt32BE(option, 8);
  into.writeUInt32BE(type, 12);
  into.writeUInt32BE(data.length, 16);
  return Buffer.concat([into, data]);
}

/** @public */
export function decodeOptionReplyHeader(from: Buffer): OptionReplyHeader | null {
  if (from.readBigUInt64BE(0) !== magic.optionReply) return null;
  return { option: from.readUInt32BE(8), type: from.readUInt32BE(12), length: from.readUInt32BE(16) };
}

/** Whether the type is an error ("all of which are denoted by having bit 31 set"). @public */
export function isErrorReply(type: number): boolean {
  return type >= 2 ** 31;
}

export interface ExportReply {
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
}

/** answer to EXPORT_NAME = size u64 · transmission flags u16 (· 124 zeroes unless NO_ZEROES was agreed) */
export function encodeExportReply(reply: ExportReply, noZeroes: boolean): Buffer {
  const into = Buffer.alloc(exportReplyBytes + (noZeroes ? 0 : exportReplyZeroes));
  into.writeUInt16BE(reply.transmissionFlags, writeU64(into, reply.sizeBytes, 0));
  return into;
}

/** @public */
export function decodeExportReply(from: Buffer): ExportReply {
  return { sizeBytes: readU64(from, 0), transmissionFlags: from.readUInt16BE(8) };
}
