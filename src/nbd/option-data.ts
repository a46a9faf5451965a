/**
 * The data of options and of their replies ("Option types", "Option reply types"). Decoders return null for data that
 * does not follow the layout: too short, too long, or a string of more than 4096 bytes.
 */
import { info, minimumBlockBytes, payloadBytesMax, preferredBlockBytes, stringBytesMax } from './constants.js';
import { type ExportReply } from './handshake.js';
import { readU64, writeU64 } from './u64.js';

/** Reads fields one after the other; `null` where the data ends too early. */
class Fields {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  get leftBytes(): number {
    return this.#data.length - this.#at;
  }

  u16(): number | null {
    if (this.leftBytes < 2) return null;
    this.#at += 2;
    return this.#data.readUInt16BE(this.#at - 2);
  }

  u32(): number | null {
    if (this.leftBytes < 4) return null;
    this.#at += 4;
    return this.#data.readUInt32BE(this.#at - 4);
  }

  /** string = length u32 · bytes */
  string(): string | null {
    const length = this.u32();
    if (length === null || length > stringBytesMax || length > this.leftBytes) return null;
    this.#at += length;
    return this.#data.toString('utf8', this.#at - length, this.#at);
  }
}

function u16(value: number): Buffer {
  const into = Buffer.alloc(2);
  into.writeUInt16BE(value);
  return into;
}

function u32(value: number): Buffer {
  const into = Buffer.alloc(4);
  into.writeUInt32BE(value);
  return into;
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}

/** What INFO and GO ask. */
export interface InfoQuery {
  readonly exportName: string;
  /** Wanted items, of `info` or unknown ones. */
  readonly items: readonly number[];
}

/** info, go = name string · items u16 · item u16 × items. @public */
export function encodeInfoQuery(query: InfoQuery): Buffer {
  return Buffer.concat([string(query.exportName), u16(query.items.length), ...query.items.map(u16)]);
}

export function decodeInfoQuery(data: Buffer): InfoQuery | null {
  const fields = new Fields(data);
  const exportName = fields.string();
  const count = fields.u16();
  if (exportName === null || count === null || fields.leftBytes !== 2 * count) return null;
  const items: number[] = [];
  for (let item = fields.u16(); item !== null; item = fields.u16()) items.push(item);
  return { exportName, items };
}

/** What LIST_META_CONTEXT and SET_META_CONTEXT ask. */
export interface MetaContextQuery {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** list/set meta context = name string · queries u32 · query string × queries. @public */
export function encodeMetaContextQuery(query: MetaContextQuery): Buffer {
  return Buffer.concat([string(query.exportName), u32(query.queries.length), ...query.queries.map(string)]);
}

export function decodeMetaContextQuery(data: Buffer): MetaContextQuery | null {
  const fields = new Fields(data);
  const exportName = fields.string();
  const count = fields.u32();
  // Each query takes at least the 4 bytes of its length.
  if (exportName === null || count === null || count > fields.leftBytes / 4) return null;
  const queries: string[] = [];
  while (queries.length < count) {
    const query = fields.string();
    if (query === null) return null;
    queries.push(query);
  }
  return fields.leftBytes === 0 ? { exportName, queries } : null;
}

/** server = name string · description (the rest) */
export function encodeServer(name: string, description: string): Buffer {
  return Buffer.concat([string(name), Buffer.from(description)]);
}

/** @public */
export function decodeServer(data: Buffer): { name: string; description: string } | null {
  const fields = new Fields(data);
  const name = fields.string();
  if (name === null) return null;
  return { name, description: data.toString('utf8', data.length - fields.leftBytes) };
}

/** meta context = id u32 · name (the rest) */
export function encodeMetaContext(id: number, name: string): Buffer {
  return Buffer.concat([u32(id), Buffer.from(name)]);
}

/** @public */
export function decodeMetaContext(data: Buffer): { id: number; name: string } | null {
  return data.length < 4 ? null : { id: data.readUInt32BE(0), name: data.toString('utf8', 4) };
}

/** info export = 0 u16 · size u64 · transmission flags u16 */
export function encodeInfoExport(reply: ExportReply): Buffer {
  const into = Buffer.alloc(12);
  into.writeUInt16BE(info.export, 0);
  into.writeUInt16BE(reply.transmissionFlags, writeU64(into, reply.sizeBytes, 2));
  return into;
}

/** info name = 1 u16 · name (the rest); info description = 2 u16 · text (the rest) */
export function encodeInfoText(item: typeof info.name | typeof info.description, text: string): Buffer {
  return Buffer.concat([u16(item), Buffer.from(text)]);
}

/** info block size = 3 u16 · minimum u32 · preferred u32 · maximum payload u32 */
export function encodeInfoBlockSize(): Buffer {
  return Buffer.concat([u16(info.blockSize), u32(minimumBlockBytes), u32(preferredBlockBytes), u32(payloadBytesMax)]);
}

/** One item of information, as a client reads it. */
export type InfoItem =
  | ({ readonly item: typeof info.export } & ExportReply)
  | { readonly item: typeof info.name | typeof info.description; readonly text: string }
  | {
      readonly item: typeof info.blockSize;
      readonly minimumBytes: number;
      readonly preferredBytes: number;
      readonly payloadBytesMax: number;
    };

/** Null also for an item that is not known here. @public */
export function decodeInfo(data: Buffer): InfoItem | null {
  if (data.length < 2) return null;
  const item = data.readUInt16BE(0);
  if (item === info.export && data.length === 12) {
    return { item, sizeBytes: readU64(data, 2), transmissionFlags: data.readUInt16BE(10) };
  }
  if (item === info.blockSize && data.length === 14) {
    const [minimumBytes, preferredBytes] = [data.readUInt32BE(2), data.readUInt32BE(6)];
    return { item, minimumBytes, preferredBytes, payloadBytesMax: data.readUInt32BE(10) };
  }
  if (item === info.name || item === info.description) return { item, text: data.toString('utf8', 2) };
  return null;
}
