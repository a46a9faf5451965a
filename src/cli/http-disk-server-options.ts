/** The command line of http-disk-server. docs/http-disk-server.md describes each option. */
import { isIP } from 'node:net';
import { Command, InvalidArgumentError } from 'commander';
import { type ParsedCommandLine, parseCommandLine, parsePort, parseText } from './options.js';

export interface HttpDiskServerOptions {
  readonly disk: string;
  /** Undefined: all addresses. */
  readonly ip?: string;
  readonly port: number;
  readonly verbose: boolean;
  readonly readOnly: boolean;
  readonly direct: boolean;
}

export function parseHttpDiskServerOptions(args: readonly string[]): ParsedCommandLine<HttpDiskServerOptions> {
  const command = new Command('http-disk-server')
    .description('Serves one disk, a regular file or a block device, over HTTP.')
    .requiredOption('--disk <path>', 'the disk: a regular file or a block device', parseText('The path'))
    .option('--ip <address>', 'the address to listen on (default: all addresses)', parseAddress)
    .option('--port <number>', 'the TCP port to listen on', parsePort, 8000)
    .option('--read-only', 'refuse every change, and open the disk read-only', false)
    .option('--direct', 'bypass the page cache (O_DIRECT), for storage that other hosts write too', false)
    .option('-v, --verbose', 'log each request', false);
  return parseCommandLine(command, args, () => command.opts<HttpDiskServerOptions>());
}

function parseAddress(text: string): string {
  const address = text.replace(/^\[(.*)\]$/, '$1');
  if (isIP(address) !== 0) return address;
  throw new InvalidArgumentError('It is an IP address of this host, for example 192.0.2.1 or ::1.');
}
