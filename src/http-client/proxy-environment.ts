/**
 * Which proxy a target is reached through, from the environment, as curl has it: `http_proxy` (lower case only: a CGI
 * program's HTTP_PROXY comes from its client), `https_proxy`, `all_proxy`, `no_proxy`, these also in upper case.
 */
import { BlockList, isIP, isIPv6 } from 'node:net';
import { Failure } from '../base/failure.js';
import { basicAuthorization, credentialsOf, type Target, withoutCredentials } from './target.js';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Proxy {
  readonly host: string;
  readonly port: number;
  /** The value of the Proxy-Authorization field. */
  readonly authorization: string | undefined;
}

const defaultPort = 1080;

/** The proxy for `target`, or undefined. Throws `invalid-request` for a proxy that is malformed or of another kind than http. */
export function proxyFor(target: Target, environment: Environment): Proxy | undefined {
  const names = target.secure ? ['https_proxy', 'HTTPS_PROXY'] : ['http_proxy'];
  const text = firstOf(environment, [...names, 'all_proxy', 'ALL_PROXY']);
  if (text === undefined) return undefined;
  const exceptions = firstOf(environment, ['no_proxy', 'NO_PROXY']);
  if (exceptions !== undefined && isException(target.host, exceptions)) return undefined;
  return parseProxy(text);
}

/** A variable that is empty counts as not set. */
function firstOf(environment: Environment, names: readonly string[]): string | undefined {
  return names.map((name) => environment[name]).find((value) => value !== undefined && value !== '');
}

function parseProxy(text: string): Proxy {
  const typed = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  let url: URL;
  try {
    url = new URL(typed);
  } catch {
    throw new Failure('invalid-request', `the proxy \`${withoutCredentials(text)}\` is not a URL`);
  }
  if (url.protocol !== 'http:' || url.hostname === '') {
    throw new Failure('invalid-request', `the proxy \`${withoutCredentials(text)}\` is none that speaks plain http`);
  }
  const credentials = credentialsOf(url, text);
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: portOf(url, typed),
    authorization: credentials === undefined ? undefined : basicAuthorization(credentials),
  };
}

/** URL drops `:80`, which must be told from no port at all. */
function portOf(url: URL, typed: string): number {
  if (url.port !== '') return Number(url.port);
  return /^[^/]*\/\/(?:[^/?#]*@)?(?:\[[^\]]*\]|[^/?#:]*):0*80(?:[/?#]|$)/.test(typed) ? 80 : defaultPort;
}

/** Entries, separated by commas or blanks: `*`, a domain (with everything below it), an address, or ADDRESS/BITS. */
function isException(host: string, list: string): boolean {
  const entries = list.split(/[,\s]+/).filter((entry) => entry !== '');
  if (entries.includes('*')) return true;
  return isIP(host) === 0
    ? entries.some((entry) => isBelow(host, entry))
    : entries.some((entry) => isInNetwork(host, entry));
}

function isBelow(host: string, entry: string): boolean {
  const name = host.toLowerCase().replace(/\.$/, '');
  const domain = entry.toLowerCase().replace(/^\./, '').replace(/\.$/, '');
  return domain !== '' && (name === domain || name.endsWith(`.${domain}`));
}

function isInNetwork(host: string, entry: string): boolean {
  const match = /^\[?([^\]/]+)\]?(?:\/(\d{1,3}))?$/.exec(entry);
  const address = match?.[1] ?? '';
  if (isIP(address) === 0 || isIP(address) !== isIP(host)) return false;
  const family = isIPv6(address) ? 'ipv6' : 'ipv4';
  const bitsMax = family === 'ipv6' ? 128 : 32;
  const bits = match?.[2] === undefined ? bitsMax : Number(match[2]);
  if (bits > bitsMax) return false;
  const network = new BlockList();
  network.addSubnet(address, bits, family);
  return network.check(host, family);
}
