/**
 * Serves one volume to any number of NBD clients, over a unix socket and TCP.
 * Promises: a bounded number of clients, who share a bounded number of payload bytes; a client that holds up others is disconnected;
 * closing ends everything at once and leaves no socket file behind that is ours.
 */
import { constants } from 'node:fs';
import { lstat, open, rename, unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { bulkBuffer } from '../base/bulk-buffer.js';
import type { BufferPool } from '../base/buffer-pool.js';
import { Channel } from '../base/channel.js';
import type { Clock, Timer } from '../base/clock.js';
import { Failure } from '../base/failure.js';
import type { Volume } from '../base/volume.js';
import { ByteBudget } from '../base/byte-budget.js';
import { receiveInto } from '../sockets/receive-buffer.js';
import { Connection, type ConnectionContext } from './connection.js';

export interface NbdServerOptions {
  readonly clock: Clock;
  readonly volume: Volume;
  /** Shared with the volume. */
  readonly buffers: BufferPool;
  readonly exportName: string;
  readonly exportDescription: string;
}

export type NbdEvent =
  | { readonly type: 'connected'; readonly client: string }
  | { readonly type: 'disconnected'; readonly client: string; readonly fault: string | undefined }
  | { readonly type: 'refused'; readonly client: string; readonly reason: string };

/** What one receive call can take. */
const receiveBytes = 128 * 1024;
/** Payload bytes in flight, of all clients together. */
const payloadBytesInFlightMax = 112 * 1024 * 1024;
/** How much of that is kept for small requests: large ones that stall cannot shut them out. */
const smallPayloadBytes = 16 * 1024 * 1024;
/** @public */
export const clientsMax = 256;
/** The longest path that a unix socket's address has room for. */
export const unixPathBytesMax = 107;
/** After this much silence the kernel asks whether a TCP client is still there. */
const keepAliveDelayMs = 60_000;

export class NbdServer {
  readonly events = new Channel<NbdEvent>();
  readonly #context: ConnectionContext;
  readonly #connections = new Set<Connection>();
  readonly #servers: Server[] = [];
  #unixSocket: { readonly path: string; readonly inode: bigint } | undefined;
  readonly #clock: Clock;
  #second: Timer;
  #isClosed = false;
  /** The listener that is being made. */
  #opening: Promise<void> = Promise.resolve();

  constructor({ clock, ...served }: NbdServerOptions) {
    this.#context = { ...served, budget: new ByteBudget(payloadBytesInFlightMax, smallPayloadBytes) };
    this.#clock = clock;
    this.#second = this.#nextSecond();
  }

  /** Clients at the moment. */
  get clients(): number {
    return this.#connections.size;
  }

  /**
   * A socket file that nobody answers on is replaced. Rejects with a `Failure` that says what is in the way.
   * `path`: at most {@link unixPathBytesMax} bytes, or no client could name it.
   */
  listenUnix(path: string): Promise<void> {
    const opening = this.#listenUnix(path);
    this.#opening = opening.catch(() => {});
    return opening;
  }

  async #listenUnix(path: string): Promise<void> {
    await refuseForeign(path);
    // libuv unlinks the path that it bound when it closes, whoever's file that is by then: so it binds another name.
    const name = `.nbd-${process.pid}`;
    const temporary = join(dirname(path), name);
    await unlink(temporary).catch(() => {}); // left by a process that had our number
    try {
      const folder = await open(dirname(path), constants.O_DIRECTORY);
      try {
        // By the folder's descriptor: a path that is short enough may not be with that name at its end.
        await this.#listen({ path: `/proc/self/fd/${folder.fd}/${name}` }, 'unix socket', path);
      } finally {
        await folder.close();
      }
      const { ino } = await lstat(temporary, { bigint: true });
      await rename(temporary, path);
      this.#unixSocket = { path, inode: ino };
    } catch (error) {
      throw cannotListen(path, error);
    }
  }

  /** `host` undefined: all addresses. Port 0: any; resolves with the port. Rejects with a `Failure`. */
  async listenTcp(host: string | undefined, port: number): Promise<number> {
    const server = await this.#listen(host === undefined ? { port } : { host, port }, 'TCP', `${host ?? '*'}:${port}`);
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : port;
  }

  /** Ends all connections at once, and removes the socket file if it is still ours. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#second.cancel();
    for (const connection of this.#connections) connection.destroy();
    // It may be about to make a file.
    await this.#opening;
    // While the socket is open its inode's number belongs to nobody else's file.
    if (this.#unixSocket !== undefined) await removeOwn(this.#unixSocket);
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => void server.close(() => resolve())));
    await Promise.all(closed);
  }

  #listen(where: ListenOptions, name: string, place: string): Promise<Server> {
    const options = {
      pauseOnConnect: true,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveDelayMs,
    };
    const server = createServer(options, (socket) => this.#accept(socket, name));
    return new Promise((resolve, reject) => {
      server.once('error', (error) => reject(cannotListen(place, error)));
      server.listen(where, () => {
        server.on('error', () => {}); // an accept that failed (no descriptors left): the next one is tried
        this.#servers.push(server);
        resolve(server);
      });
    });
  }

  #accept(accepted: Socket, listener: string): void {
    if (this.#isClosed) {
      accepted.destroy();
      return;
    }
    const { remoteAddress, remotePort } = accepted;
    const client = remoteAddress === undefined ? listener : `${remoteAddress}:${remotePort}`;
    if (this.#connections.size >= clientsMax) {
      this.events.publish({ type: 'refused', client, reason: `${clientsMax} clients are connected` });
      accepted.destroy();
      return;
    }
    // Of its own: what a paused connection has not consumed stays in it.
    const buffer = bulkBuffer(receiveBytes);
    const socket = receiveInto(accepted, buffer, (chunk) => connection.receive(chunk));
    const connection = new Connection(socket, this.#context, (fault) => {
      this.#connections.delete(connection);
      this.events.publish({ type: 'disconnected', client, fault });
    });
    this.#connections.add(connection);
    this.events.publish({ type: 'connected', client });
  }

  #nextSecond(): Timer {
    return this.#clock.after(1000, () => {
      for (const connection of this.#connections) connection.secondPassed();
      this.#second = this.#nextSecond();
    });
  }
}

function cannotListen(place: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  return new Failure('unavailable', `Cannot listen on \`${place}\`: \`${code ?? message}\`.`);
}

/** Rejects if there is anything at `path` but a socket that nobody listens on. */
async function refuseForeign(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new Failure('unavailable', `\`${path}\` exists and is not a socket.`);
  if (await isAnswered(path)) throw new Failure('unavailable', `Another program serves \`${path}\`.`);
}

/** Only a refusal proves that nobody listens: a full queue or missing permission does not. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code !== 'ECONNREFUSED' && code !== 'ENOENT'));
  });
}

/** A successor may have put its own socket there. */
async function removeOwn({ path, inode }: { path: string; inode: bigint }): Promise<void> {
  const found = await lstat(path, { bigint: true }).catch(() => undefined);
  if (found?.ino === inode) await unlink(path).catch(() => {});
}
