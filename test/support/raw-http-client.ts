/**
 * An HTTP client that sends exactly the bytes that a test gives it, and takes the answers apart.
 * Promise: every wait ends when the connection ends; nothing is read while {@link RawHttpClient.pause} holds.
 */
import { connect, type Socket } from 'node:net';

export interface RawResponse {
  readonly status: number;
  readonly fields: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export class RawHttpClient {
  readonly socket: Socket;
  /** Resolves when the connection has ended, in whatever way. */
  readonly closed: Promise<void>;
  #received: Buffer = Buffer.alloc(0);
  #isClosed = false;
  #changed: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
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

  get received(): Buffer {
    return this.#received;
  }

  send(...parts: (string | Buffer)[]): void {
    this.socket.write(
      Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part))),
    );
  }

  /** The next answer; rejects when the connection ends before it is complete. `toHead`: it has no body. */
  async response({ toHead = false } = {}): Promise<RawResponse> {
    const headEnd = await this.#until(() => indexAfter(this.#received, '\r\n\r\n'));
    const [statusLine = '', ...lines] = this.#received.toString('latin1', 0, headEnd - 4).split('\r\n');
    const fields = Object.fromEntries(lines.map(splitField));
    const length = toHead || statusLine.startsWith('HTTP/1.1 304') ? 0 : Number(fields['content-length'] ?? 0);
    await this.#until(() => (this.#received.length >= headEnd + length ? 0 : undefined));
    const body = Buffer.from(this.#received.subarray(headEnd, headEnd + length));
    this.#received = this.#received.subarray(headEnd + length);
    return { status: Number(statusLine.split(' ')[1]), fields, body };
  }

  /** Resolves when at least so many bytes are there that were not taken by {@link response}. */
  async bytes(count: number): Promise<Buffer> {
    await this.#until(() => (this.#received.length >= count ? 0 : undefined));
    return this.#received;
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
      if (this.#isClosed) throw new Error(`the connection ended after: ${this.#received.toString('latin1')}`);
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
