/**
 * The life of http-disk-server: from the start over `Server ready!` to the exit.
 *
 *     starting ── first attempt to open over, listening ──▶ ready ── SIGTERM, SIGINT ──▶ stopping ──▶ exit 0
 *         │ ── this path will never be a disk, port taken ──▶ exit 1                        ▲
 *         └── SIGTERM, SIGINT ──────────────────────────────────────────────────────────────┘
 *
 * Promise: `Server ready!` is said once, within 10 s, however the disk is; the port of a predecessor that is about to
 * end is waited for; a stop needs no client's consent and no thread's, and says 0.
 */
import type { Channel } from '../base/channel.js';
import { type Clock, sleep } from '../base/clock.js';
import { asFailure, type Failure } from '../base/failure.js';
import type { Disk } from '../disk/disk.js';
import { isFatalAtStart } from '../disk/open-disk.js';
import type { DiskEvent, DiskOpener, Stopped } from '../disk-server/disk-keeper.js';
import { errnoOf } from '../linux/errno.js';
import type { Log } from '../observability/log.js';
import type { ListenAddress } from './options.js';

/** What the program needs of the disk server's core. */
export interface Core {
  readonly events: Channel<DiskEvent>;
  start(): Promise<void>;
  stop(): Promise<Stopped>;
}

/** What the program needs of the HTTP side. */
export interface FrontEnd {
  /** Rejects as `net.Server` fails to listen. Can be called again then. */
  listen(address: ListenAddress): Promise<void>;
  /** `ADDRESS:PORT` that is listened on. */
  readonly endpoint: string;
  /** Closes every connection and the port. */
  close(): Promise<void>;
}

export interface ProgramOptions {
  /** As the user typed it. */
  readonly diskPath: string;
  readonly address: ListenAddress;
  readonly log: Log;
  readonly clock: Clock;
  /** Ends the process. */
  readonly exit: (code: 0 | 1) => void;
}

const closeWaitMs = 500;
const portWaitMs = 5000;
const portRetryMs = 50;

export class DiskServerProgram {
  readonly #options: ProgramOptions;
  #state: 'starting' | 'ready' | 'stopping' = 'starting';
  #firstAttemptOver = false;
  #parts: { readonly core: Core; readonly frontEnd: FrontEnd } | undefined;

  constructor(options: ProgramOptions) {
    this.#options = options;
  }

  /** The opener for the core: a first attempt that shows that this path will never do ends the program. */
  opener(open: () => Promise<Disk>): DiskOpener {
    return async () => {
      try {
        const disk = await open();
        this.#firstAttemptOver = true;
        return disk;
      } catch (error) {
        const failure = asFailure(error);
        if (!this.#firstAttemptOver && isFatalAtStart(failure)) this.#fail(this.#cannotOpen(failure.message));
        this.#firstAttemptOver = true;
        throw failure;
      }
    };
  }

  /** Resolves when the program is ready, or has found that it will not be. */
  async start(core: Core, frontEnd: FrontEnd): Promise<void> {
    this.#parts = { core, frontEnd };
    core.events.subscribe((event) => this.#tell(event));
    const [listening] = await Promise.all([this.#listen(frontEnd), core.start()]);
    if (!listening || this.#state !== 'starting') return;
    this.#state = 'ready';
    this.#options.log.line('Server ready!');
  }

  /** Idempotent. */
  async stop(signal: 'SIGTERM' | 'SIGINT'): Promise<void> {
    if (this.#state === 'stopping') return;
    this.#state = 'stopping';
    const { log, clock, exit } = this.#options;
    log.line(`${signal} received. Exiting server...`);
    const { unfinished, closed } = (await this.#parts?.core.stop()) ?? { unfinished: 0, closed: true };
    // S6: a refused connection proves to gateways that nothing can be written any more. The kernel closes the port when the
    // last thread has come back from the disk.
    if (unfinished > 0) log.line(`The disk has not come back from ${unfinished} operations.`);
    else if (!closed) log.line('The disk has not come back from being closed.');
    else await Promise.race([this.#parts?.frontEnd.close(), sleep(clock, closeWaitMs)]);
    exit(0);
  }

  /** Waits a while for a port that is in use. False: in vain, and said so. */
  async #listen(frontEnd: FrontEnd): Promise<boolean> {
    const { clock, address, log } = this.#options;
    const endMs = clock.nowMs() + portWaitMs;
    while (this.#state === 'starting') {
      const errno = await tryListen(frontEnd, address);
      if (errno === 'none') {
        if (this.#state === 'starting') log.line(`Listening on ${frontEnd.endpoint}.`);
        return true;
      }
      if (errno !== 'EADDRINUSE' || clock.nowMs() >= endMs) {
        this.#fail(`Cannot listen on \`${where(address)}\`: \`${listenErrors[errno] ?? errno}\`.`);
        return false;
      }
      await sleep(clock, portRetryMs);
    }
    return false;
  }

  #tell(event: DiskEvent): void {
    const { log } = this.#options;
    switch (event.is) {
      case 'opened':
        return log.line('Disk open!');
      case 'waiting':
        return log.line(this.#cannotOpen(event.reason));
      case 'lost':
        return log.line(`Disk lost: \`${event.reason}\`.`);
      case 'sync-failed':
        return log.line(`Disk lost: \`${event.reason}\`. What had not been synced before may not be on it.`);
    }
  }

  #cannotOpen(reason: Failure['message']): string {
    return `Cannot open device \`${this.#options.diskPath}\`: \`${reason}\`.`;
  }

  #fail(line: string): void {
    if (this.#state === 'stopping') return;
    this.#state = 'stopping';
    this.#options.log.line(line);
    void (this.#parts?.core.stop() ?? Promise.resolve()).then(() => this.#options.exit(1));
  }
}

const listenErrors: Readonly<Record<string, string>> = {
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'This host does not have this address',
  EACCES: 'Permission denied',
};

async function tryListen(frontEnd: FrontEnd, address: ListenAddress): Promise<string> {
  try {
    await frontEnd.listen(address);
    return 'none';
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    return errno;
  }
}

function where({ host, port }: ListenAddress): string {
  if (host === undefined) return `port ${port}`;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
