/**
 * An HTTP server in place of which a test decides: every request waits until the test answers it. Nothing of the network is real here;
 * http-client/'s own tests and test/faults/ have real sockets.
 */
import { Failure } from '../../src/base/failure.js';
import type { Backend, Completion, Probe } from '../../src/gateway/backend.js';
import { type DiskAnswer, type DiskDescription, type DiskRequest, features } from '../../src/http-disk/messages.js';
import type { FakeClock } from './fake-clock.js';

type Sent = Exclude<DiskRequest, { op: 'probe' }>;

export interface Outstanding {
  readonly request: Sent;
  readonly bytes: Buffer | null;
  readonly into: Buffer | null;
  answer(answer?: Partial<DiskAnswer>): void;
  fail(failure: Failure): void;
}

export class ScriptedBackend implements Backend {
  readonly name: string;
  /** What the next probes find: a description, a failure, or silence. */
  found: Partial<DiskDescription> | Failure | 'silence' = {};
  probes = 0;
  /** It closes after each answer. */
  oneAtATime = false;
  /** Whether its address refuses connections. */
  refused = false;
  /** Requests that wait for the test's answer, oldest first. */
  outstanding: Outstanding[] = [];
  /** While set, requests are answered at once. */
  automatic = true;
  readonly #clock: FakeClock;
  readonly #rejects = new Set<(failure: Failure) => void>();

  constructor(name: string, clock: FakeClock) {
    this.name = name;
    this.#clock = clock;
  }

  /** What it says of itself unless the test says otherwise: ours, 64 KiB, all features. */
  describe(found: Partial<DiskDescription>): DiskDescription {
    return {
      sizeBytes: 65_536,
      readOnly: false,
      features: new Set(features),
      instance: `${this.name}-1`,
      clockMs: this.#clock.nowMs() + 5000,
      logicalBlockBytes: 512,
      physicalBlockBytes: 4096,
      endpoint: `${this.name}:80`,
      ...found,
    };
  }

  probe(): Promise<Probe> {
    this.probes += 1;
    const { found } = this;
    if (found instanceof Failure) return Promise.reject(found);
    const atMs = this.#clock.nowMs();
    const { name, oneAtATime } = this;
    const probe = { sentAtMs: atMs, receivedAtMs: atMs, endpoint: `${name}:80`, oneAtATime };
    if (found !== 'silence') return Promise.resolve({ ...probe, description: this.describe(found) });
    return new Promise((_, reject) => void this.#rejects.add(reject));
  }

  send(request: Sent, bytes: Buffer | null, into: Buffer | null, completion: Completion): void {
    const instance =
      'stamp' in request ? request.stamp?.instance : 'instance' in request ? request.instance : undefined;
    const reject = (failure: Failure) => queueMicrotask(() => completion.failed(failure));
    const leave = () => {
      this.outstanding = this.outstanding.filter((other) => other !== entry);
      this.#rejects.delete(reject);
    };
    const entry: Outstanding = {
      request,
      bytes,
      into,
      answer: (answer = {}) => {
        leave();
        completion.answered({ instance, clockMs: undefined, ...answer });
      },
      fail: (failure) => {
        leave();
        reject(failure);
      },
    };
    this.#rejects.add(reject);
    this.outstanding.push(entry);
    if (!this.automatic) return;
    queueMicrotask(() => {
      if (this.outstanding.includes(entry)) entry.answer(); // unless it was abandoned
    });
  }

  refuses(): Promise<boolean> {
    return Promise.resolve(this.refused);
  }

  abandon(): void {
    const rejects = [...this.#rejects];
    this.#rejects.clear();
    this.outstanding = [];
    for (const reject of rejects) reject(new Failure('connection-lost', 'given up'));
  }
}
