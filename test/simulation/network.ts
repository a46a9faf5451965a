/**
 * Simulated servers and the network to them: the real disk-server core behind an address, and a `Backend` whose requests travel as
 * encoded messages of the HTTP disk protocol. Messages are delayed, overtake each other, are held back for seconds, arrive after their
 * sender has given them up, and arrive at the successor of the process that they were meant for.
 */
import type { Timer } from '../../src/base/clock.js';
import { asFailure, Failure } from '../../src/base/failure.js';
import { DiskServer, type CoreRequest } from '../../src/disk-server/disk-server.js';
import type { Backend, Probe } from '../../src/gateway/backend.js';
import { encodeFailure } from '../../src/http-disk/failure-codec.js';
import type { DiskAnswer } from '../../src/http-disk/messages.js';
import { decodeRequest, encodeRequest } from '../../src/http-disk/request-codec.js';
import {
  decodeAnswer,
  decodeDescription,
  encodeAnswer,
  encodeDescription,
  type EncodedResponse,
} from '../../src/http-disk/response-codec.js';
import { receivedFields, receivedLines } from '../support/received-fields.js';
import { SimulatedDisk, type Storage } from './storage.js';
import { Process, type World } from './world.js';

interface Message {
  readonly method: string;
  readonly headers: string;
  readonly body: Buffer | undefined;
}

interface Response {
  readonly encoded: EncodedResponse;
  readonly data: Buffer | undefined;
}

/** One address at which server processes come and go. */
export class Host {
  readonly address: string;
  readonly storage: Storage;
  readonly #world: World;
  readonly #rate: number;
  #life: Life | undefined;
  #lives = 0;
  /** Gateways (by name) that cannot reach this host at the moment. */
  readonly cutOff = new Set<string>();
  /** Break the connections of one gateway each. */
  readonly resets = new Set<() => void>();

  constructor(world: World, address: string, storage: Storage, rate: number) {
    this.#world = world;
    this.address = address;
    this.storage = storage;
    this.#rate = rate;
  }

  get life(): Life | undefined {
    return this.#life;
  }

  start(): void {
    if (this.#life !== undefined) return;
    this.#lives += 1;
    this.#life = new Life(this.#world, this, this.#rate, this.#lives);
    this.#world.note(`${this.address} starts`);
  }

  /** kill -9 of the process; the host and its page cache live on. */
  kill(): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#world.note(`${this.address} killed`);
    this.#life = undefined;
    life.die();
  }

  /** The whole host loses power. */
  crash(): void {
    this.#world.note(`${this.address} loses power`);
    const owned =
      this.storage.kind === 'own' || this.storage.owner === undefined || this.storage.owner === this.#life?.disk;
    this.kill();
    if (owned) this.storage.crash();
  }

  /** Something on the way breaks all connections; what is on its way may still arrive. */
  reset(): void {
    this.#world.note(`${this.address} connections reset`);
    for (const reset of this.resets) reset();
  }

  /** SIGTERM: the listener closes last (rule S6). */
  stop(): void {
    const life = this.#life;
    if (life === undefined || life.process.state !== 'running') return;
    this.#world.note(`${this.address} stops`);
    void life.server.stop().then(() => {
      if (this.#life !== life) return;
      this.#world.note(`${this.address} stopped`);
      this.#life = undefined;
      life.die();
    });
  }
}

/** One server process. */
export class Life {
  readonly process: Process;
  readonly server: DiskServer;
  disk: SimulatedDisk | undefined;
  readonly #host: Host;
  readonly #world: World;
  readonly #rate: number;
  #killTimer: Timer | undefined;
  /** Run when the process dies: its connections break. */
  readonly broken = new Set<() => void>();

  constructor(world: World, host: Host, rate: number, number: number) {
    this.#world = world;
    this.#host = host;
    this.#rate = rate;
    this.process = new Process(world, rate, world.random.whole(1, 1e6));
    let opened = 0;
    this.server = new DiskServer({
      clock: this.process,
      openDisk: () => this.#open(),
      killTimer: { set: (atMs) => this.#killAt(atMs) },
      newInstance: () => {
        opened += 1;
        return `${host.address.replaceAll(/[.:]/g, '-')}-${number}-${opened}`;
      },
      limits: { slots: 2 },
    });
    this.server.events.subscribe((event) => {
      if (this.process.state !== 'dead')
        world.note(`${host.address} disk ${event.is}${'reason' in event ? `: ${event.reason}` : ''}`);
    });
    void this.server.start();
  }

  /** The kernel's timer: it strikes a paused process, too. Somebody starts the server again. */
  #killAt(atMs: number | undefined): void {
    this.#killTimer?.cancel();
    if (atMs === undefined) return;
    this.#killTimer = this.#world.after((atMs - this.process.nowMs()) / this.#rate, () => {
      if (this.process.state === 'dead') return;
      this.#world.note(`${this.#host.address} ends itself`);
      this.#host.kill();
      this.#world.after(this.#world.random.between(100, 2000), () => this.#host.start());
    });
  }

  #open(): Promise<SimulatedDisk> {
    const { storage } = this.#host;
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
    const { storage } = this.#host;
    if (this.disk !== undefined) {
      storage.endWrites(this.disk);
      if (storage.owner === this.disk) storage.owner = undefined;
    }
    for (const connectionBreaks of this.broken) connectionBreaks();
    this.broken.clear();
  }

  /** What the HTTP binding does: decodes, executes, encodes. */
  async handle(message: Message): Promise<Response> {
    try {
      if (message.method === 'HEAD') {
        const description = { ...(await this.server.probe()), endpoint: this.#host.address };
        return { encoded: encodeDescription(description), data: undefined };
      }
      return await this.#execute(message);
    } catch (error) {
      return {
        encoded: encodeFailure(asFailure(error)),
        data: undefined,
      };
    }
  }

  async #execute(message: Message): Promise<Response> {
    const facts = this.server.disk;
    if (facts === undefined) throw this.server.refusal();
    const request = decodeRequest(message.method, receivedLines(message.headers), facts.sizeBytes) as CoreRequest;
    const into = request.op === 'read' ? Buffer.alloc(request.length) : undefined;
    const outcome = await this.server.execute(request, message.body, into);
    if (outcome.at === 'done') return { encoded: encodeAnswer(request, outcome.answer, facts), data: into };
    return {
      encoded: encodeFailure(outcome.failure, { answer: outcome.answer, sizeBytes: facts.sizeBytes }),
      data: undefined,
    };
  }
}

interface Pending {
  readonly resolve: (response: Response) => void;
  readonly reject: (failure: Failure) => void;
}

/** One gateway's way to one host. */
export class SimulatedBackend implements Backend {
  readonly name: string;
  readonly #world: World;
  readonly #gateway: { readonly name: string; readonly process: Process };
  readonly #host: Host;
  readonly #hosts: readonly Host[];
  #pending = new Set<Pending>();

  /** `hosts`: all that there are, as any of them can be asked whether it refuses. */
  constructor(
    world: World,
    gateway: { readonly name: string; readonly process: Process },
    host: Host,
    hosts: readonly Host[],
  ) {
    this.#hosts = hosts;
    this.#world = world;
    this.#gateway = gateway;
    this.#host = host;
    this.name = `http://${host.address}`;
    host.resets.add(() => gateway.process.do(() => this.#break('connection reset')));
  }

  async probe(): Promise<Probe> {
    const sentAtMs = this.#gateway.process.nowMs();
    const { method, headers } = encodeRequest({ op: 'probe' });
    const response = await this.#exchange({ method, headers, body: undefined }, true);
    const description = decodeDescription(response.encoded.status, receivedFields(response.encoded.headers));
    return { description, sentAtMs, receivedAtMs: this.#gateway.process.nowMs(), endpoint: this.#host.address };
  }

  async send(request: CoreRequest, bytes: Buffer | null, into: Buffer | null): Promise<DiskAnswer> {
    const { method, headers } = encodeRequest(request);
    const body = bytes === null ? undefined : Buffer.from(bytes);
    const { encoded, data } = await this.#exchange({ method, headers, body }, false);
    const answer = decodeAnswer(request, encoded.status, receivedFields(encoded.headers), encoded.body);
    if (into !== null) {
      if (data?.length !== into.length) throw new Failure('malformed-response', 'data of another length');
      data.copy(into);
    }
    return answer;
  }

  refuses(endpoint: string): Promise<boolean> {
    const asked = this.#hosts.find((host) => host.address === endpoint);
    return new Promise((resolve) => {
      this.#world.after(this.#world.random.between(0.05, 2), () => {
        const reached = asked !== undefined && !asked.cutOff.has(this.#gateway.name);
        const refused = reached && asked.life === undefined;
        this.#gateway.process.after(reached ? 0.1 : 1000, () => resolve(refused));
      });
    });
  }

  abandon(): void {
    this.#break('given up');
  }

  #break(why: string): void {
    const given = this.#pending;
    this.#pending = new Set();
    for (const pending of given) pending.reject(new Failure('connection-lost', why));
  }

  #isCutOff(): boolean {
    return this.#host.cutOff.has(this.#gateway.name);
  }

  #exchange(message: Message, connect: boolean): Promise<Response> {
    const meantFor = this.#host.life;
    return new Promise((resolve, reject) => {
      const pending = { resolve, reject };
      this.#pending.add(pending);
      this.#world.after(this.#travelMs(), () => this.#arrive(message, connect, meantFor, pending));
    });
  }

  /** A message reaches the host, if it can; whether its sender still wants an answer makes no difference. */
  #arrive(message: Message, connect: boolean, meantFor: Life | undefined, pending: Pending): void {
    const { random } = this.#world;
    if (this.#isCutOff()) {
      // Sent again by TCP until it arrives, or never.
      if (random.chance(0.9))
        this.#world.after(random.between(200, 3000), () => this.#arrive(message, connect, meantFor, pending));
      return;
    }
    const { life } = this.#host;
    if (life === undefined) {
      this.#answerLater(pending, () => pending.reject(new Failure(connect ? 'connection-refused' : 'connection-lost')));
      return;
    }
    // Only something in between (a proxy) delivers to a process that the connection was not made to.
    if (life !== meantFor && !connect && !random.chance(0.3)) {
      this.#answerLater(pending, () => pending.reject(new Failure('connection-lost')));
      return;
    }
    const breaks = () => this.#answerLater(pending, () => pending.reject(new Failure('connection-lost')));
    life.broken.add(breaks);
    life.process.do(() => {
      void life.handle(message).then((response) => {
        life.process.do(() => {
          life.broken.delete(breaks);
          this.#answerLater(pending, () => pending.resolve(response));
        });
      });
    });
  }

  #answerLater(pending: Pending, settle: () => void): void {
    this.#world.after(this.#travelMs(), () => {
      if (this.#isCutOff()) {
        this.#world.after(this.#world.random.between(200, 3000), () => this.#answerLater(pending, settle));
        return;
      }
      this.#gateway.process.do(() => {
        if (this.#pending.delete(pending)) settle();
      });
    });
  }

  /** Mostly a millisecond; now and then something holds it back for seconds. */
  #travelMs(): number {
    const { random } = this.#world;
    if (random.chance(this.#world.heldBack)) return random.between(500, 8000);
    return random.chance(0.1) ? random.between(5, 60) : random.between(0.05, 1.5);
  }
}
