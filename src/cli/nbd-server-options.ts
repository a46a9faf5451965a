/** The command line of nbd-server. docs/nbd-server.md describes each option. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { asFailure } from '../base/failure.js';
import { type Credentials, parseServerUrl, type Target } from '../http-client/target.js';
import { unixPathBytesMax } from '../nbd-server/nbd-server.js';
import {
  type ListenAddress,
  type ParsedCommandLine,
  parseCommandLine,
  parseCount,
  parseDuration,
  parseListenAddress,
  parseSize,
  parseText,
} from './options.js';

export interface NbdServerOptions {
  readonly socketPath: string;
  readonly name: string;
  /** At least one, in the order of preference. */
  readonly servers: readonly Target[];
  /** What the user should know about how the URLs were read. */
  readonly warnings: readonly string[];
  /** Undefined: the size of the first server that is found. */
  readonly deviceSizeBytes: number | undefined;
  readonly readOnly: boolean;
  readonly attach: boolean;
  /** N of the /dev/nbdN that is wanted. Undefined: any. */
  readonly deviceIndex: number | undefined;
  /** The kernel's sockets. */
  readonly connections: number;
  readonly deadTimeoutMs: number;
  readonly listen: ListenAddress | undefined;
  /** Authorities for https, PEM. */
  readonly ca: string | undefined;
  readonly requestTimeoutMs: number;
  readonly ioTimeoutMs: number;
  readonly writeBack: { readonly budgetBytes: number } | undefined;
  readonly refusalProvesDeath: boolean;
  readonly verbose: boolean;
}

/** As commander leaves them. */
interface RawOptions {
  readonly socketPath: string;
  readonly nbdName: string;
  readonly urls: string;
  readonly deviceSize?: number;
  readonly readOnly: boolean;
  readonly attach: boolean;
  readonly device?: number;
  readonly connections: number;
  readonly deadTimeout: number;
  readonly listen?: ListenAddress;
  readonly user?: string;
  readonly passwordFile?: string;
  readonly caFile?: string;
  readonly requestTimeout: number;
  readonly ioTimeout: number;
  readonly cache: 'writethrough' | 'writeback';
  readonly cacheSize: number;
  readonly refusalProof: boolean;
  readonly verbose: boolean;
}

export function parseNbdServerOptions(args: readonly string[]): ParsedCommandLine<NbdServerOptions> {
  const command = new Command('nbd-server')
    .description('Makes a disk that HTTP servers serve a network block device.')
    .requiredOption('--socket-path <path>', 'the unix socket to serve NBD clients on', parseSocketPath)
    .requiredOption('--nbd-name <name>', 'the name of this device: in the log and in file names', parseName)
    .requiredOption('--urls <url,url>', 'the HTTP servers, in the order of preference')
    .option('--device-size <bytes>', 'the size of the device (default: that of the first server found)', parseSize)
    .option('--read-only', 'refuse every change', false)
    .option('--no-attach', 'serve NBD clients only, attach no /dev/nbdN')
    .option('--device <path>', 'the device to attach, /dev/nbdN (default: the kernel chooses a free one)', parseDevice)
    .option('--connections <number>', 'sockets between the kernel and us', parseCount(1, 16), defaultConnections())
    .option(
      '--dead-timeout <time>',
      'how long I/O waits for a successor of a process that died',
      parseDeadTimeout,
      60_000,
    )
    .option('--list-devices', 'list the network block devices of this host, and exit')
    .option('--listen <[host:]port>', 'serve NBD clients over TCP, too', parseListenAddress)
    .option('--user <name>', 'the user to log in as at the servers', parseText('The user'))
    .option('--password-file <path>', "a file whose first line is the user's password")
    .option('--ca-file <path>', 'the authorities to trust for https, in PEM format')
    .option('--request-timeout <time>', 'how long one attempt at one server may take', parseDuration, 3000)
    .option('--io-timeout <time>', 'how long a request is tried before it fails', parseDuration, 30_000)
    .addOption(
      new Option('--cache <mode>', 'when a write is answered: when it is durable, or when a server has it')
        .choices(['writethrough', 'writeback'])
        .default('writethrough'),
    )
    .option('--cache-size <bytes>', 'write-back: how much is kept until it is durable', parseSize, 32 * 1024 * 1024)
    .option('--no-refusal-proof', 'a refused connection does not prove that a server is gone (virtual addresses)')
    .option('-v, --verbose', 'log each client', false);
  showTimesAsSeconds(command);
  return parseCommandLine(command, args, () => read(command.opts<RawOptions>()));
}

/** The defaults are kept in milliseconds and shown as they are written. */
function showTimesAsSeconds(command: Command): void {
  for (const option of command.options) {
    if (option.attributeName().endsWith('Timeout'))
      option.default(option.defaultValue, `${Number(option.defaultValue) / 1000}s`);
    if (option.attributeName() === 'cacheSize')
      option.default(option.defaultValue, `${Number(option.defaultValue) / 2 ** 20}M`);
  }
}

function read(raw: RawOptions): NbdServerOptions {
  if (raw.requestTimeout >= raw.ioTimeout) {
    throw new InvalidArgumentError(
      '--request-timeout must be shorter than --io-timeout, so that a second server can be tried.',
    );
  }
  const parsed = parseUrls(raw.urls, credentials(raw));
  return {
    socketPath: raw.socketPath,
    name: raw.nbdName,
    servers: parsed.map(({ target }) => target),
    warnings: parsed.flatMap(({ warning }) => warning ?? []),
    deviceSizeBytes: raw.deviceSize,
    readOnly: raw.readOnly,
    attach: raw.attach,
    deviceIndex: raw.device,
    connections: raw.connections,
    deadTimeoutMs: raw.deadTimeout,
    listen: raw.listen,
    ca: raw.caFile === undefined ? undefined : readAuthorities(raw.caFile),
    requestTimeoutMs: raw.requestTimeout,
    ioTimeoutMs: raw.ioTimeout,
    writeBack: raw.cache === 'writeback' ? { budgetBytes: raw.cacheSize } : undefined,
    refusalProvesDeath: raw.refusalProof,
    verbose: raw.verbose,
  };
}

function parseUrls(text: string, user: Credentials | undefined): ReturnType<typeof parseServerUrl>[] {
  const urls = text.split(',').map((url) => url.trim());
  if (urls.some((url) => url === '')) {
    throw new InvalidArgumentError('--urls is a list as http://host-a:8000,http://host-b:8000, without empty places.');
  }
  return urls.map((url) => {
    try {
      return parseServerUrl(url, user);
    } catch (error) {
      // The list may have been cut in the middle of a password: then a part must not be quoted.
      const message = text.includes('@')
        ? 'a URL cannot be read; a comma in a user or password is written %2C'
        : asFailure(error).message;
      throw new InvalidArgumentError(`--urls: ${message}.`);
    }
  });
}

function credentials({ user, passwordFile }: RawOptions): Credentials | undefined {
  if (user === undefined && passwordFile === undefined) return undefined;
  if (user === undefined || passwordFile === undefined) {
    throw new InvalidArgumentError('--user and --password-file go together.');
  }
  if (user.includes(':')) throw new InvalidArgumentError('--user must not contain a colon (RFC 7617).');
  const password = readOptionFile('--password-file', passwordFile).split(/\r?\n/, 1)[0] ?? '';
  return { user, password };
}

function readAuthorities(path: string): string {
  const text = readOptionFile('--ca-file', path);
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new InvalidArgumentError(`--ca-file: \`${path}\` holds no certificate in PEM format.`);
}

function readOptionFile(option: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new InvalidArgumentError(`${option}: \`${path}\` cannot be read (${code ?? 'unknown error'}).`);
  }
}

const connectionsMax = 4;

/** More than there are processors are of no use to the kernel. */
function defaultConnections(): number {
  return Math.min(connectionsMax, availableParallelism());
}

/** No client could connect to a longer one. */
function parseSocketPath(text: string): string {
  const path = parseText('The path')(text);
  const bytes = Buffer.byteLength(path);
  if (bytes <= unixPathBytesMax) return path;
  throw new InvalidArgumentError(
    `The path of a unix socket has at most ${unixPathBytesMax} bytes, this one ${bytes}: start it in a folder nearby.`,
  );
}

function parseDevice(text: string): number {
  const index = /^(?:\/dev\/)?nbd(\d{1,5})$/.exec(text)?.[1];
  if (index !== undefined) return Number(index);
  throw new InvalidArgumentError('A device is written as /dev/nbd0.');
}

function parseDeadTimeout(text: string): number {
  const ms = parseDuration(text);
  if (ms >= 1000) return ms;
  throw new InvalidArgumentError('The kernel counts whole seconds: at least 1s.');
}

/** It becomes part of file names and of a line of the log. */
function parseName(text: string): string {
  if (/^[A-Za-z0-9_.:@-]{1,64}$/.test(text) && !/^\.+$/.test(text)) return text;
  throw new InvalidArgumentError('A name has 1 to 64 of the characters A-Z a-z 0-9 _ . : @ and -.');
}
