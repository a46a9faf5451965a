/**
 * The life of nbd-server: from the start over the served socket to the exit.
 *
 *     starting ── lock, size known, sockets ──▶ serving ── SIGTERM, SIGINT ──▶ stopping ──▶ exit 0 (1: something is not durable)
 *         └── lock held by another, socket taken ──▶ exit 1
 *
 * Promise: a stop needs no server's consent; it takes one request time-out at the most (the last commit of write-back mode).
 */
import { randomBytes } from 'node:crypto';
import { BufferPool } from '../base/buffer-pool.js';
import { type Clock, sleep } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import type { GatewayEvent } from '../gateway/events.js';
import { Gateway } from '../gateway/gateway.js';
import { noLedger } from '../gateway/ledger.js';
import { Session } from '../gateway/session.js';
import { HttpBackend } from '../http-client/http-backend.js';
import { type NbdEvent, NbdServer } from '../nbd-server/nbd-server.js';
import type { Log } from '../observability/log.js';
import type { NbdServerOptions } from './nbd-server-options.js';
import { RunFiles } from './run-files.js';

export interface NbdProgramOptions {
  readonly options: NbdServerOptions;
  readonly log: Log;
  readonly clock: Clock;
  /** Ends the process. */
  readonly exit: (code: 0 | 1) => void;
}

/** Unused buffers that are kept for reuse. */
const idleBufferBytesMax = 48 * 1024 * 1024;
/** How long the sockets may take to close. */
const closeWaitMs = 500;

export class NbdServerProgram {
  readonly #options: NbdServerOptions;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #exit: (code: 0 | 1) => void;
  readonly #files: RunFiles;
  readonly #buffers = new BufferPool(idleBufferBytesMax);
  #gateway: Gateway | undefined;
  #nbd: NbdServer | undefined;
  #stopping = false;

  constructor({ options, log, clock, exit }: NbdProgramOptions) {
    this.#options = options;
    this.#log = log;
    this.#clock = clock;
    this.#exit = exit;
    this.#files = new RunFiles(options.name);
  }

  /** Resolves when everything is served; never rejects for what the outside world does. */
  async start(): Promise<void> {
    const options = this.#options;
    for (const warning of options.warnings) this.#log.line(`Warning: ${warning}.`);
    try {
      await this.#claim();
      if (this.#stopping) return;
      const gateway = this.#connect();
      const sizeBytes = await gateway.whenSizeKnown();
      if (this.#stopping) return;
      if (options.deviceSizeBytes !== undefined) this.#log.line(`Device size: ${sizeBytes}.`);
      await this.#serve(gateway);
    } catch (error) {
      this.#fail(asFailure(error).message);
    }
  }

  /** Idempotent. */
  async stop(signal: 'SIGTERM' | 'SIGINT'): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#log.line(`${signal} received. Exiting server...`);
    const undurableBytes = (await this.#gateway?.close())?.undurableBytes ?? 0;
    if (undurableBytes > 0) this.#log.line(`${undurableBytes} bytes of acknowledged writes are not durable.`);
    await Promise.race([this.#nbd?.close(), sleep(this.#clock, closeWaitMs)]);
    this.#files.remove();
    this.#exit(undurableBytes > 0 ? 1 : 0);
  }

  /** The name is ours, or an error. Without a device to protect, files that cannot be written are only worth a warning. */
  async #claim(): Promise<void> {
    const { attach, name } = this.#options;
    try {
      if (!(await this.#files.lock(this.#clock))) {
        throw new Failure(
          'unavailable',
          `Another nbd-server with the name \`${name}\` is running (it holds \`${this.#files.lockPath}\`).`,
        );
      }
      this.#files.writePid();
    } catch (error) {
      if (error instanceof Failure) throw error;
      const { code, path } = error as NodeJS.ErrnoException;
      const message = `\`${path ?? this.#files.pidPath}\` cannot be written: \`${code ?? String(error)}\`.`;
      if (attach) throw new Failure('unavailable', message);
      this.#log.line(`Warning: ${message}`);
    }
  }

  #connect(): Gateway {
    const { servers, ca, requestTimeoutMs, ioTimeoutMs, deviceSizeBytes, readOnly, writeBack, refusalProvesDeath } =
      this.#options;
    const clock = this.#clock;
    const connection = { clock, connectTimeoutMs: requestTimeoutMs, ca, environment: process.env };
    const backends = servers.map((target) => new HttpBackend(target, connection));
    const gateway = new Gateway(backends, {
      clock,
      session: new Session(randomBytes(12).toString('hex'), 1),
      ledger: noLedger,
      buffers: this.#buffers,
      readOnly,
      sizeBytes: deviceSizeBytes,
      requestTimeoutMs,
      ioTimeoutMs,
      writeBack,
      refusalProvesDeath,
    });
    gateway.events.subscribe((event) => this.#tell(event));
    this.#gateway = gateway;
    gateway.start();
    return gateway;
  }

  async #serve(gateway: Gateway): Promise<void> {
    const { name, socketPath, listen, verbose } = this.#options;
    const nbd = new NbdServer({
      clock: this.#clock,
      volume: gateway,
      buffers: this.#buffers,
      exportName: name,
      exportDescription: 'A disk over HTTP',
    });
    this.#nbd = nbd;
    nbd.events.subscribe((event) => this.#tellClient(event, verbose));
    await nbd.listenUnix(socketPath);
    this.#log.line(`NBD server ready on \`${socketPath}\`.`);
    if (listen === undefined) return;
    const port = await nbd.listenTcp(listen.host, listen.port);
    this.#log.line(`NBD server ready on port ${port}.`);
  }

  #fail(message: string): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#log.line(message);
    this.#files.remove();
    void this.#nbd?.close();
    this.#exit(1);
  }

  #tell(event: GatewayEvent): void {
    const line = lineOf(event);
    this.#log.line(line);
  }

  #tellClient(event: NbdEvent, verbose: boolean): void {
    if (event.type === 'refused') this.#log.line(`Client ${event.client} refused: ${event.reason}.`);
    else if (event.type === 'disconnected' && event.fault !== undefined) {
      this.#log.line(`Client ${event.client} disconnected: ${event.fault}.`);
    } else if (verbose) this.#log.line(`Client ${event.client} ${event.type}.`);
  }
}

/** The lines that other software matches (docs/nbd-server.md), and ours. */
function lineOf(event: GatewayEvent): string {
  switch (event.type) {
    case 'trying':
      return `Trying to use server: \`${event.server}\`...`;
    case 'probe-failed':
      return `Cannot use server \`${event.server}\`: \`${event.reason}\`.`;
    case 'refused':
      return `Server \`${event.server}\` refused: ${event.reason}.`;
    case 'selected':
      return `Selected server: \`${event.server}\`.`;
    case 'size':
      return `Device size: ${event.sizeBytes}.`;
    case 'lost':
      return `Got exception: \`${event.server}: ${event.reason}\`.`;
    case 'replaying':
      return `Writing ${event.writes} writes that are not durable (${event.bytes} bytes) to \`${event.server}\` again...`;
    case 'replayed':
      return `All writes that were not durable are on \`${event.server}\`.`;
    case 'commit-failed':
      return `A commit failed: \`${event.reason}\`. ${event.retainedBytes} bytes are kept until one succeeds.`;
    case 'gave-up':
      return `A ${event.operation} failed: no server did it in time.`;
  }
}
