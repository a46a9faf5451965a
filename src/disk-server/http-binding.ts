/**
 * HTTP over TCP in front of the core: listens, and serves any number of clients.
 *
 * Promises
 * - Memory is bounded by {@link FrontLimits}, whatever clients do.
 * - A slow, idle or malicious client delays nobody for long: it is disconnected when others wait for what it holds, and the
 *   client that was silent for longest gives way when there are too many.
 * - Any path is the disk.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { bulkBuffer } from '../base/bulk-buffer.js';
import { assert } from '../base/assert.js';
import { BufferPool } from '../base/buffer-pool.js';
import { Channel } from '../base/channel.js';
import type { Clock, Timer } from '../base/clock.js';
import { bodyBytesMax } from '../http-disk/request-codec.js';
import type { Access } from './access-log.js';
import { ByteBudget } from '../base/byte-budget.js';
import { receiveInto } from '../sockets/receive-buffer.js';
import { Connection } from './connection.js';
import type { DiskServer } from './disk-server.js';
import { defaultFrontLimits, type Front, type FrontLimits, type Pumped } from './front.js';
import { endpointOf } from './net-address.js';

export interface HttpBindingOptions {
  readonly core: DiskServer;
  readonly clock: Clock;
  /** Called when bytes have come, before anything is done with them: from then on the core's clock tells a time after that. */
  readonly arrived?: () => void;
  readonly limits?: Partial<FrontLimits>;
}

export interface ListenOptions {
  /** An address or a name; default: all addresses, IPv4 and IPv6. */
  readonly host?: string | undefined;
  /** 0: any free one. */
  readonly port: number;
}

/** Kept for the next requests: enough for a stream of large ones. */
const idlePoolBytesMax = 12 * 1024 * 1024;
const keepAliveProbeMs = 30_000;
/** What one receive call can take. */
const receiveBytes = 256 * 1024;

export class HttpBinding {
  /** One for each answer. */
  readonly accesses = new Channel<Access>();
  readonly #clock: Clock;
  readonly #limits: FrontLimits;
  readonly #front: Front;
  readonly #arrived: () => void;
  readonly #server: Server;
  /** Those that are idle come in the order in which they were last found busy. */
  readonly #connections = new Set<Connection>();
  readonly #due = new Set<Pumped>();
  /** Shared: a connection keeps nothing of it. */
  readonly #received = bulkBuffer(receiveBytes);
  #dateLine = '';
  #sweepTimer: Timer | undefined;

  constructor({ core, clock, arrived = () => {}, limits }: HttpBindingOptions) {
    this.#clock = clock;
    this.#arrived = arrived;
    this.#limits = { ...defaultFrontLimits, ...limits };
    const { uploadBytesMax, smallUploadBytes } = this.#limits;
    assert(uploadBytesMax - smallUploadBytes >= bodyBytesMax, 'one body of the largest size must fit');
    assert(this.#limits.responseBytesMax >= 2 * this.#limits.pieceBytesMax, 'one long read must fit');
    this.#front = {
      ...{ core, clock, limits: this.#limits, accesses: this.accesses },
      pool: new BufferPool(idlePoolBytesMax),
      uploads: new ByteBudget(uploadBytesMax, smallUploadBytes),
      responses: new ByteBudget(this.#limits.responseBytesMax),
      commonLines: () => this.#dateLine,
      schedule: (connection) => this.#schedule(connection),
    };
    this.#server = createServer(
      {
        ...{ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveProbeMs },
        pauseOnConnect: true,
      },
      (socket) => this.#accept(socket),
    );
  }

  /**
   * Resolves when clients can connect. Rejects as `net.Server` fails to listen (EADDRINUSE …); it can be called again then.
   */
  async listen({ host, port }: ListenOptions): Promise<void> {
    await this.#listen(host, port);
    // An accept that fails (no descriptors left) concerns the client that came, and is tried again for the next one.
    this.#server.on('error', () => {});
    this.#sweep();
  }

  /** `ADDRESS:PORT` that is listened on. */
  get endpoint(): string {
    const address = this.#server.address();
    assert(address !== null && typeof address === 'object', 'only while it listens');
    return endpointOf(address.address, address.port);
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Memory that is held for clients: bodies of writes, data of reads. */
  get heldBytes(): number {
    return this.#front.uploads.takenBytes + this.#front.responses.takenBytes;
  }

  /** Ends every connection at once, and stops listening. Idempotent. */
  close(): Promise<void> {
    this.#sweepTimer?.cancel();
    this.#sweepTimer = undefined;
    const closed = new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    for (const connection of this.#connections) connection.destroy();
    return closed;
  }

  #listen(host: string | undefined, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const server = this.#server;
      const failed = (error: Error) => {
        server.off('listening', listening);
        reject(error);
      };
      const listening = () => {
        server.off('error', failed);
        resolve();
      };
      server.once('error', failed).once('listening', listening);
      if (host === undefined) server.listen(port);
      else server.listen(port, host);
    });
  }

  #accept(accepted: Socket): void {
    if (this.#connections.size >= this.#limits.connectionsMax && !this.#evictIdle()) {
      accepted.destroy();
      return;
    }
    const socket = receiveInto(accepted, this.#received, (chunk) => {
      this.#arrived();
      connection.receive(chunk);
    });
    const connection: Connection = new Connection(socket, this.#front, () => this.#connections.delete(connection));
    this.#connections.add(connection);
  }

  #evictIdle(): boolean {
    for (const connection of this.#connections) {
      if (!connection.isIdle) continue;
      this.#connections.delete(connection);
      connection.destroy();
      return true;
    }
    return false;
  }

  #schedule(connection: Pumped): void {
    if (this.#due.size === 0) setImmediate(() => this.#pumpDue());
    this.#due.add(connection);
  }

  #pumpDue(): void {
    const due = [...this.#due];
    this.#due.clear();
    for (const connection of due) connection.pump();
  }

  #sweep(): void {
    this.#dateLine = `Date: ${new Date().toUTCString()}\r\n`;
    const nowMs = this.#clock.nowMs();
    for (const connection of [...this.#connections]) {
      connection.sweep(nowMs);
      if (connection.isIdle) continue;
      this.#connections.delete(connection);
      this.#connections.add(connection);
    }
    this.#sweepTimer = this.#clock.after(this.#limits.sweepMs, () => this.#sweep());
  }
}
