/**
 * Asks a server what it serves: HEAD over a connection made for it, to whatever address its name has now, along redirects.
 * Promise: credentials go to the origin that they were given for, and nowhere else.
 */
import { assert } from '../base/assert.js';
import { asFailure, Failure } from '../base/failure.js';
import type { DiskDescription } from '../http-disk/messages.js';
import { decodeDescription } from '../http-disk/response-codec.js';
import { Connection, type ConnectionOwner, type Dial, type Exchange, type LaneName } from './connection.js';
import type { ResponseHead } from './response-head.js';
import type { Destination, Method } from './response-parser.js';
import { dialRoute, plainFields, type Route, type RouteContext, requestStarts, routeTo } from './route.js';
import { formatEndpoint, redirectTarget, type Target } from './target.js';
import type { Validators } from './validators.js';

const redirectsMax = 5;
const redirectStatuses: readonly number[] = [301, 302, 303, 307, 308];

/** A server that has answered. `connection` may have ended; the one who gets it owns it. */
export interface Probed {
  readonly description: DiskDescription;
  /** It answers in HTTP/1.x. */
  readonly minorVersion: number;
  readonly validators: Validators;
  /** With the address that answered. */
  readonly route: Route & { readonly address: string };
  /** `ADDRESS:PORT` that was connected to. Undefined through a proxy. */
  readonly endpoint: string | undefined;
  readonly connection: Connection;
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
}

/** Nobody is told of a connection that only probes. */
const nobody: ConnectionOwner = { answered: () => undefined, idle: () => undefined, closed: () => undefined };

/** Rejects with a `Failure`; with `connection-lost` when `signal` is aborted. */
export async function probeServer(configured: Target, context: RouteContext, signal: AbortSignal): Promise<Probed> {
  let target = configured;
  for (let redirects = 0; redirects <= redirectsMax; redirects++) {
    const answer = await askHead(routeTo(target, context), context, signal);
    const { status, fields, connection } = answer;
    const location = redirectStatuses.includes(status) ? fields['location'] : undefined;
    if (location === undefined) return describe(answer);
    connection.retire();
    target = redirectTarget(target, location, configured);
  }
  throw new Failure('server-error', `more than ${redirectsMax} redirects`);
}

interface HeadAnswer extends Omit<Probed, 'description' | 'validators'> {
  readonly status: number;
  readonly fields: Record<string, string>;
}

function describe({ status, fields, ...rest }: HeadAnswer): Probed {
  try {
    const description = decodeDescription(status, fields, rest.endpoint);
    const { etag, 'last-modified': lastModified } = fields;
    return { ...rest, description, validators: { etag, lastModified, sizeBytes: description.sizeBytes } };
  } catch (error) {
    rest.connection.retire();
    throw error;
  }
}

async function askHead(route: Route, context: RouteContext, signal: AbortSignal): Promise<HeadAnswer> {
  const { clock } = context;
  let address: string | undefined;
  let sentAtMs = 0;
  const dial: Dial = async (receive, dialSignal) => {
    const dialled = await dialRoute(route, context, receive, dialSignal);
    address = dialled.address;
    sentAtMs = clock.nowMs();
    return dialled.socket;
  };
  const connection = new Connection(dial, clock, nobody);
  const giveUp = (): void => connection.destroy(new Failure('connection-lost', 'the probe was given up'));
  signal.addEventListener('abort', giveUp);
  try {
    const { status, fields, minorVersion } = await new Promise<HeadReply>((resolve, reject) => {
      connection.send(new HeadExchange(requestStarts(route, plainFields).HEAD, resolve, reject));
      if (signal.aborted) giveUp();
    });
    const receivedAtMs = clock.nowMs();
    assert(address !== undefined, 'who has answered has an address');
    const endpoint = route.proxy === undefined ? formatEndpoint(address, route.target.port) : undefined;
    const answer = { status, fields, minorVersion, connection, sentAtMs, receivedAtMs };
    return { ...answer, route: { ...route, address }, endpoint };
  } catch (error) {
    connection.retire();
    throw asFailure(error);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

interface HeadReply {
  readonly status: number;
  readonly minorVersion: number;
  readonly fields: Record<string, string>;
}

class HeadExchange implements Exchange {
  readonly lane: LaneName = 'slow';
  readonly method: Method = 'HEAD';
  readonly head: string;
  readonly payload = null;
  readonly isRepeatable = true;
  readonly weightBytes = 512;
  readonly isRefused = false;
  readonly #resolve: (reply: HeadReply) => void;
  readonly #reject: (failure: Failure) => void;
  #reply: HeadReply | undefined = undefined;

  constructor(start: string, resolve: (reply: HeadReply) => void, reject: (failure: Failure) => void) {
    this.head = `${start}\r\n`;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(head: ResponseHead): Destination {
    this.#reply = { status: head.status, minorVersion: head.minorVersion, fields: head.fields() };
    return 0;
  }

  finish(): void {
    assert(this.#reply !== undefined, 'what finishes has begun');
    this.#resolve(this.#reply);
  }

  fail(failure: Failure): void {
    this.#reject(failure);
  }
}
