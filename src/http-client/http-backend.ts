/**
 * One HTTP server over real sockets: the gateway's Backend (gateway/backend.ts), for servers of ours, old ones and plain web
 * servers. Nothing here is tried again and nothing times out but a connect; both are the gateway's business.
 */
import { bulkBuffer } from '../base/bulk-buffer.js';
import { assert } from '../base/assert.js';
import type { Clock } from '../base/clock.js';
import { Failure } from '../base/failure.js';
import { isInside } from '../base/range.js';
import type { Backend, Completion, Probe } from '../gateway/backend.js';
import { type Resolver, systemResolver } from './addresses.js';
import type { Dial } from './connection.js';
import { isRefused } from './dial.js';
import { DiskExchange, type SentRequest, type ServerView } from './exchange.js';
import { Lanes } from './lanes.js';
import { type Probed, probeServer } from './probe.js';
import type { Environment } from './proxy-environment.js';
import { dialRoute, isSameRoute, plainFields, type Route, type RouteContext, requestStarts, routeTo } from './route.js';
import { parseEndpoint, type Target } from './target.js';
import { IdentityGuard } from './validators.js';

export interface HttpBackendOptions {
  readonly clock: Clock;
  /** For each step of a connect (TCP, a proxy's tunnel, TLS), milliseconds. */
  readonly connectTimeoutMs: number;
  /** Authorities for https, PEM. Undefined: those that Node trusts. */
  readonly ca?: string | undefined;
  /** Where proxies are looked for, as curl does; `process.env`. */
  readonly environment: Environment;
  readonly resolver?: Resolver;
}

/** What one receive call can take. */
const receiveBytes = 256 * 1024;

/** The server that requests go to at the moment: where it is, how it answers, and the connections to it. */
interface Server {
  readonly route: Route;
  readonly view: ServerView;
  readonly lanes: Lanes;
}

export class HttpBackend implements Backend {
  readonly name: string;
  readonly #target: Target;
  readonly #context: RouteContext;
  readonly #guard = new IdentityGuard();
  #server: Server;
  /** The connections to the server before this one, while answers are on their way. */
  #former: Lanes | undefined = undefined;
  /** Ends probes and `refuses`. */
  #attempts = new AbortController();

  /** `target`: what `parseServerUrl` made of a URL. Throws `invalid-request` if a proxy is configured that cannot be used. */
  constructor(target: Target, options: HttpBackendOptions) {
    this.name = target.name;
    this.#target = target;
    this.#context = {
      clock: options.clock,
      resolver: options.resolver ?? systemResolver,
      connectTimeoutMs: options.connectTimeoutMs,
      ca: options.ca,
      environment: options.environment,
      receiveBuffer: bulkBuffer(receiveBytes),
    };
    this.#server = this.#serverAt(routeTo(target, this.#context));
  }

  async probe(): Promise<Probe> {
    const { signal } = this.#attempts;
    const probed = await probeServer(this.#target, this.#context, signal);
    if (signal.aborted) {
      probed.connection.retire();
      throw abandoned();
    }
    this.#use(probed);
    const { description, sentAtMs, receivedAtMs, endpoint } = probed;
    return { description, sentAtMs, receivedAtMs, endpoint, oneAtATime: !probed.connection.isPersistent };
  }

  send(request: SentRequest, bytes: Buffer | null, into: Buffer | null, completion: Completion): void {
    assert((bytes?.length ?? null) === (request.op === 'write' ? request.length : null), 'a write has its payload');
    assert((into?.length ?? null) === (request.op === 'read' ? request.length : null), 'a read has its destination');
    const { view, lanes } = this.#server;
    const exchange = new DiskExchange(request, bytes, into, view, completion);
    if (request.op === 'write' && !isInside(request.offset, request.length, view.sizeBytes ?? 0)) {
      // An old server would make its file grow.
      exchange.fail(new Failure('out-of-range', 'a write must end before the end of the disk'), true);
      return;
    }
    lanes.send(exchange);
  }

  refuses(endpoint: string): Promise<boolean> {
    const place = parseEndpoint(endpoint);
    if (place === undefined) return Promise.resolve(false);
    const { clock, connectTimeoutMs } = this.#context;
    return isRefused(place.address, place.port, { clock, timeoutMs: connectTimeoutMs, signal: this.#attempts.signal });
  }

  abandon(): void {
    const attempts = this.#attempts;
    this.#attempts = new AbortController();
    attempts.abort();
    this.#former?.abandon(abandoned());
    this.#former = undefined;
    this.#server.lanes.abandon(abandoned());
  }

  /** Later requests go where the probe has found the server. */
  #use(probed: Probed): void {
    const { route, description, minorVersion, validators, connection } = probed;
    try {
      if (description.instance !== undefined) this.#guard.forget();
      else this.#guard.probed(validators);
    } catch (error) {
      connection.retire();
      throw error;
    }
    const isOurs = description.features.has('session');
    const starts = requestStarts(route, isOurs ? '' : plainFields);
    const view: ServerView = { starts, isOurs, minorVersion, sizeBytes: description.sizeBytes, guard: this.#guard };
    const before = this.#server;
    if (isSameRoute(before.route, route)) {
      this.#server = { ...before, view };
    } else {
      this.#former?.abandon(abandoned());
      this.#former = before.lanes;
      before.lanes.finish();
      this.#server = { ...this.#serverAt(route), view };
    }
    this.#server.lanes.adopt(connection);
  }

  #serverAt(route: Route): Server {
    const dial: Dial = async (receive, signal) => (await dialRoute(route, this.#context, receive, signal)).socket;
    return {
      route,
      view: {
        ...{ starts: requestStarts(route, plainFields), isOurs: false, minorVersion: undefined },
        ...{ sizeBytes: undefined, guard: this.#guard },
      },
      lanes: new Lanes(dial, this.#context.clock),
    };
  }
}

function abandoned(): Failure {
  return new Failure('connection-lost', 'the server was given up');
}
