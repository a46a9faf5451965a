/**
 * An NBD client for tests: it can say what no decent client says, and shows what came back in which order.
 * Promise: every call settles; after the connection is closed, with an error.
 */
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { Errno } from '../../src/base/failure.js';
import {
  allocationContext,
  command,
  handshakeFlag,
  magic,
  option,
  optionReply,
  replyFlag,
  replyType,
} from '../../src/nbd/constants.js';
import { errnoOf } from '../../src/nbd/errno.js';
import {
  decodeExportReply,
  decodeGreeting,
  decodeOptionReplyHeader,
  type ExportReply,
  encodeClientFlags,
  encodeOption,
  greetingBytes,
  isErrorReply,
  optionReplyHeaderBytes,
} from '../../src/nbd/handshake.js';
import { encodeInfoQuery, encodeMetaContextQuery } from '../../src/nbd/option-data.js';
import {
  chunkHeaderBytes,
  type Descriptor,
  decodeBlockStatus,
  decodeChunkHeader,
  decodeErrorChunk,
  decodeOffsetData,
  decodeSimpleReply,
  simpleReplyBytes,
} from '../../src/nbd/reply.js';
import { encodeRequest } from '../../src/nbd/request.js';

const empty = Buffer.alloc(0);

export interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

export interface Ask {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  /** Default: that of the payload. */
  readonly length?: number;
  readonly payload?: Buffer;
}

export interface Reply {
  /** Null: success. */
  readonly error: Errno | null;
  readonly message: string;
  readonly data: Buffer;
  readonly descriptors: readonly Descriptor[];
  readonly form: 'simple' | 'structured';
}

interface Pending {
  readonly ask: Ask;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

export interface Wishes {
  readonly structured?: boolean;
  readonly allocation?: boolean;
}

export class NbdClient {
  readonly socket: Socket;
  /** Resolves when both sides are closed, however that came about. */
  readonly closed: Promise<void>;
  /** The numbers of the requests that were answered, in the order of their replies. */
  readonly answered: number[] = [];
  readonly #pending = new Map<number, Pending>();
  readonly #input: Input;
  #nextNumber = 1;
  /** The one whose reply came last. */
  #current: Pending | undefined;
  #lost: Error | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#input = new Input(socket);
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => void socket.once('close', () => resolve()));
  }

  /** Connected, not greeted. */
  static connect(where: NetConnectOpts): Promise<NbdClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ ...where, allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => resolve(new NbdClient(socket)));
    });
  }

  /** Takes over a socket on which no handshake takes place. */
  static adopt(socket: Socket, structured: boolean): NbdClient {
    const client = new NbdClient(socket);
    client.transmit(structured);
    return client;
  }

  /** In the transmission phase of the default export. */
  static async open(where: NetConnectOpts, { structured = true, allocation = true }: Wishes = {}): Promise<NbdClient> {
    const client = await NbdClient.connect(where);
    await client.greet();
    if (structured) await client.option(option.structuredReply);
    if (structured && allocation) {
      const query = encodeMetaContextQuery({ exportName: '', queries: [allocationContext.name] });
      await client.option(option.setMetaContext, query);
    }
    await client.option(option.go, encodeInfoQuery({ exportName: '', items: [] }));
    client.transmit(structured);
    return client;
  }

  // --- handshake ---

  /** Answers the server's greeting; resolves with the server's flags. */
  async greet(flags: number = handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes): Promise<number> {
    const greeting = decodeGreeting(await this.#input.take(greetingBytes));
    if (greeting === null) throw new Error('the greeting has no magic');
    this.send(encodeClientFlags(flags));
    return greeting;
  }

  /** Sends an option; resolves with all its replies, the final one last. */
  async option(type: number, data: Buffer = empty): Promise<OptionReply[]> {
    this.send(encodeOption(type, data));
    return this.optionReplies(type);
  }

  async optionReplies(type: number): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (;;) {
      const header = decodeOptionReplyHeader(await this.#input.take(optionReplyHeaderBytes));
      if (header?.option !== type) throw new Error('this is no reply to that option');
      replies.push({ type: header.type, data: await this.#input.take(header.length) });
      if (header.type === optionReply.ack || isErrorReply(header.type)) return replies;
    }
  }

  /** Sends EXPORT_NAME; `tail`: what follows the flags. */
  async exportName(name: string, tailBytes: number): Promise<ExportReply & { tail: Buffer }> {
    this.send(encodeOption(option.exportName, Buffer.from(name)));
    const reply = decodeExportReply(await this.#input.take(10));
    return { ...reply, tail: await this.#input.take(tailBytes) };
  }

  // --- transmission ---

  /** From now on, what comes is replies. */
  transmit(structured: boolean): void {
    this.#receive(structured).catch((error: Error) => {
      this.#lost = error;
      this.#current?.reject(error); // of no effect if it was answered
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
    });
  }

  request(ask: Ask): Promise<Reply> {
    const number = this.#nextNumber;
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) return reject(this.#lost);
      this.send(this.encode(ask));
      this.#pending.set(number, { ask, resolve, reject });
    });
  }

  /** The bytes of a request, which is then expected to be answered (but see {@link request}). */
  encode(ask: Ask): Buffer {
    const { type, flags = 0, offset = 0, payload = empty, length = payload.length } = ask;
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    const header = encodeRequest({ flags, type, cookieHigh: 0xfedcba98, cookieLow: number, offset: 0, length });
    header.writeBigUInt64BE(BigInt(offset), 16);
    return Buffer.concat([header, payload]);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const { error, data } = await this.request({ type: command.read, offset, length });
    if (error !== null) throw new Error(`READ: ${error}`);
    return data;
  }

  async write(offset: number, payload: Buffer, flags = 0): Promise<void> {
    const { error } = await this.request({ type: command.write, flags, offset, payload });
    if (error !== null) throw new Error(`WRITE: ${error}`);
  }

  send(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** Bytes as they come. */
  take(bytes: number): Promise<Buffer> {
    return this.#input.take(bytes);
  }

  destroy(): void {
    this.socket.destroy();
  }

  async #receive(structured: boolean): Promise<void> {
    for (;;) {
      const first = await this.#input.take(4);
      const isChunk = first.readUInt32BE(0) === magic.structuredReply;
      if (isChunk && !structured) throw new Error('a structured reply was not agreed on');
      const rest = await this.#input.take((isChunk ? chunkHeaderBytes : simpleReplyBytes) - 4);
      const header = Buffer.concat([first, rest]);
      if (isChunk) await this.#chunk(header);
      else await this.#simple(header, structured);
    }
  }

  async #simple(header: Buffer, structured: boolean): Promise<void> {
    const reply = decodeSimpleReply(header, 0);
    if (reply?.cookieHigh !== 0xfedcba98) throw new Error('garbage instead of a reply');
    const { ask, resolve } = this.#answered(reply.cookieLow);
    if (structured && ask.type === command.read) throw new Error('a simple reply to READ after all');
    const data = ask.type === command.read && reply.error === 0 ? await this.#input.take(ask.length ?? 0) : empty;
    const error = reply.error === 0 ? null : errnoOf(reply.error);
    resolve({ error, message: '', data, descriptors: [], form: 'simple' });
  }

  async #chunk(bytes: Buffer): Promise<void> {
    const header = decodeChunkHeader(bytes, 0);
    if (header?.cookieHigh !== 0xfedcba98) throw new Error('the reply is not ours');
    if (header.flags !== replyFlag.done) throw new Error('our server sends one chunk');
    const payload = await this.#input.take(header.length);
    const { ask, resolve } = this.#answered(header.cookieLow);
    const success = { error: null, message: '', data: empty, descriptors: [], form: 'structured' } as const;
    switch (header.type) {
      case replyType.none:
        return resolve(success);
      case replyType.offsetData: {
        const content = decodeOffsetData(payload);
        if (content === null || content.offset !== (ask.offset ?? 0)) throw new Error('data of another place');
        return resolve({ ...success, data: content.data });
      }
      case replyType.blockStatus: {
        const status = decodeBlockStatus(payload);
        if (status?.contextId !== allocationContext.id) throw new Error('the status of another context');
        return resolve({ ...success, descriptors: status.descriptors });
      }
      case replyType.error: {
        const failure = decodeErrorChunk(payload);
        if (failure === null || failure.error === 0) throw new Error('a malformed error');
        return resolve({ ...success, error: errnoOf(failure.error), message: failure.message });
      }
      default:
        throw new Error(`a chunk of type ${header.type}`);
    }
  }

  #answered(number: number): Pending {
    const pending = this.#pending.get(number);
    if (pending === undefined) throw new Error(`an answer to request ${number}, which is not waiting for one`);
    this.#pending.delete(number);
    this.answered.push(number);
    this.#current = pending;
    return pending;
  }
}

/** Hands out a socket's bytes by count. */
class Input {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #wake: (() => void) | undefined;
  #ended = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      this.#wake?.();
    });
    const end = () => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', end);
    socket.on('close', end);
  }

  async take(bytes: number): Promise<Buffer> {
    while (this.#bytes < bytes) {
      if (this.#ended) {
        this.#socket.end();
        throw new Error(`the server has closed the connection, ${this.#bytes} bytes were left`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = Buffer.concat(this.#chunks);
    this.#chunks = bytes < all.length ? [all.subarray(bytes)] : [];
    this.#bytes = all.length - bytes;
    return all.subarray(0, bytes);
  }
}
