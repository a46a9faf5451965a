/**
 * A small NBD client: fixed newstyle, simple replies, many requests in flight on one unix socket. It shares no code with
 * the server on purpose, so that the demo does not agree with a mistake. Promise: every call settles; after the
 * connection is lost, with an error.
 */
import { connect as connectSocket, type Socket } from 'node:net';

const optionMagic = 0x49484156454f5054n;
const optionReplyMagic = 0x3e889045565a9n;
const requestMagic = 0x25609513;
const replyMagic = 0x67446698;
const optionGo = 7;
const replyAck = 1;
const replyInfo = 3;
const infoExport = 0;
const commandRead = 0;
const commandWrite = 1;
const commandDisconnect = 2;
const commandFlush = 3;
const flagFua = 1;

interface Pending {
  readonly dataLength: number;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: Error) => void;
}

export class NbdClient {
  readonly sizeBytes: number;
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, Pending>();
  #nextCookie = 1n;
  #lost: Error | undefined;

  private constructor(socket: Socket, bytes: ByteQueue, sizeBytes: number) {
    this.#socket = socket;
    this.sizeBytes = sizeBytes;
    void this.#receive(bytes);
  }

  /** Connects to the unix socket at `path` and chooses the default export. */
  static async connect(path: string): Promise<NbdClient> {
    const socket = connectSocket(path);
    const bytes = new ByteQueue(socket);
    const greeting = await bytes.take(18); // NBDMAGIC · IHAVEOPT · flags u16
    if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('this is no NBD server');
    // Client flags (fixed newstyle, no zeroes), then GO = name length u32 · name · information requests u16.
    const hello = Buffer.alloc(4 + 16 + 6);
    hello.writeUInt32BE(3, 0);
    hello.writeBigUInt64BE(optionMagic, 4);
    hello.writeUInt32BE(optionGo, 12);
    hello.writeUInt32BE(6, 16);
    socket.write(hello);
    let sizeBytes: number | undefined;
    for (;;) {
      // option reply = magic u64 · option u32 · type u32 · length u32 · payload
      const header = await bytes.take(20);
      if (header.readBigUInt64BE(0) !== optionReplyMagic) throw new Error('the answer to an option has no magic');
      const type = header.readUInt32BE(12);
      const payload = await bytes.take(header.readUInt32BE(16));
      if (type === replyInfo && payload.readUInt16BE(0) === infoExport) sizeBytes = Number(payload.readBigUInt64BE(2));
      else if (type === replyAck) break;
      else if (type !== replyInfo) throw new Error(`the NBD server refused the export (${type.toString(16)})`);
    }
    if (sizeBytes === undefined) throw new Error('the NBD server did not tell the size');
    return new NbdClient(socket, bytes, sizeBytes);
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#request(commandRead, offset, length, length);
  }

  /** `fua`: durable when this resolves. */
  async write(offset: number, bytes: Buffer, fua = false): Promise<void> {
    const answered = this.#request(commandWrite, offset, bytes.length, 0, fua ? flagFua : 0);
    this.#socket.write(bytes);
    await answered;
  }

  /** Everything answered before is durable when this resolves. */
  async flush(): Promise<void> {
    await this.#request(commandFlush, 0, 0, 0);
  }

  close(): void {
    void this.#request(commandDisconnect, 0, 0, 0).catch(() => undefined);
    this.#socket.end();
  }

  #request(type: number, offset: number, length: number, dataLength: number, flags = 0): Promise<Buffer> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    const cookie = this.#nextCookie++;
    // request = magic u32 · flags u16 · type u16 · cookie u64 · offset u64 · length u32
    const header = Buffer.alloc(28);
    header.writeUInt32BE(requestMagic, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    this.#socket.write(header);
    return new Promise((resolve, reject) => this.#pending.set(cookie, { dataLength, resolve, reject }));
  }

  async #receive(bytes: ByteQueue): Promise<void> {
    try {
      for (;;) {
        // reply = magic u32 · error u32 · cookie u64 (· data)
        const header = await bytes.take(16);
        const cookie = header.readBigUInt64BE(8);
        const pending = this.#pending.get(cookie);
        if (header.readUInt32BE(0) !== replyMagic || pending === undefined) throw new Error('an unknown reply arrived');
        const error = header.readUInt32BE(4);
        const data = await bytes.take(error === 0 ? pending.dataLength : 0);
        this.#pending.delete(cookie);
        if (error === 0) pending.resolve(data);
        else pending.reject(new Error(`the NBD server answered with errno ${error}`));
      }
    } catch (error) {
      this.#lost = error instanceof Error ? error : new Error(String(error));
      this.#socket.destroy();
      for (const pending of this.#pending.values()) pending.reject(this.#lost);
      this.#pending.clear();
    }
  }
}

/** The bytes of a socket, taken in pieces of a known length. One taker at a time. */
class ByteQueue {
  readonly #chunks: Buffer[] = [];
  #available = 0;
  #end: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#available += chunk.length;
      this.#wake?.();
    });
    const ended = (error: Error): void => {
      this.#end ??= error;
      this.#wake?.();
    };
    socket.on('error', ended);
    socket.on('close', () => ended(new Error('the NBD server closed the connection')));
  }

  async take(length: number): Promise<Buffer> {
    while (this.#available < length) {
      if (this.#end !== undefined) throw this.#end;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = Buffer.allocUnsafe(length);
    for (let filled = 0; filled < length; ) {
      const chunk = this.#chunks[0] ?? Buffer.alloc(0);
      const copied = chunk.copy(taken, filled);
      filled += copied;
      if (copied === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(copied);
    }
    this.#available -= length;
    return taken;
  }
}
