/**
 * Messages of generic netlink (Linux, include/uapi/linux/netlink.h and genetlink.h): pairs of encoder and decoder, pure.
 * Numbers are in the byte order of the machine; all that Node runs FFI on are little-endian.
 * Promise: what a decoder cannot make sense of is left out or `undefined`, never read beyond its end.
 */

/** attribute = length u16 (of header and value) · type u16 · value, padded to 4 */
const attributeHeaderBytes = 4;
/** Marks an attribute whose value is attributes. */
const nested = 0x8000;
/** Nested, and in network byte order: what is not the type. */
const attributeFlags = 0xc000;

/** message = length u32 · type u16 · flags u16 · sequence u32 · port u32, then (generic) command u8 · version u8 · 0 u16 · attributes */
const messageHeaderBytes = 16;
const genericHeaderBytes = 4;

/** Types below this belong to netlink itself. */
const errorType = 2;
const doneType = 3;

const requestFlag = 0x1;
const ackFlag = 0x4;

export interface GenericRequest {
  /** The family's number: the message's type. */
  readonly family: number;
  readonly command: number;
  readonly sequence: number;
  readonly attributes: readonly Buffer[];
}

export type NetlinkMessage =
  /** An errno (positive), or 0: the ACK. */
  | { readonly kind: 'result'; readonly sequence: number; readonly errno: number }
  | { readonly kind: 'done'; readonly sequence: number }
  | { readonly kind: 'data'; readonly sequence: number; readonly attributes: Buffer };

export function encodeGenericRequest({ family, command, sequence, attributes }: GenericRequest): Buffer {
  const header = Buffer.alloc(messageHeaderBytes + genericHeaderBytes);
  const message = Buffer.concat([header, ...attributes]);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(family, 4);
  message.writeUInt16LE(requestFlag | ackFlag, 6);
  message.writeUInt32LE(sequence, 8);
  message.writeUInt8(command, 16);
  message.writeUInt8(1, 17);
  return message;
}

/** All messages of one datagram. */
export function decodeMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at + messageHeaderBytes <= datagram.length; ) {
    const length = datagram.readUInt32LE(at);
    if (length < messageHeaderBytes || at + length > datagram.length) break;
    const message = decodeMessage(datagram.subarray(at, at + length));
    if (message !== undefined) messages.push(message);
    at += padded(length);
  }
  return messages;
}

function decodeMessage(message: Buffer): NetlinkMessage | undefined {
  const type = message.readUInt16LE(4);
  const sequence = message.readUInt32LE(8);
  const payload = message.subarray(messageHeaderBytes);
  if (type === doneType) return { kind: 'done', sequence };
  if (type === errorType) {
    return payload.length < 4 ? undefined : { kind: 'result', sequence, errno: -payload.readInt32LE(0) };
  }
  if (payload.length < genericHeaderBytes) return undefined;
  return { kind: 'data', sequence, attributes: payload.subarray(genericHeaderBytes) };
}

export function encodeAttribute(type: number, value: Buffer): Buffer {
  const attribute = Buffer.alloc(padded(attributeHeaderBytes + value.length));
  attribute.writeUInt16LE(attributeHeaderBytes + value.length, 0);
  attribute.writeUInt16LE(type, 2);
  value.copy(attribute, attributeHeaderBytes);
  return attribute;
}

export function encodeU32(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return encodeAttribute(type, bytes);
}

export function encodeU64(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return encodeAttribute(type, bytes);
}

/** With the NUL that the kernel wants at its end. */
export function encodeText(type: number, text: string): Buffer {
  return encodeAttribute(type, Buffer.from(`${text}\0`));
}

export function encodeNested(type: number, attributes: readonly Buffer[]): Buffer {
  return encodeAttribute(type | nested, Buffer.concat(attributes));
}

export interface Attribute {
  readonly type: number;
  readonly value: Buffer;
}

export function decodeAttributes(bytes: Buffer): Attribute[] {
  const attributes: Attribute[] = [];
  for (let at = 0; at + attributeHeaderBytes <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < attributeHeaderBytes || at + length > bytes.length) break;
    const type = bytes.readUInt16LE(at + 2) & ~attributeFlags;
    attributes.push({ type, value: bytes.subarray(at + attributeHeaderBytes, at + length) });
    at += padded(length);
  }
  return attributes;
}

/** The value of the first attribute of this type. */
export function attributeOf(attributes: readonly Attribute[], type: number): Buffer | undefined {
  return attributes.find((attribute) => attribute.type === type)?.value;
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
