/**
 * The simulated network: a `Backend` whose requests travel as encoded messages of the HTTP disk protocol. Messages are delayed, overtake
 * each other, are held back for seconds, arrive after their sender has given them up, and arrive at the successor of the process that
 * they were meant for. An attempt to connect may be made twice.
 */
import { asFailure, Failure } from '../../src/base/failure.js';
import type { CoreRequest } from '../../src/disk-server/disk-server.js';
import type { Backend, Completion, Probe } from '../../src/gateway/backend.js';
import type { DiskAnswer } from '../../src/http-disk/messages.js';
import { encodeRequest } from '../../src/http-disk/request-codec.js';
import { decodeAnswer, decodeDescription } from '../../src/http-disk/response-codec.js';
import { receivedLines } from '../support/received-fields.js';
import type { Host, Life, Message, Response } from './host.js';
import type { NetworkPlan } from './plan.js';
import type { Process } from './process.js';
import type { World } from './world.js';

interface Pending {
  /** A connection is made for it. */
  readonly connects: boolean;
  readonly resolve: (response: Response) => void;
  readonly reject: (failure: Failure) => void;
}

interface Gateway {
  readonly name: string;
  readonly process: Process;
}

/** One gateway's way to one host. */
export class SimulatedBackend implements Backend {
  readonly name: string;
  readonly #world: World;
  readonly #plan: NetworkPlan;
  readonly #gateway: Gateway;
  readonly #host: Host;
  readonly #hosts: readonly Host[];
  #pending = new Set<Pending>();

  /** `hosts`: all that there are, as any of them can be asked whether it refuses. */
  constructor(world: World, plan: NetworkPlan, gateway: Gateway, host: Host, hosts: readonly Host[]) {
    this.#hosts = hosts;
    this.#world = world;
    this.#plan = plan;
    this.#gateway = gateway;
    this.#host = host;
    this.name = `http://${host.address}`;
    host.resets.add(() => gateway.process.do(() => this.#break('connection reset')));
  }

  async probe(): Promise<Probe> {
    const sentAtMs = this.#gateway.process.nowMs();
    const { method, headers } = encodeRequest({ op: 'probe' });
    const response = await new Promise<Response>((resolve, reject) => {
      this.#exchange({ method, headers, body: undefined }, { connects: true, resolve, reject });
    });
    const endpoint = this.#host.address;
    const description = decodeDescription(response.encoded.status, receivedLines(response.encoded.headers), endpoint);
    const receivedAtMs = this.#gateway.process.nowMs();
    return { description, sentAtMs, receivedAtMs, endpoint, oneAtATime: false };
  }

  /** Answers are told at once, as by the real one; failures a little later. */
  send(request: CoreRequest, bytes: Buffer | null, into: Buffer | null, completion: Completion): void {
    const { method, headers } = encodeRequest(request);
    const body = bytes === null ? undefined : Buffer.from(bytes);
    const reject = (failure: Failure) => queueMicrotask(() => completion.failed(failure));
    const resolve = (response: Response) => {
      let answer: DiskAnswer;
      try {
        answer = this.#read(response, request, into);
      } catch (error) {
        reject(asFailure(error));
        return;
      }
      completion.answered(answer);
    };
    this.#exchange({ method, headers, body }, { connects: false, resolve, reject });
  }

  #read({ encoded, data }: Response, request: CoreRequest, into: Buffer | null): DiskAnswer {
    const answer = decodeAnswer(request, encoded.status, receivedLines(encoded.headers), encoded.body);
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
        const reached = asked !== undefined && !asked.cuts.has(this.#gateway.name);
        const refused = reached && asked.life === undefined;
        this.#world.count(refused ? 'a refused connection proves a death' : 'no proof of a death');
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

  #exchange(message: Message, pending: Pending): void {
    const meantFor = this.#host.life;
    this.#pending.add(pending);
    const copies = pending.connects && this.#world.random.chance(this.#plan.connectedTwice) ? 2 : 1;
    if (copies > 1) this.#world.count('connection attempt made twice');
    for (let copy = 0; copy < copies; copy += 1)
      this.#world.after(this.#travelMs(), () => this.#arrive(message, meantFor, pending));
  }

  /** A message reaches the host, if it can; whether its sender still wants an answer makes no difference. */
  #arrive(message: Message, meantFor: Life | undefined, pending: Pending): void {
    const { random } = this.#world;
    const cut = this.#host.cuts.get(this.#gateway.name);
    if (cut !== undefined && cut !== 'answers') {
      // Sent again by TCP until it arrives, or never.
      const isLost = random.chance(0.1);
      this.#world.count(isLost ? 'request lost' : 'request delayed by a cut');
      if (!isLost) this.#world.after(random.between(200, 3000), () => this.#arrive(message, meantFor, pending));
      return;
    }
    const { life } = this.#host;
    const { connects } = pending;
    if (life === undefined) {
      if (!connects && random.chance(this.#plan.keptForSuccessor)) {
        this.#world.after(random.between(1, 200), () => this.#arrive(message, meantFor, pending));
        return;
      }
      const code = connects ? 'connection-refused' : 'connection-lost';
      this.#answerLater(pending, () => pending.reject(new Failure(code)));
      return;
    }
    if (life !== meantFor && !connects) {
      // Only something in between (a proxy) delivers to a process that the connection was not made to.
      if (random.chance(0.3)) {
        this.#answerLater(pending, () => pending.reject(new Failure('connection-lost')));
        return;
      }
      this.#world.count(`${kindOf(message)} delivered to the successor of the process it was meant for`);
    }
    if (!this.#pending.has(pending)) this.#world.count(`${kindOf(message)} arrives after its sender gave it up`);
    const breaks = () => this.#answerLater(pending, () => pending.reject(new Failure('connection-lost')));
    life.broken.add(breaks);
    life.receive(message, (response) => {
      life.broken.delete(breaks);
      this.#answerLater(pending, () => pending.resolve(response));
    });
  }

  #answerLater(pending: Pending, settle: () => void): void {
    this.#world.after(this.#travelMs(), () => {
      const cut = this.#host.cuts.get(this.#gateway.name);
      if (cut !== undefined && cut !== 'requests') {
        this.#world.count('answer delayed by a cut');
        this.#world.after(this.#world.random.between(200, 3000), () => this.#answerLater(pending, settle));
        return;
      }
      this.#gateway.process.do(() => {
        if (this.#pending.delete(pending)) settle();
        else this.#world.count('answer to a request that was given up');
      });
    });
  }

  /** Mostly a millisecond; now and then something holds it back for seconds. */
  #travelMs(): number {
    const { random, isCalm } = this.#world;
    if (!isCalm && random.chance(this.#plan.heldBack)) return random.between(500, 8000);
    return random.chance(0.1) ? random.between(5, 60) : random.between(0.05, 1.5);
  }
}

function kindOf({ method }: Message): string {
  return method === 'PUT' ? 'write' : 'request';
}
