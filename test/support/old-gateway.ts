/**
 * A stand-in for the old gateway (the nbdkit plugin with libcurl of 1.x), as an old host of a pool still runs it, with all that is peculiar
 * about it: HEAD chooses a server; one request at a time, over one connection that is kept if the server keeps it; a PUT is chunked, its
 * total is -1, and it waits up to a second for `100 Continue`; whatever takes longer than 3 s, or is answered with 400 or more, is tried on
 * the next server of the list, each one once; a connection that breaks is made again at once, up to 30 times, on the same server.
 * It is written from a description of the old program, and is not that program. Redirects, which neither server sends, are left out.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { RawHttpClient, type RawResponse } from './raw-http-client.js';

export interface OldGatewayOptions {
  /** Of each request, milliseconds. The old one has 3000. */
  readonly requestTimeoutMs?: number;
  /** How long a PUT waits for `100 Continue`, milliseconds. The old one waits 1000. */
  readonly continueWaitMs?: number;
}

/** Why an attempt failed. */
type Reason = 'refused' | 'reset' | 'status' | 'timed-out';

class Attempt extends Error {
  readonly reason: Reason;

  constructor(reason: Reason, message: string) {
    super(message);
    this.reason = reason;
  }
}

interface Request {
  readonly method: 'HEAD' | 'GET' | 'PUT';
  readonly lines: readonly string[];
  readonly body?: Buffer;
  /** Bytes that the answer must have. */
  readonly expectedBytes?: number;
}

const resetsMax = 30;
/** What one read callback of libcurl gives. */
const chunkBytes = 16 * 1024;

export class OldGateway {
  /** PUTs that were told to continue, and those that were sent because nobody said anything. */
  readonly puts = { continued: 0, unanswered: 0 };
  /** Each attempt that failed, as `URL: REASON: what happened`. */
  readonly failures: string[] = [];
  /** Connections that were made. */
  connections = 0;
  readonly #urls: readonly string[];
  readonly #requestTimeoutMs: number;
  readonly #continueWaitMs: number;
  #current = -1;
  #client: RawHttpClient | undefined;
  #sizeBytes = 0;
  /** The last request that was asked for: the next one waits for it. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(urls: readonly string[], options: OldGatewayOptions) {
    this.#urls = urls;
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 3000;
    this.#continueWaitMs = options.continueWaitMs ?? 1000;
  }

  /** Chooses a server; its connection is closed when the test is over. Rejects when there is none. */
  static async open(
    t: { after: (cleanUp: () => void) => void },
    urls: readonly string[],
    options: OldGatewayOptions = {},
  ): Promise<OldGateway> {
    const gateway = new OldGateway(urls, options);
    t.after(() => gateway.close());
    if (!(await gateway.#select(undefined, urls.length))) throw new Error(`no server: ${gateway.failures.join(', ')}`);
    return gateway;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The server in use. */
  get url(): string | undefined {
    return this.#urls[this.#current];
  }

  read(offset: number, length: number): Promise<Buffer> {
    const request = {
      method: 'GET',
      lines: [`Range: bytes=${offset}-${offset + length - 1}`],
      expectedBytes: length,
    } as const;
    return this.#inTurn(async () => (await this.#perform(request)).body);
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    const range = `Content-Range: bytes ${offset}-${offset + bytes.length - 1}/-1`;
    const lines = [range, 'Transfer-Encoding: chunked', 'Expect: 100-continue'];
    await this.#inTurn(() => this.#perform({ method: 'PUT', lines, body: bytes }));
  }

  /** It has none: a write is as durable as the server makes it. */
  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    this.#client?.socket.destroy();
    this.#client = undefined;
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(run);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #perform(request: Request): Promise<RawResponse> {
    if (this.#current < 0) await this.#select(undefined, this.#urls.length);
    const first = this.#current;
    let resets = resetsMax;
    while (this.#current >= 0) {
      try {
        return await this.#attempt(request);
      } catch (error) {
        if (this.#note(error).reason === 'reset' && resets > 0) {
          resets -= 1;
          if (await this.#head()) continue;
        }
      }
      await this.#select(first, this.#urls.length);
    }
    throw new Error(`no server did it: ${this.failures.slice(-5).join(', ')}`);
  }

  /** Asks up to `count` servers behind the current one, until one will do or it is the turn of `limit`. */
  async #select(limit: number | undefined, count: number): Promise<boolean> {
    for (let tried = 0; tried < count; tried += 1) {
      this.#current = (this.#current + 1) % this.#urls.length;
      if (this.#current === limit) break;
      if (await this.#head()) return true;
    }
    this.#current = -1;
    return false;
  }

  /** Whether the current server will do. */
  async #head(): Promise<boolean> {
    this.close();
    try {
      const { fields } = await this.#attempt({ method: 'HEAD', lines: [] });
      this.#sizeBytes = Number(fields['content-length'] ?? 0);
      return fields['accept-ranges'] === 'bytes' && this.#sizeBytes > 0;
    } catch (error) {
      this.#note(error);
      return false;
    }
  }

  #note(error: unknown): Attempt {
    if (!(error instanceof Attempt)) throw error;
    this.failures.push(`${this.url}: ${error.reason}: ${error.message}`);
    return error;
  }

  /** Rejects with an {@link Attempt}. */
  async #attempt(request: Request): Promise<RawResponse> {
    const place = new URL(this.url ?? '');
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<never>((_, reject) => {
      const late = (): void => reject(new Attempt('timed-out', `not within ${this.#requestTimeoutMs} ms`));
      timer = setTimeout(late, this.#requestTimeoutMs);
    });
    try {
      return await Promise.race([this.#exchange(place, request), limit]);
    } catch (error) {
      this.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #exchange(place: URL, request: Request): Promise<RawResponse> {
    const client = await this.#connected(place);
    const { method, lines, body, expectedBytes = 0 } = request;
    client.send(`${[`${method} / HTTP/1.1`, `Host: ${place.host}`, 'Accept: */*', ...lines].join('\r\n')}\r\n\r\n`);
    const response = await answered(
      body === undefined ? client.response({ toHead: method === 'HEAD' }) : this.#upload(client, body),
    );
    const { status, fields } = response;
    const isKept = response.version === 'HTTP/1.1' && fields['connection']?.toLowerCase() !== 'close';
    if (!isKept) this.close();
    if (status >= 400) throw new Attempt('status', String(status));
    assert.equal(response.body.length >= expectedBytes, true, 'an answer has all its bytes');
    return response;
  }

  async #upload(client: RawHttpClient, body: Buffer): Promise<RawResponse> {
    const early = client.response();
    const silence = delay(this.#continueWaitMs, undefined, { ref: false });
    const first = await Promise.race([early, silence]);
    if (first !== undefined && first.status !== 100) return first;
    if (first === undefined) this.puts.unanswered += 1;
    else this.puts.continued += 1;
    for (let at = 0; at < body.length; at += chunkBytes) {
      const chunk = body.subarray(at, at + chunkBytes);
      client.send(`${chunk.length.toString(16)}\r\n`, chunk, '\r\n');
    }
    client.send('0\r\n\r\n');
    let final = first === undefined ? await early : await client.response();
    while (final.status === 100) final = await client.response();
    return final;
  }

  /** The connection that is kept, unless the server has closed it. */
  async #connected(place: URL): Promise<RawHttpClient> {
    if (this.#client !== undefined && !this.#client.isOver) return this.#client;
    this.close();
    const keep = { after: () => undefined };
    try {
      this.#client = await RawHttpClient.connect(keep, place.host);
    } catch (error) {
      throw new Attempt('refused', error instanceof Error ? error.message : 'no connection');
    }
    this.connections += 1;
    return this.#client;
  }
}

/** A connection that ends before its answer is one that was reset. */
async function answered(response: Promise<RawResponse>): Promise<RawResponse> {
  try {
    return await response;
  } catch (error) {
    throw new Attempt('reset', error instanceof Error ? error.message.slice(0, 200) : 'unknown');
  }
}
