/**
 * Where requests go, and what they say about it: URLs, origins, credentials.
 * Promise: credentials are in `authorization` only; no name and no message of a failure holds them, nor the query of a URL,
 * which may be a signature.
 */
import { isIPv6 } from 'node:net';
import { Failure } from '../base/failure.js';

/** Path and query, and the value of an Authorization field: together with the rest, a request's head stays bounded. */
const pathBytesMax = 16 * 1024;
const authorizationBytesMax = 8 * 1024;

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/** A URL as requests need it. */
export interface Target {
  readonly secure: boolean;
  /** Name or address, without brackets. */
  readonly host: string;
  readonly port: number;
  /** `SCHEME://HOST[:PORT]` */
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  /** For the Host field. */
  readonly authority: string;
  /** The value of the Authorization field. */
  readonly authorization: string | undefined;
  /** The URL without credentials and query: fit for logs. */
  readonly name: string;
}

/** A target, and what the user should know about how it was read. */
export interface ParsedUrl {
  readonly target: Target;
  readonly warning: string | undefined;
}

/**
 * Reads the URL of a server. Credentials in it (percent-encoded) go before `credentials`. An IPv6 address without brackets
 * in front of a port is understood, with a warning. Throws `invalid-request` with a message for the user.
 */
export function parseServerUrl(text: string, credentials?: Credentials): ParsedUrl {
  const bare = /^(https?:\/\/(?:[^/?#]*@)?)([0-9a-f:.]+):(\d{1,5})(?=[/?#]|$)(.*)$/i.exec(text);
  if (bare !== null && bare[2]?.includes(':') === true && isIPv6(bare[2])) {
    const target = targetOf(parse(`${bare[1]}[${bare[2]}]:${bare[3]}${bare[4]}`, text), credentials, text);
    return {
      target,
      warning: `\`${target.name}\` is how \`${withoutCredentials(text)}\` is read: put IPv6 addresses in brackets`,
    };
  }
  return { target: targetOf(parse(text, text), credentials, text), warning: undefined };
}

function parse(url: string, typed: string): URL {
  try {
    return new URL(url);
  } catch {
    throw new Failure('invalid-request', `\`${withoutCredentials(typed)}\` is not a URL as http://HOST:PORT/PATH`);
  }
}

function targetOf(url: URL, credentials: Credentials | undefined, typed: string): Target {
  if ((url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new Failure('invalid-request', `\`${withoutCredentials(typed)}\` is neither an http nor an https URL`);
  }
  if (url.pathname.length + url.search.length > pathBytesMax) {
    throw new Failure('invalid-request', `a URL of more than ${pathBytesMax} bytes`);
  }
  const own = credentialsOf(url, typed);
  const used = own ?? credentials;
  const path = url.pathname === '/' && !/\/(?:[?#]|$)/.test(typed) ? '' : url.pathname;
  return {
    ...placeOf(url),
    authorization: used === undefined ? undefined : basicAuthorization(used),
    name: `${url.origin}${path}${url.search === '' ? '' : '?…'}`,
  };
}

function placeOf(url: URL): Omit<Target, 'authorization' | 'name'> {
  const secure = url.protocol === 'https:';
  return {
    secure,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    origin: url.origin,
    path: `${url.pathname}${url.search}`,
    authority: url.host,
  };
}

/**
 * Where the Location field of a redirect leads. `configured`: the target that the user gave: its credentials go along only
 * to its own origin, and credentials that the redirect itself brings are not used. Throws `malformed-response`.
 */
export function redirectTarget(from: Target, location: string, configured: Target): Target {
  let url: URL;
  try {
    url = new URL(location, `${from.origin}${from.path}`);
  } catch {
    throw new Failure('malformed-response', 'a redirect to something that is not a URL');
  }
  if ((url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new Failure('malformed-response', 'a redirect to something that is not HTTP');
  }
  if (url.pathname.length + url.search.length > pathBytesMax) {
    throw new Failure('malformed-response', `a redirect to a URL of more than ${pathBytesMax} bytes`);
  }
  return {
    ...placeOf(url),
    authorization: url.origin === configured.origin ? configured.authorization : undefined,
    name: `${url.origin}${url.pathname}${url.search === '' ? '' : '?…'}`,
  };
}

/** RFC 7617, with UTF-8. Throws `invalid-request`. */
export function basicAuthorization({ user, password }: Credentials): string {
  const value = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  if (value.length > authorizationBytesMax)
    throw new Failure('invalid-request', 'the user name or password is too long');
  return value;
}

/** The percent-decoded credentials in a URL. */
export function credentialsOf(url: URL, typed: string): Credentials | undefined {
  if (url.username === '' && url.password === '') return undefined;
  try {
    return { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) };
  } catch {
    throw new Failure('invalid-request', `the credentials of \`${withoutCredentials(typed)}\` are not percent-encoded`);
  }
}

/**
 * What stands where a port belongs and is none: `bob:secr` is the first half of `bob:secr,et@host` in a list of URLs.
 * An IPv6 address without brackets, which has more colons, is not meant.
 */
const halfCredentials =
  /^((?:[a-z][a-z0-9+.-]*:\/\/)?[^/?#:[\]]*:)(?!\/|\d*(?:[/?#]|$)|[0-9a-f.]*:[0-9a-f:.]*(?:[/?#]|$)).*$/is;

/** `text`, which may be no URL at all, fit for a message: up to the last `@` all may be a password. */
export function withoutCredentials(text: string): string {
  const host = text.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, '$1').replace(halfCredentials, '$1…');
  const shown = host.replace(/\?.*$/s, '?…');
  return shown.replace(/[^\x20-\x7e…]/g, '?').slice(0, 200);
}

/** `ADDRESS:PORT`, or `[ADDRESS]:PORT`; an IPv4-mapped IPv6 address is written as IPv4. */
export function formatEndpoint(address: string, port: number): string {
  const plain = address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
  return plain.includes(':') ? `[${plain}]:${port}` : `${plain}:${port}`;
}

/** The address and port in what {@link formatEndpoint} writes. */
export function parseEndpoint(endpoint: string): { address: string; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(endpoint);
  const address = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return address === undefined || !(port >= 1 && port <= 65_535) ? undefined : { address, port };
}
