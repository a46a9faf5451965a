/**
 * A stand-in for the old server, as an old host of a pool still runs it, with all that is peculiar about it:
 * HTTP/1.0 and one request per connection; one connection at a time, so that an idle one blocks it for everybody; a PUT is
 * answered without Content-Length and grows the file; Content-Range of a 206 ends with the length; no 100 Continue; no chunked bodies;
 * exact ranges only, of at most 128 MiB.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';

const requestBytesMax = 128 * 1024 * 1024;

export class OldServer {
  readonly port: number;
  /** `METHOD PATH` and the header lines of each request, in the order in which they were read. */
  readonly requests: { line: string; fields: Record<string, string> }[] = [];
  /** Connections that were accepted, and how many there were at once at most: served or waiting. */
  connections = 0;
  connectionsAtOnceMax = 0;
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  readonly #waiting: Socket[] = [];
  readonly #disk: number;
  #isServing = false;

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

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#open) socket.destroy();
    await closed;
    closeSync(this.#disk);
  }

  #accept(socket: Socket): void {
    this.connections += 1;
    this.#open.add(socket);
    this.connectionsAtOnceMax = Math.max(this.connectionsAtOnceMax, this.#open.size);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#open.delete(socket));
    this.#waiting.push(socket);
    this.#serveNext();
  }

  /** The one thread: it reads from nobody else until this one is done. */
  #serveNext(): void {
    if (this.#isServing) return;
    const socket = this.#waiting.shift();
    if (socket === undefined) return;
    if (socket.destroyed) return this.#serveNext();
    this.#isServing = true;
    socket.once('close', () => {
      this.#isServing = false;
      this.#serveNext();
    });
    this.#serve(socket);
  }

  #serve(socket: Socket): void {
    let received = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      const headEnd = received.indexOf('\r\n\r\n');
      if (headEnd < 0) return;
      const [line = '', ...lines] = received.toString('latin1', 0, headEnd).split('\r\n');
      const fields: Record<string, string> = {};
      for (const text of lines) {
        const colon = text.indexOf(':');
        fields[text.slice(0, colon).toLowerCase()] = text.slice(colon + 1).trim();
      }
      const body = received.subarray(headEnd + 4);
      if (line.startsWith('PUT ') && body.length < Number(fields['content-length'] ?? 0)) return;
      socket.removeAllListeners('data');
      this.requests.push({ line, fields });
      this.#answer(socket, line.split(' ')[0] ?? '', fields, body);
    });
    socket.on('end', () => socket.destroy());
    socket.resume(); // It was accepted paused: listening alone does not start it.
  }

  #answer(socket: Socket, method: string, fields: Record<string, string>, body: Buffer): void {
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

  #write(socket: Socket, fields: Record<string, string>, body: Buffer): void {
    const match = /^bytes (\d+)-(\d+)\/(?:\*|-?\d+)$/.exec(fields['content-range'] ?? '');
    const start = Number(match?.[1]);
    const length = Number(match?.[2]) - start + 1;
    if (match === null || fields['content-length'] === undefined || length !== body.length) {
      return end(socket, '400 Bad Request', []);
    }
    if (length > requestBytesMax) return end(socket, '416 Requested Range Not Satisfiable', []);
    writeSync(this.#disk, body, 0, length, start);
    end(socket, '200 OK', [], 'Ok.');
  }
}

function end(socket: Socket, status: string, fields: readonly string[], body: string | Buffer = ''): void {
  const head = [`HTTP/1.0 ${status}`, 'Server: BaseHTTP/0.6 Python/3.6.8', `Date: ${new Date().toUTCString()}`];
  socket.write(`${[...head, ...fields].join('\r\n')}\r\n\r\n`);
  socket.end(body, () => socket.destroySoon());
}
