/**
 * An HTTP server made of a socket, for answers that no proper server gives: what is sent back is up to the test, byte by byte.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { systemClock } from '../../../src/base/clock.js';
import { HttpBackend, type HttpBackendOptions } from '../../../src/http-client/http-backend.js';
import { parseServerUrl } from '../../../src/http-client/target.js';
import type { SentRequest } from '../../../src/http-client/exchange.js';
import type { DiskAnswer } from '../../../src/http-disk/messages.js';

export interface RawRequest {
  readonly method: string;
  readonly path: string;
  readonly fields: Record<string, string>;
  readonly body: Buffer;
  readonly socket: Socket;
  /** Which connection, from 0 on, and which request on it. */
  readonly connection: number;
  readonly index: number;
  /** Sends these bytes. */
  readonly reply: (...parts: (string | Buffer)[]) => void;
}

export type Answer = (request: RawRequest) => void;

export class RawServer {
  readonly requests: RawRequest[] = [];
  readonly sockets: Socket[] = [];
  /** The heads of requests, whose bodies may still be on their way. */
  readonly heads: { method: string; socket: Socket }[] = [];
  answer: Answer;
  onHead: (head: { method: string; socket: Socket }) => void = () => undefined;
  readonly #server: Server;
  #notify: () => void = () => undefined;

  private constructor(server: Server, answer: Answer) {
    this.#server = server;
    this.answer = answer;
    server.on('connection', (socket) => this.accept(socket));
  }

  /** It is closed when the test is over. */
  static async start(t: TestContext, answer: Answer, host = '127.0.0.1', port = 0): Promise<RawServer> {
    const server = createServer({ noDelay: true });
    server.listen(port, host);
    await once(server, 'listening');
    const raw = new RawServer(server, answer);
    t.after(() => raw.close());
    return raw;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
    return address.port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get open(): number {
    return this.sockets.filter((socket) => !socket.destroyed).length;
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  /** Resolves as soon as `holds`; looked at whenever something has arrived or closed. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => (this.#notify = resolve));
  }

  accept(socket: Socket | TLSSocket): void {
    const connection = this.sockets.length;
    let received: Buffer = Buffer.alloc(0);
    let pieces: Buffer[] = [];
    let missing = 1;
    let index = 0;
    let isNew = true;
    this.sockets.push(socket);
    this.#notify();
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#notify());
    socket.on('data', (piece: Buffer) => {
      pieces.push(piece);
      missing -= piece.length;
      if (missing > 0) return;
      received = Buffer.concat([received, ...pieces]);
      pieces = [];
      for (;;) {
        isNew = this.#noteHead(received, socket, isNew);
        const request = readRequest(received);
        if (typeof request === 'number') {
          missing = request;
          return;
        }
        received = received.subarray(request.length);
        isNew = true;
        const reply = (...parts: (string | Buffer)[]): void => {
          socket.cork();
          for (const part of parts) socket.write(part);
          socket.uncork();
        };
        this.requests.push({ ...request, socket, connection, index, reply });
        index += 1;
        const latest = this.requests.at(-1);
        if (latest !== undefined) this.answer(latest);
        this.#notify();
      }
    });
  }

  /** Returns whether the next head is still to come. */
  #noteHead(received: Buffer, socket: Socket, isNew: boolean): boolean {
    if (!isNew || received.indexOf('\r\n\r\n') < 0) return isNew;
    const head = { method: received.toString('latin1', 0, received.indexOf(' ')), socket };
    this.heads.push(head);
    this.onHead(head);
    this.#notify();
    return false;
  }
}

/** A request; or how many bytes of it are missing, at least. */
function readRequest(
  received: Buffer,
): (Pick<RawRequest, 'method' | 'path' | 'fields' | 'body'> & { length: number }) | number {
  const headEnd = received.indexOf('\r\n\r\n');
  if (headEnd < 0) return 1;
  const [line = '', ...lines] = received.toString('latin1', 0, headEnd).split('\r\n');
  const fields: Record<string, string> = {};
  for (const text of lines) {
    const colon = text.indexOf(':');
    fields[text.slice(0, colon).toLowerCase()] = text.slice(colon + 1).trim();
  }
  const length = headEnd + 4 + Number(fields['content-length'] ?? 0);
  if (received.length < length) return length - received.length;
  const [method = '', path = ''] = line.split(' ');
  return { method, path, fields, body: Buffer.from(received.subarray(headEnd + 4, length)), length };
}

/** `disk[i]` tells its position, so that bytes of another place are noticed. */
export function testDisk(length: number): Buffer {
  const disk = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) disk.writeUInt32BE(at ^ 0x5a5a5a5a, at);
  return disk;
}

export interface DiskServerOptions {
  /** Field lines of the answer to HEAD. */
  readonly announces?: readonly string[];
  /** Field lines of the others. */
  readonly fields?: readonly string[];
}

export const session = ['Disk-Features: flush, trim, zero, map, session', 'Disk-Instance: one', 'Disk-Clock: 1000'];
export const instance = ['Disk-Instance: one', 'Disk-Clock: 1001'];

/** Answers as a proper server of `disk` does. */
export function diskAnswer(disk: Buffer, { fields = [], announces = [] }: DiskServerOptions = {}): Answer {
  return ({ method, fields: asked, body, reply }) => {
    const head = (status: string, ...more: string[]): string =>
      [`HTTP/1.1 ${status}`, ...(method === 'HEAD' ? announces : fields), ...more, '', ''].join('\r\n');
    const range = /^bytes[= ](\d+)-(\d+)(?:\/\*)?$/.exec(asked['range'] ?? asked['content-range'] ?? '');
    const first = Number(range?.[1]);
    const last = Number(range?.[2]);
    if (method === 'HEAD') reply(head('200 OK', `Content-Length: ${disk.length}`, 'Accept-Ranges: bytes'));
    else if (method === 'GET') {
      const label = [`Content-Range: bytes ${first}-${last}/${disk.length}`, `Content-Length: ${last - first + 1}`];
      reply(head('206 Partial Content', ...label), disk.subarray(first, last + 1));
    } else {
      if (method === 'PUT') body.copy(disk, first);
      reply(head('200 OK', 'Content-Length: 4'), 'Ok.\n');
    }
  };
}

/** A backend for `url`, given up when the test is over. */
export function backendFor(t: TestContext, url: string, options: Partial<HttpBackendOptions> = {}): HttpBackend {
  const defaults = { clock: systemClock, connectTimeoutMs: 2000, environment: {} };
  const backend = new HttpBackend(parseServerUrl(url).target, { ...defaults, ...options });
  t.after(() => backend.abandon());
  return backend;
}

/** {@link HttpBackend.send}, with a promise for the answer. */
export function ask(
  backend: HttpBackend,
  request: SentRequest,
  bytes: Buffer | null,
  into: Buffer | null,
): Promise<DiskAnswer> {
  return new Promise((answered, failed) => backend.send(request, bytes, into, { answered, failed }));
}

export function read(
  backend: HttpBackend,
  offset: number,
  length: number,
  instanceId?: string,
): Promise<{ data: Buffer; instance: string | undefined }> {
  const data = Buffer.alloc(length, 0xee);
  const request: SentRequest = { op: 'read', offset, length, instance: instanceId };
  return ask(backend, request, null, data).then((answer) => ({ data, instance: answer.instance }));
}

export function write(backend: HttpBackend, offset: number, bytes: Buffer): Promise<unknown> {
  return ask(backend, { op: 'write', offset, length: bytes.length, deferred: false }, bytes, null);
}

/** The code of the failure that `promise` rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
  return 'no failure';
}
