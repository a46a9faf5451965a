/**
 * Our two programs, started together on ephemeral ports and temporary files.
 * Promise: when a helper resolves, the program answers; when the test is over, it is gone.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { createReadStream, writeFileSync } from 'node:fs';
import { connect, type NetConnectOpts } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Cleanup, freePort, type RunningProgram, startProgram, temporaryFolder } from './processes.js';

const listenMs = 15_000;
const pollMs = 10;

export interface DiskServer {
  readonly url: string;
  readonly port: number;
  readonly program: RunningProgram;
}

export interface Gateway {
  readonly socketPath: string;
  /** For libnbd's and QEMU's programs. */
  readonly uri: string;
  readonly program: RunningProgram;
}

/** Starts http-disk-server on 127.0.0.1. `port`: to come back on the port of a predecessor. */
export async function startDiskServer(
  t: Cleanup,
  disk: string,
  options: readonly string[] = [],
  port?: number,
): Promise<DiskServer> {
  const used = port ?? (await freePort());
  const args = ['--disk', disk, '--ip', '127.0.0.1', '--port', String(used), ...options];
  const program = startProgram(t, 'http-disk-server', args);
  await program.line('stderr', /Server ready!$/);
  await untilListening({ host: '127.0.0.1', port: used });
  return { url: `http://127.0.0.1:${used}`, port: used, program };
}

/** Starts nbd-server with `--no-attach`, and waits until its socket accepts. */
export async function startGateway(
  t: Cleanup,
  urls: readonly string[],
  options: readonly string[] = [],
): Promise<Gateway> {
  const socketPath = join(temporaryFolder(t), 'socket');
  const name = `test-${process.pid}-${names++}`;
  const args = ['--no-attach', '--socket-path', socketPath, '--nbd-name', name, '--urls', urls.join(','), ...options];
  const program = startProgram(t, 'nbd-server', args);
  await untilListening({ path: socketPath }, program);
  return { socketPath, uri: `nbd+unix:///?socket=${socketPath}`, program };
}

/** The server that the gateway said last that it uses. */
export function serverInUse(gateway: Gateway, servers: readonly DiskServer[]): DiskServer {
  const selected = gateway.program.lines('stdout').findLast((line) => line.includes('Selected server: '));
  const server = servers.find(({ url }) => selected?.includes(`\`${url}`));
  if (server === undefined) throw new Error(`no server was selected\n${gateway.program.report()}`);
  return server;
}

/**
 * SIGCONT to a server that was stopped. Resolves when it answers again, or when it turns out that the kernel has ended it meanwhile (rule S8
 * of the failover protocol): then it is to be started again. Rejects when it ended in any other way.
 */
export async function resume({ program, url }: DiskServer): Promise<'goes on' | 'was ended'> {
  program.signal('SIGCONT');
  const answered = fetch(url, { method: 'HEAD' }).then(
    () => undefined,
    () => program.end(),
  );
  const exit = await Promise.race([program.exited, answered]);
  if (exit === undefined) return 'goes on';
  if (exit.signal === 'SIGKILL') return 'was ended';
  throw new Error(`it ended by itself\n${program.report()}`);
}

let names = 0;

/** Waits until somebody accepts connections there; fails when `program` ends first. */
export async function untilListening(endpoint: NetConnectOpts, program?: RunningProgram): Promise<void> {
  const deadlineMs = performance.now() + listenMs;
  while (!(await accepts(endpoint))) {
    if (program?.isRunning === false) throw new Error(`it ended before it listened\n${program.report()}`);
    if (performance.now() > deadlineMs)
      throw new Error(`nobody listens after ${listenMs} ms\n${program?.report() ?? ''}`);
    await delay(pollMs);
  }
}

export function accepts(endpoint: NetConnectOpts): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(endpoint);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** The same bytes for the same seed, incompressible. */
export function seededBytes(seed: number, length: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32BE(seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** A file with seeded bytes in a temporary folder. */
export function seededFile(t: Cleanup, seed: number, length: number, name = 'disk.img'): string {
  const path = join(temporaryFolder(t), name);
  writeFileSync(path, seededBytes(seed, length));
  return path;
}

/** SHA-256 of a file, in hexadecimal. */
export async function checksum(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
