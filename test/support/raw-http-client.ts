/**
 * An HTTP client that sends exactly the bytes that a test gives it, and takes the answers apart.
 * Promise: every wait ends when the connection ends; nothing is read while {@link RawHttpClient.pause} holds.
 */
import { connect, type Socket } from 'node:net';

export interface RawResponse {
  /** `HTTP/1.1`, for example. */
  readonly version: string;
  readonly status: number;
  readonly fields: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export class RawHttpClient {
  readonly socket: Socket;
  /** Resolves when the connection has ended, in whatever way. */
  readonly closed: Promise<void>;
  /** Joined only when somebody looks: once for each wait, not for each chunk. */
  #chunks: Buffer[] = [];
  #length = 0;
  #isClosed = false;
  #changed: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      this.#changed();
    });
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#isClosed = true;
        this.#changed();
        resolve();
      });
    });
  }

  /** To `ADDRESS:PORT`; destroyed when the test is over. */
  static async connect(t: { after: (cleanUp: () => void) => void }, endpoint: string): Promise<RawHttpClient> {
    const colon = endpoint.lastIndexOf(':');
    const host = endpoint.slice(0, colon).replace(/^\[|\]$/g, '');
    const socket = connect({ host, port: Number(endpoint.slice(colon + 1)), noDelay: true });
    t.after(() => socket.destroy());
    const client = new RawHttpClient(socket);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return client;
  }

  /** The connection has ended, or the server has said that it will. */
  get isOver(): boolean {
    return this.#isClosed || this.socket.readableEnded;
  }

  /** What no {@link response} has taken. */
  get received(): Buffer {
    const joined = this.#chunks.length === 1 ? this.#chunks[0] : undefined;
    if (joined !== undefined) return joined;
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }

  send(...parts: (string | Buffer)[]): void {
    this.socket.write(
      Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part))),
    );
  }

  /** The next answer; rejects when the connection ends before it is complete. `toHead`: it has no body. */
  async response({ toHead = false } = {}): Promise<RawResponse> {
    const headEnd = await this.#until(() => indexAfter(this.received, '\r\n\r\n'));
    const [statusLine = '', ...lines] = this.received.toString('latin1', 0, headEnd - 4).split('\r\n');
    const fields = Object.fromEntries(lines.map(splitField));
    const length = toHead || statusLine.startsWith('HTTP/1.1 304') ? 0 : Number(fields['content-length'] ?? 0);
    const received = await this.bytes(headEnd + length);
    this.#chunks = [received.subarray(headEnd + length)];
    this.#length = received.length - headEnd - length;
    const [version = '', status] = statusLine.split(' ');
    return { version, status: Number(status), fields, body: received.subarray(headEnd, headEnd + length) };
  }

  /** Resolves when at least so many bytes are there that were not taken by {@link response}. */
  async bytes(count: number): Promise<Buffer> {
    await this.#until(() => (this.#length >= count ? 0 : undefined));
    return this.received;
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  async #until<Found>(find: () => Found | undefined): Promise<Found> {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      if (this.#isClosed) throw new Error(`the connection ended after: ${this.received.toString('latin1')}`);
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

function indexAfter(bytes: Buffer, text: string): number | undefined {
  const index = bytes.indexOf(text);
  return index < 0 ? undefined : index + text.length;
}

function splitField(line: string): [string, string] {
  const colon = line.indexOf(':');
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
}
