/**
 * What the command lines of both programs have in common.
 * Promise: a wrong option ends in one line that says what is wrong and how it is written right, and exit code 2; `--help`
 * and `--version` print to standard output and exit with 0. Nothing else is written, and the program never exits here.
 */
import { readFileSync } from 'node:fs';
import { type Command, CommanderError, InvalidArgumentError } from 'commander';

/** What became of a command line: `ended` has been said all that there is to say. */
export type ParsedCommandLine<Options> =
  | { readonly at: 'run'; readonly options: Options }
  | { readonly at: 'ended'; readonly exitCode: 0 | 2; readonly stream: 'stdout' | 'stderr'; readonly text: string };

/**
 * Parses `args` (without node and script). `read` turns what commander found into the program's options; it throws
 * {@link InvalidArgumentError} for what only several options together show to be wrong.
 */
export function parseCommandLine<Options>(
  command: Command,
  args: readonly string[],
  read: (command: Command) => Options,
): ParsedCommandLine<Options> {
  let printed = '';
  command
    .version(packageVersion(), '-V, --version', 'print the version and exit')
    .helpOption('-h, --help', 'print this help and exit')
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeOut: (text) => void (printed += text), writeErr: () => {} });
  try {
    command.parse(args, { from: 'user' });
    return { at: 'run', options: read(command) };
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { at: 'ended', exitCode: 0, stream: 'stdout', text: printed };
    const what = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
    const text = `${command.name()}: ${what} (see ${command.name()} --help)\n`;
    return { at: 'ended', exitCode: 2, stream: 'stderr', text };
  }
}

/** This package's version. */
function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

const durationUnitsMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };
const durationMsMax = 24 * 60 * 60_000;

/** `3`, `3s`, `500ms`, `1.5s`, `2m`: milliseconds. At least one, at most a day. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m)?$/.exec(text);
  const ms = match === null ? Number.NaN : Math.round(Number(match[1]) * (durationUnitsMs[match[2] ?? 's'] ?? 1));
  if (ms >= 1 && ms <= durationMsMax) return ms;
  throw new InvalidArgumentError('Write a time as 3 or 3s (seconds), 500ms or 2m, at least 1ms and at most a day.');
}

const sizeUnits = ['', 'K', 'M', 'G', 'T', 'P'];

/** `4194304`, `4M`, `4MiB`: bytes, in powers of 1024. From 1 to 2^53 - 1. */
export function parseSize(text: string): number {
  const match = /^(\d{1,16})(?:([KMGTP])(?:iB)?|B)?$/i.exec(text);
  const bytes =
    match === null ? Number.NaN : Number(match[1]) * 1024 ** sizeUnits.indexOf(match[2]?.toUpperCase() ?? '');
  if (Number.isSafeInteger(bytes) && bytes >= 1) return bytes;
  throw new InvalidArgumentError('Write a size as 4194304 (bytes), 4096K, 4M or 1G, from 1 to 2^53 - 1 bytes.');
}

/** A TCP port; 0 lets the system choose one. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (port <= 65_535) return port;
  throw new InvalidArgumentError('A port is a whole number from 0 to 65535, for example 8000.');
}

/** A whole number from `min` to `max`. */
export function parseCount(min: number, max: number): (text: string) => number {
  return (text) => {
    const count = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (count >= min && count <= max) return count;
    throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`);
  };
}

/** Where to listen. Without `host`: on all addresses. */
export interface ListenAddress {
  readonly host?: string;
  readonly port: number;
}

/** `[HOST:]PORT`, with brackets around an IPv6 address. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]\s]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new InvalidArgumentError('Write where to listen as PORT or HOST:PORT, for example 10809 or [::1]:10809.');
  }
  const host = match[1] ?? match[2];
  return host === undefined ? { port } : { host, port };
}

/** Anything but nothing. */
export function parseText(what: string): (text: string) => string {
  return (text) => {
    if (text !== '' && !text.includes('\0')) return text;
    throw new InvalidArgumentError(`${what} must not be empty.`);
  };
}
