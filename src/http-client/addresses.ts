/**
 * Host names to addresses. `getaddrinfo` blocks a thread of the pool that the disks need too, for many seconds when DNS is
 * down. Promise: at most {@link lookupsMax} look-ups run at a time in the process; a name that was resolved before stays
 * usable while DNS is slow or out of order.
 */
import { lookup as lookUpName } from 'node:dns';
import { isIP } from 'node:net';
import { type Clock, systemClock } from '../base/clock.js';
import { Failure } from '../base/failure.js';

const lookupsMax = 2;
/** How long a new answer is waited for when there is an older one. */
const patienceMs = 1000;
const rememberedHostsMax = 256;
const addressesMax = 16;

/** All addresses of a host, in the order in which they should be tried. Rejects with a `code` as `dns.lookup` does. */
export type Lookup = (host: string) => Promise<readonly string[]>;

const systemLookup: Lookup = (host) =>
  new Promise((resolve, reject) => {
    lookUpName(host, { all: true, verbatim: true }, (error, found) => {
      if (error === null) resolve(found.map(({ address }) => address));
      else reject(error);
    });
  });

export class Resolver {
  readonly #lookup: Lookup;
  readonly #clock: Clock;
  readonly #running = new Map<string, Promise<readonly string[]>>();
  readonly #waiting: (() => void)[] = [];
  readonly #remembered = new Map<string, readonly string[]>();
  #active = 0;

  constructor(lookup: Lookup, clock: Clock) {
    this.#lookup = lookup;
    this.#clock = clock;
  }

  /** The addresses of `host`, at least one. Rejects with `name-not-resolved`. An address is its own answer. */
  resolve(host: string): Promise<readonly string[]> {
    if (isIP(host) !== 0) return Promise.resolve([host]);
    const fresh = this.#share(host);
    const older = this.#remembered.get(host);
    return older === undefined ? fresh : this.#preferFresh(host, fresh, older);
  }

  #share(host: string): Promise<readonly string[]> {
    const running = this.#running.get(host);
    if (running !== undefined) return running;
    const started = this.#ask(host).finally(() => this.#running.delete(host));
    this.#running.set(host, started);
    return started;
  }

  async #ask(host: string): Promise<readonly string[]> {
    if (this.#active === lookupsMax) await new Promise<void>((resume) => this.#waiting.push(resume));
    else this.#active++;
    try {
      const addresses = (await this.#lookup(host)).slice(0, addressesMax);
      if (addresses.length === 0) throw new Failure('name-not-resolved', `${host} has no address`);
      this.#remember(host, addresses);
      return addresses;
    } catch (error) {
      throw this.#explain(host, error);
    } finally {
      // Whoever waits takes the place over, so that nobody else can slip in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#active--;
      else next();
    }
  }

  /** What was known of a name that is certainly gone is forgotten; out of order is not gone. */
  #explain(host: string, error: unknown): Failure {
    if (error instanceof Failure) return error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    if (code === 'ENOTFOUND') this.#remembered.delete(host);
    return new Failure('name-not-resolved', `${host} cannot be resolved: ${code}`, { cause: error });
  }

  #remember(host: string, addresses: readonly string[]): void {
    this.#remembered.delete(host);
    this.#remembered.set(host, addresses);
    for (const oldest of this.#remembered.keys()) {
      if (this.#remembered.size <= rememberedHostsMax) return;
      this.#remembered.delete(oldest);
    }
  }

  #preferFresh(host: string, fresh: Promise<readonly string[]>, older: readonly string[]): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(patienceMs, () => resolve(older));
      fresh.then(
        (addresses) => {
          timer.cancel();
          resolve(addresses);
        },
        (failure: Failure) => {
          timer.cancel();
          if (this.#remembered.has(host)) resolve(older);
          else reject(failure);
        },
      );
    });
  }
}

/** The one of the process: its bound holds for all servers together. */
export const systemResolver = new Resolver(systemLookup, systemClock);
