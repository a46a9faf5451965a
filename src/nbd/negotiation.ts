/**
 * The server's side of the handshake, as a pure function: (state, message) → (state, bytes to send).
 * Promise: every option gets exactly one final reply, whatever it contains, except where the specification leaves
 * only the end of the connection (unknown client flags, a wrong magic, an EXPORT_NAME that cannot be read).
 *
 * There is one export, and it goes by every name.
 *
 *     greeted ──client flags──▶ haggling ──GO · EXPORT_NAME──▶ transmission
 *        │                      │  ▲  │
 *        │                      │  └──┘ LIST · INFO · STRUCTURED_REPLY · LIST/SET_META_CONTEXT · unknown
 *        └──unknown flags──▶  ended  ◀── ABORT · wrong magic · more than `optionsMax` options
 */
import { assert } from '../base/assert.js';
import {
  allocationContext,
  handshakeFlag,
  info,
  option,
  optionReply,
  stringBytesMax,
  transmissionFlag,
} from './constants.js';
import { type ExportReply, encodeExportReply, encodeOptionReply } from './handshake.js';
import type { ClientMessage } from './handshake-reader.js';
import {
  decodeInfoQuery,
  decodeMetaContextQuery,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContext,
  encodeServer,
} from './option-data.js';

/** A client that asks more than this has no intention to come to an end. @public */
export const optionsMax = 256;

/** What is offered to every client. */
export interface ExportOffer {
  /** The canonical name: what LIST shows. Every other name is accepted as well. */
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** What both sides rely on in the transmission phase. */
export interface Agreement {
  readonly structuredReplies: boolean;
  /** Whether base:allocation was selected: only then BLOCK_STATUS may be asked. */
  readonly allocation: boolean;
}

/** Nothing negotiated: what a kernel's socket speaks. @public */
export const plainAgreement: Agreement = { structuredReplies: false, allocation: false };

interface Haggling {
  readonly at: 'haggling';
  readonly noZeroes: boolean;
  readonly structuredReplies: boolean;
  /** The export for which base:allocation is selected, as the client wrote it. */
  readonly allocationFor: string | null;
  readonly options: number;
}

export type NegotiationState =
  | { readonly at: 'greeted' }
  | Haggling
  | { readonly at: 'transmission'; readonly agreement: Agreement }
  /** The connection is to be closed once everything is sent. `fault`: what the client did wrong, if it did. */
  | { readonly at: 'ended'; readonly fault: string | null };

export interface Step {
  readonly state: NegotiationState;
  readonly send: readonly Buffer[];
}

export function negotiate(state: NegotiationState, message: ClientMessage, offer: ExportOffer): Step {
  assert(state.at === 'greeted' || state.at === 'haggling', 'a negotiation that is over takes no message');
  if (message.kind === 'bad-magic') return ended('not an NBD option: the magic number is wrong');
  if (state.at === 'greeted') {
    assert(message.kind === 'client-flags', 'the reader yields the client flags first');
    return greeted(message.flags);
  }
  assert(message.kind !== 'client-flags', 'the reader yields the client flags once');
  if (state.options === optionsMax) return ended(`more than ${optionsMax} options`);
  const next: Haggling = { ...state, options: state.options + 1 };
  if (message.kind === 'oversized-option') return oversized(next, message.option, message.length, offer);
  return haggle(next, message.option, message.data, offer);
}

function transmissionFlags(offer: ExportOffer, structuredReplies: boolean): number {
  const always =
    transmissionFlag.hasFlags |
    transmissionFlag.sendFlush |
    transmissionFlag.sendFua |
    transmissionFlag.canMultiConn |
    transmissionFlag.sendCache;
  const writing = transmissionFlag.sendTrim | transmissionFlag.sendWriteZeroes | transmissionFlag.sendFastZero;
  return (
    always | (offer.readOnly ? transmissionFlag.readOnly : writing) | (structuredReplies ? transmissionFlag.sendDf : 0)
  );
}

function greeted(flags: number): Step {
  // `>>> 0`: bit 31 must not turn the rest of the flags negative.
  const unknown = (flags & ~(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)) >>> 0;
  if (unknown !== 0) return ended(`unknown client flags 0x${unknown.toString(16)}`);
  const noZeroes = (flags & handshakeFlag.noZeroes) !== 0;
  const state: Haggling = { at: 'haggling', noZeroes, structuredReplies: false, allocationFor: null, options: 0 };
  return { state, send: [] };
}

function haggle(state: Haggling, type: number, data: Buffer, offer: ExportOffer): Step {
  switch (type) {
    case option.exportName:
      return exportName(state, data, offer);
    case option.abort:
      return { state: { at: 'ended', fault: null }, send: [ack(type)] };
    case option.list:
      return list(state, data, offer);
    case option.info:
    case option.go:
      return infoOrGo(state, type, data, offer);
    case option.structuredReply:
      if (data.length > 0) return refused(state, type, optionReply.errInvalid, 'this option takes no data');
      return { state: { ...state, structuredReplies: true }, send: [ack(type)] };
    case option.listMetaContext:
    case option.setMetaContext:
      return metaContext(state, type, data);
    default:
      return refused(state, type, optionReply.errUnsupported, `option ${type} is not supported`);
  }
}

function exportName(state: Haggling, data: Buffer, offer: ExportOffer): Step {
  if (data.length > stringBytesMax) return unreadableName(data.length);
  const send = [encodeExportReply(exportReply(state, offer), state.noZeroes)];
  return { state: transmission(state, data.toString('utf8')), send };
}

function list(state: Haggling, data: Buffer, offer: ExportOffer): Step {
  if (data.length > 0) return refused(state, option.list, optionReply.errInvalid, 'this option takes no data');
  const server = encodeOptionReply(option.list, optionReply.server, encodeServer(offer.name, offer.description));
  return { state, send: [server, ack(option.list)] };
}

function infoOrGo(state: Haggling, type: number, data: Buffer, offer: ExportOffer): Step {
  const query = decodeInfoQuery(data);
  if (query === null) return refused(state, type, optionReply.errInvalid, 'malformed request for information');
  const items = [encodeInfoExport(exportReply(state, offer))];
  if (query.items.includes(info.name)) items.push(encodeInfoText(info.name, offer.name));
  if (query.items.includes(info.description)) items.push(encodeInfoText(info.description, offer.description));
  if (query.items.includes(info.blockSize)) items.push(encodeInfoBlockSize());
  const send = [...items.map((item) => encodeOptionReply(type, optionReply.info, item)), ack(type)];
  return { state: type === option.go ? transmission(state, query.exportName) : state, send };
}

function metaContext(state: Haggling, type: number, data: Buffer): Step {
  const selects = type === option.setMetaContext;
  // "replaces all previously-set metadata contexts (including when this command fails)"
  const cleared = selects ? { ...state, allocationFor: null } : state;
  if (!state.structuredReplies) {
    return refused(cleared, type, optionReply.errInvalid, 'structured replies have to be negotiated first');
  }
  const query = decodeMetaContextQuery(data);
  if (query === null) return refused(cleared, type, optionReply.errInvalid, 'malformed query for metadata contexts');
  const { queries } = query;
  const listed = !selects && (queries.length === 0 || queries.includes(allocationContext.namespace));
  if (!listed && !queries.includes(allocationContext.name)) return { state: cleared, send: [ack(type)] };
  const context = encodeMetaContext(selects ? allocationContext.id : 0, allocationContext.name);
  return {
    state: selects ? { ...state, allocationFor: query.exportName } : state,
    send: [encodeOptionReply(type, optionReply.metaContext, context), ack(type)],
  };
}

/** Only the options whose data has no fixed length can be too long; what the others answer does not depend on it. */
function oversized(state: Haggling, type: number, length: number, offer: ExportOffer): Step {
  switch (type) {
    case option.exportName:
      return unreadableName(length);
    case option.info:
    case option.go:
    case option.listMetaContext:
    case option.setMetaContext: {
      const cleared = type === option.setMetaContext ? { ...state, allocationFor: null } : state;
      return refused(cleared, type, optionReply.errTooBig, `${length} bytes are more than this option may have`);
    }
    default:
      return haggle(state, type, Buffer.alloc(1), offer);
  }
}

/** This option's answer cannot say no. */
function unreadableName(lengthBytes: number): Step {
  return ended(`an export name of ${lengthBytes} bytes`);
}

function transmission(state: Haggling, name: string): NegotiationState {
  const { structuredReplies, allocationFor } = state;
  return { at: 'transmission', agreement: { structuredReplies, allocation: allocationFor === name } };
}

function exportReply(state: Haggling, offer: ExportOffer): ExportReply {
  return { sizeBytes: offer.sizeBytes, transmissionFlags: transmissionFlags(offer, state.structuredReplies) };
}

function ended(fault: string): Step {
  return { state: { at: 'ended', fault }, send: [] };
}

function ack(type: number): Buffer {
  return encodeOptionReply(type, optionReply.ack, Buffer.alloc(0));
}

function refused(state: Haggling, type: number, error: number, message: string): Step {
  return { state, send: [encodeOptionReply(type, error, Buffer.from(message))] };
}
