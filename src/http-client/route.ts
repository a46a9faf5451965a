/**
 * The way to a target: directly or through a proxy, to an address that is known already or has to be looked up; and what
 * requests look like that go this way.
 */
import type { Socket } from 'node:net';
import type { Clock } from '../base/clock.js';
import type { Resolver } from './addresses.js';
import { type DialOptions, dialAny, type Reception, secure, tunnel } from './dial.js';
import { type Environment, type Proxy, proxyFor } from './proxy-environment.js';
import type { Method } from './response-parser.js';
import type { Target } from './target.js';

/** What all routes of a backend share. */
export interface RouteContext {
  readonly clock: Clock;
  readonly resolver: Resolver;
  /** For each step (TCP, tunnel, TLS), milliseconds. */
  readonly connectTimeoutMs: number;
  /** PEM. Undefined: the authorities that Node trusts. */
  readonly ca: string | undefined;
  readonly environment: Environment;
  /** Where plain connections receive. */
  readonly receiveBuffer: Buffer;
}

export interface Route {
  readonly target: Target;
  readonly proxy: Proxy | undefined;
  /** Where the last connection went. Undefined: nowhere yet, so the name is resolved. */
  readonly address: string | undefined;
}

/** Throws `invalid-request` if the environment names a proxy that cannot be used. */
export function routeTo(target: Target, context: RouteContext): Route {
  return { target, proxy: proxyFor(target, context.environment), address: undefined };
}

/** Whether connections that go one way may be used for requests that go the other. */
export function isSameRoute(a: Route, b: Route): boolean {
  const { target, proxy, address } = a;
  return (
    target.origin === b.target.origin &&
    target.path === b.target.path &&
    target.authorization === b.target.authorization &&
    proxy?.host === b.proxy?.host &&
    proxy?.port === b.proxy?.port &&
    address === b.address
  );
}

/** Connects. Rejects with a `Failure`, `connection-refused` only if each address refused. */
export async function dialRoute(
  route: Route,
  context: RouteContext,
  receive: Reception['receive'],
  signal: AbortSignal,
): Promise<{ socket: Socket; address: string }> {
  const { target, proxy } = route;
  const options: DialOptions = { clock: context.clock, timeoutMs: context.connectTimeoutMs, signal };
  const { host, port } = proxy ?? target;
  const addresses = route.address === undefined ? await context.resolver.resolve(host) : [route.address];
  const reception = target.secure ? undefined : { buffer: context.receiveBuffer, receive };
  const { socket, address } = await dialAny(addresses, port, options, reception);
  if (!target.secure) return { socket, address };
  if (proxy !== undefined) {
    await tunnel(socket, authorityWithPort(target), proxy.authorization, options);
  }
  return { socket: await secure(socket, { host: target.host, ca: context.ca }, options), address };
}

function authorityWithPort({ host, port }: Target): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** What a server that is not ours is told: that the bytes are wanted as they are, and by whom. */
export const plainFields = 'Accept-Encoding: identity\r\nUser-Agent: http-nbd-transfer\r\n';

/** The first lines of a request, for each method. */
export type RequestStarts = Readonly<Record<Exclude<Method, 'CONNECT'>, string>>;

/**
 * The request line and the fields that every request on this route has. `extra`: further field lines.
 * A proxy for plain http wants the absolute form (RFC 9112, section 3.2.2); through a tunnel it sees nothing of this.
 */
export function requestStarts({ target, proxy }: Route, extra: string): RequestStarts {
  const isForwarded = proxy !== undefined && !target.secure;
  const form = isForwarded ? `${target.origin}${target.path}` : target.path;
  const forProxy = isForwarded && proxy.authorization !== undefined;
  const rest = [
    ` ${form} HTTP/1.1\r\nHost: ${target.authority}\r\n`,
    target.authorization === undefined ? '' : `Authorization: ${target.authorization}\r\n`,
    forProxy ? `Proxy-Authorization: ${proxy.authorization}\r\n` : '',
    extra,
  ].join('');
  return { HEAD: `HEAD${rest}`, GET: `GET${rest}`, PUT: `PUT${rest}`, POST: `POST${rest}` };
}
