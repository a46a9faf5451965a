/**
 * A stand-in for the old server (http_disk_server.py of 1.x), as an old host of a pool still runs it, with all that is peculiar about it:
 * HTTP/1.0 and one request per connection; one connection at a time, so that an idle one blocks it for everybody; a PUT is
 * answered without Content-Length and grows the file; Content-Range of a 206 ends with the length; no 100 Continue, so that who waits for
 * one keeps it waiting, too; exact ranges only, of at most 128 MiB.
 * It is written from a description of the old program, and is not that program.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';

const requestBytesMax = 128 * 1024 * 1024;

type Fields = Record<string, string>;

export class OldServer {
  readonly port: number;
  /** `METHOD PATH` and the header lines of each request, in the order in which they were read. */
  readonly requests: { line: string; fields: Fields }[] = [];
  /** Connections that were accepted, and how many there were at once at most: served or waiting. */
  connections = 0;
  connectionsAtOnceMax = 0;
  /** Connections that ended before they had asked for anything. */
  silentConnections = 0;
  /** How many connections there were at once at most that had not been answered. */
  unansweredAtOnceMax = 0;
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  readonly #unanswered = new Set<Socket>();
  readonly #waiting: Socket[] = [];
  readonly #disk: number;
  #state: 'free' | 'serving' | 'stopped' = 'free';

  private constructor(server: Server, port: number, disk: number) {
    this.#server = server;
    this.port = port;
    this.#disk = disk;
    server.on('connection', (socket) => this.#accept(socket));
  }

  /** Serves the file at `path`, which it does not close over: close the server to have it closed. */
  static async start(path: string, port = 0): Promise<OldServer> {
    const server = createServer({ pauseOnConnect: true });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
    return new OldServer(server, address.port, openSync(path, 'r+'));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** As after kill -9: connections end wherever they are, and the port refuses. */
  async close(): Promise<void> {
    if (this.#state === 'stopped') return;
    this.#state = 'stopped';
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#open) socket.destroy();
    await closed;
    closeSync(this.#disk);
  }

  #accept(socket: Socket): void {
    this.connections += 1;
    this.#open.add(socket);
    this.#unanswered.add(socket);
    this.connectionsAtOnceMax = Math.max(this.connectionsAtOnceMax, this.#open.size);
    this.unansweredAtOnceMax = Math.max(this.unansweredAtOnceMax, this.#unanswered.size);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#open.delete(socket);
      if (this.#unanswered.delete(socket) && this.#state !== 'stopped') this.silentConnections += 1;
    });
    this.#waiting.push(socket);
    this.#serveNext();
  }

  /** The one thread: it reads from nobody else until this one is done. */
  #serveNext(): void {
    if (this.#state !== 'free') return;
    const socket = this.#waiting.shift();
    if (socket === undefined) return;
    if (socket.destroyed) return this.#serveNext();
    this.#state = 'serving';
    socket.once('close', () => {
      if (this.#state === 'serving') this.#state = 'free';
      this.#serveNext();
    });
    this.#serve(socket);
  }

  #serve(socket: Socket): void {
    let pieces: Buffer[] = [];
    let length = 0;
    let wanted = 0;
    socket.on('data', (piece) => {
      pieces.push(piece);
      length += piece.length;
      if (length < wanted) return;
      const received = Buffer.concat(pieces);
      pieces = [received];
      const headEnd = received.indexOf('\r\n\r\n');
      if (headEnd < 0) return;
      const { line, fields } = parseHead(received.toString('latin1', 0, headEnd));
      wanted = headEnd + 4 + Number(fields['content-length'] ?? 0);
      const isChunked = fields['transfer-encoding'] === 'chunked';
      const rest = received.subarray(headEnd + 4);
      const body = isChunked ? dechunked(rest) : rest;
      if (line.startsWith('PUT ') && (length < wanted || body === undefined)) return;
      socket.removeAllListeners('data');
      this.requests.push({ line, fields });
      this.#answer(socket, line.split(' ')[0] ?? '', fields, body ?? rest);
    });
    socket.on('end', () => socket.destroy());
    socket.resume(); // It was accepted paused: listening alone does not start it.
  }

  #answer(socket: Socket, method: string, fields: Fields, body: Buffer): void {
    this.#unanswered.delete(socket);
    const size = fstatSync(this.#disk).size;
    switch (method) {
      case 'HEAD':
        end(socket, '200 OK', ['Accept-Ranges: bytes', `Content-Length: ${size}`]);
        return;
      case 'GET':
        this.#read(socket, fields['range'], size);
        return;
      case 'PUT':
        this.#write(socket, fields, body);
        return;
      default:
        end(socket, '501 Unsupported method', ['Connection: close', 'Content-Type: text/html'], '<html></html>');
    }
  }

  #read(socket: Socket, range: string | undefined, size: number): void {
    if (range === undefined) return end(socket, '400 Bad Request', []);
    const match = /^bytes=(\d+)-(\d+)$/.exec(range);
    const start = Number(match?.[1]);
    const length = Number(match?.[2]) - start + 1;
    if (match === null || length < 1 || length > requestBytesMax || start + length > size) {
      return end(socket, '416 Requested Range Not Satisfiable', []);
    }
    const data = Buffer.alloc(length);
    readSync(this.#disk, data, 0, length, start);
    const fields = [`Content-Range: bytes ${start}-${length - 1}/${size}`, `Content-Length: ${length}`];
    end(socket, '206 Partial Content', ['Content-Type: application/octet-stream', ...fields], data);
  }

  /** The real one reads as many bytes as Content-Range says; who sends neither a length nor chunks has not read its manual. */
  #write(socket: Socket, fields: Fields, body: Buffer): void {
    const match = /^bytes (\d+)-(\d+)\/(?:\*|-?\d+)$/.exec(fields['content-range'] ?? '');
    const start = Number(match?.[1]);
    const length = Number(match?.[2]) - start + 1;
    const isFramed = fields['content-length'] !== undefined || fields['transfer-encoding'] !== undefined;
    if (match === null || !isFramed || length !== body.length) return end(socket, '400 Bad Request', []);
    if (length > requestBytesMax) return end(socket, '416 Requested Range Not Satisfiable', []);
    writeSync(this.#disk, body, 0, length, start);
    end(socket, '200 OK', [], 'Ok.');
  }
}

function parseHead(text: string): { line: string; fields: Fields } {
  const [line = '', ...lines] = text.split('\r\n');
  const fields: Fields = {};
  for (const field of lines) {
    const colon = field.indexOf(':');
    fields[field.slice(0, colon).toLowerCase()] = field.slice(colon + 1).trim();
  }
  return { line, fields };
}

/** The body inside its chunks; undefined: they are not all there. */
function dechunked(coded: Buffer): Buffer | undefined {
  const chunks: Buffer[] = [];
  for (let at = 0; ; ) {
    const lineEnd = coded.indexOf('\r\n', at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(coded.toString('latin1', at, lineEnd), 16);
    if (Number.isNaN(size)) throw new Error('the size of a chunk is malformed');
    if (size === 0) return coded.length < lineEnd + 4 ? undefined : Buffer.concat(chunks);
    const chunkEnd = lineEnd + 2 + size;
    if (coded.length < chunkEnd + 2) return undefined;
    chunks.push(coded.subarray(lineEnd + 2, chunkEnd));
    at = chunkEnd + 2;
  }
}

function end(socket: Socket, status: string, fields: readonly string[], body: string | Buffer = ''): void {
  const head = [`HTTP/1.0 ${status}`, 'Server: BaseHTTP/0.6 Python/3.6.8', `Date: ${new Date().toUTCString()}`];
  socket.write(`${[...head, ...fields].join('\r\n')}\r\n\r\n`);
  socket.end(body, () => socket.destroySoon());
}
