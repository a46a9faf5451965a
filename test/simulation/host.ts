/**
 * One address at which server processes come and go: each is the real disk-server core on a clock of its own, behind what the HTTP
 * binding does with a message.
 */
import type { Timer } from '../../src/base/clock.js';
import { asFailure, Failure } from '../../src/base/failure.js';
import { DiskServer, type CoreRequest } from '../../src/disk-server/disk-server.js';
import { encodeFailure } from '../../src/http-disk/failure-codec.js';
import { decodeRequest } from '../../src/http-disk/request-codec.js';
import { encodeAnswer, encodeDescription, type EncodedResponse } from '../../src/http-disk/response-codec.js';
import { receivedLines } from '../support/received-fields.js';
import type { ServerLimits } from './plan.js';
import { Process } from './process.js';
import { SimulatedDisk, type Storage } from './storage.js';
import type { World } from './world.js';

/** A request as it travels. */
export interface Message {
  readonly method: string;
  readonly headers: string;
  readonly body: Buffer | undefined;
}

export interface Response {
  readonly encoded: EncodedResponse;
  readonly data: Buffer | undefined;
}

/** Which way of a connection is cut. */
export type Cut = 'both ways' | 'requests' | 'answers';

export interface HostOptions {
  readonly address: string;
  readonly storage: Storage;
  readonly clockRate: number;
  readonly limits: ServerLimits;
}

export class Host {
  readonly address: string;
  readonly storage: Storage;
  readonly #world: World;
  readonly #options: HostOptions;
  #life: Life | undefined;
  #lives = 0;
  /** Gateways (by name) that cannot reach this host at the moment, or are not reached by it. */
  readonly cuts = new Map<string, Cut>();
  /** Break the connections of one gateway each. */
  readonly resets = new Set<() => void>();

  constructor(world: World, options: HostOptions) {
    this.#world = world;
    this.#options = options;
    this.address = options.address;
    this.storage = options.storage;
  }

  get life(): Life | undefined {
    return this.#life;
  }

  start(): void {
    if (this.#life !== undefined) return;
    this.#lives += 1;
    this.#life = new Life(this.#world, this.#options, this.#lives, () => this.#endedByKernel());
    this.#world.note(() => `${this.address} starts`);
  }

  /** kill -9 of the process; the host and its page cache live on. */
  kill(): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#world.note(() => `${this.address} killed`);
    this.#world.count(life.busy > 0 ? 'server killed, with requests in progress' : 'server killed, idle');
    this.#life = undefined;
    life.die();
  }

  /** The kernel's timer struck (rule S8). Somebody starts the server again. */
  #endedByKernel(): void {
    this.#world.note(() => `${this.address} is ended by the kernel`);
    this.#world.count('server ended by the timer of the kernel');
    this.kill();
    this.#world.after(this.#world.random.between(100, 2000), () => this.start());
  }

  /** The whole host loses power. */
  crash(): void {
    this.#world.note(() => `${this.address} loses power`);
    const owned =
      this.storage.kind === 'own' || this.storage.owner === undefined || this.storage.owner === this.#life?.disk;
    this.kill();
    if (owned) this.storage.crash();
  }

  /** Something on the way breaks all connections; what is on its way may still arrive. */
  reset(): void {
    this.#world.note(() => `${this.address} connections reset`);
    for (const reset of this.resets) reset();
  }

  /** SIGTERM: the listener closes last (rule S6). Then `stopped` is called. */
  stop(stopped: () => void): void {
    const life = this.#life;
    if (life === undefined || life.process.state !== 'running') return;
    this.#world.note(() => `${this.address} stops`);
    this.#world.count(life.busy > 0 ? 'server stopped, with requests in progress' : 'server stopped, idle');
    void life.server.stop().then(() => {
      if (this.#life !== life) return;
      this.#world.note(() => `${this.address} stopped`);
      this.#life = undefined;
      life.die();
      stopped();
    });
  }
}

/** One server process. */
export class Life {
  readonly process: Process;
  readonly server: DiskServer;
  disk: SimulatedDisk | undefined;
  /** Requests that it has taken and not answered. */
  busy = 0;
  /** Sees each stamped write that arrives during a pause, with its deadline. */
  onWriteInPause: (deadlineMs: number) => void = () => {};
  readonly #options: HostOptions;
  readonly #world: World;
  readonly #endedByKernel: () => void;
  #killTimer: Timer | undefined;
  /** Run when the process dies: its connections break. */
  readonly broken = new Set<() => void>();

  constructor(world: World, options: HostOptions, number: number, endedByKernel: () => void) {
    const { address, clockRate, limits } = options;
    this.#world = world;
    this.#options = options;
    this.#endedByKernel = endedByKernel;
    this.process = new Process(world, clockRate, world.random.whole(1, 1e6));
    let opened = 0;
    this.server = new DiskServer({
      clock: this.process,
      openDisk: () => this.#open(),
      killTimer: { set: (atMs) => this.#killAt(atMs) },
      newInstance: () => {
        opened += 1;
        return `${address.replaceAll(/[.:]/g, '-')}-${number}-${opened}`;
      },
      limits,
    });
    this.server.events.subscribe((event) => {
      if (this.process.state === 'dead') return;
      world.note(() => `${address} disk ${event.is}${'reason' in event ? `: ${event.reason}` : ''}`);
      world.count(
        `disk ${event.is}${'reason' in event && event.reason === 'suspended' ? ', because it is suspended' : ''}`,
      );
    });
    void this.server.start();
  }

  /** The kernel's timer: it strikes a paused process, too. */
  #killAt(atMs: number | undefined): void {
    this.#killTimer?.cancel();
    if (atMs === undefined) return;
    this.#killTimer = this.#world.after(this.process.untilMs(atMs), () => {
      if (this.process.state !== 'dead') this.#endedByKernel();
    });
  }

  #open(): Promise<SimulatedDisk> {
    const { storage } = this.#options;
    const disk = new SimulatedDisk(storage, this.process);
    return new Promise((resolve, reject) => {
      this.process.after(this.#world.random.between(0.1, 10), () => {
        if (storage.kind === 'fenced' && storage.owner !== undefined)
          return reject(new Failure('unavailable', 'another host is Primary'));
        if (storage.kind === 'fenced') storage.owner = disk;
        this.disk = disk;
        resolve(disk);
      });
    });
  }

  die(): void {
    this.process.kill();
    const { storage } = this.#options;
    if (this.disk !== undefined) {
      storage.endWrites(this.disk);
      if (storage.owner === this.disk) storage.owner = undefined;
    }
    for (const connectionBreaks of this.broken) connectionBreaks();
    this.broken.clear();
  }

  /** `message` has come over the network; `answer` runs when the process has answered it, which a dead one never does. */
  receive(message: Message, answer: (response: Response) => void): void {
    if (this.process.state === 'paused') this.#lookAtDeadline(message);
    this.process.do(() => {
      this.busy += 1;
      void this.#handle(message).then((response) => {
        this.process.do(() => {
          this.busy -= 1;
          answer(response);
        });
      });
    });
  }

  #lookAtDeadline({ headers }: Message): void {
    const deadline = /^Disk-Stamp: \S+ \S+ (\S+) (\d+)/m.exec(headers);
    if (deadline !== null && deadline[1] === this.server.disk?.instance) this.onWriteInPause(Number(deadline[2]));
  }

  /** What the HTTP binding does: decodes, executes, encodes. */
  async #handle(message: Message): Promise<Response> {
    try {
      if (message.method === 'HEAD') {
        const description = { ...(await this.server.probe()), endpoint: this.#options.address };
        return { encoded: encodeDescription(description), data: undefined };
      }
      return await this.#execute(message);
    } catch (error) {
      const isProbe = message.method === 'HEAD';
      const endpoint = isProbe && this.server.disk === undefined ? this.#options.address : undefined;
      return { encoded: encodeFailure(asFailure(error), { endpoint }), data: undefined };
    }
  }

  async #execute(message: Message): Promise<Response> {
    const facts = this.server.disk;
    if (facts === undefined) throw this.server.refusal();
    const request = decodeRequest(message.method, receivedLines(message.headers), facts.sizeBytes) as CoreRequest;
    const into = request.op === 'read' ? Buffer.alloc(request.length) : undefined;
    const outcome = await this.server.execute(request, message.body, into);
    if (outcome.at === 'done') return { encoded: encodeAnswer(request, outcome.answer, facts), data: into };
    const { failure, answer, stillRunning } = outcome;
    this.#world.count(`server answers ${failure.code}${stillRunning === undefined ? '' : ', the disk is still at it'}`);
    return { encoded: encodeFailure(failure, { answer, sizeBytes: facts.sizeBytes }), data: undefined };
  }
}
