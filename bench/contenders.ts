/**
 * Who is measured: our two programs, and pairs of well-known ones that do the same. Each gets the same image file, and
 * fresh processes for each measurement. Promise: a contender that cannot run here says why instead of being left out.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort, start, type Started } from './process.js';

interface Role {
  /** What the process does, and its program: `gateway nbd-server`. */
  readonly name: string;
  readonly process: Started;
}

export interface Setup {
  /** What fio connects to. */
  readonly uri: string;
  readonly roles: readonly Role[];
}

export interface Contender {
  readonly name: string;
  /** How many hops the data takes, and over what: one line for the table's legend. */
  readonly description: string;
  readonly ours: boolean;
  readonly readOnly: boolean;
  /** Undefined: it can run. Otherwise what is missing. */
  readonly missing: string | undefined;
  /** `folder` is empty and belongs to this run. */
  start(image: string, folder: string): Promise<Setup>;
}

const root = join(import.meta.dirname, '../..');
const diskServer = join(root, 'bin/http-disk-server');
const nbdServer = join(root, 'bin/nbd-server');
const sbin = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), ...sbin];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

export function contenders(): Contender[] {
  const help = existsSync(nbdServer) ? spawnSync(nbdServer, ['--help'], { encoding: 'utf8' }).stdout : '';
  const noPrograms = help === '' ? 'bin/nbd-server does not run' : undefined;
  const noCacheModes = help.includes('--cache') ? undefined : (noPrograms ?? 'nbd-server has no --cache');
  return [
    {
      name: 'ours',
      description: 'nbd-server → http-disk-server, write-through',
      ours: true,
      readOnly: false,
      missing: noPrograms,
      start: (image, folder) => startOurs(image, folder, []),
    },
    {
      name: 'ours-wb',
      description: 'nbd-server → http-disk-server, write-back',
      ours: true,
      readOnly: false,
      missing: noCacheModes,
      start: (image, folder) => startOurs(image, folder, ['--cache', 'writeback']),
    },
    {
      name: 'curl-nginx',
      description: 'nbdkit curl plugin → nginx (two hops, reads only)',
      ours: false,
      readOnly: true,
      missing: missingProgram('nbdkit', 'nginx'),
      start: startCurlNginx,
    },
    {
      name: 'nbd-nbd',
      description: 'nbdkit nbd plugin → nbdkit file plugin over TCP (two hops, native NBD)',
      ours: false,
      readOnly: false,
      missing: missingProgram('nbdkit'),
      start: startNbdNbd,
    },
    {
      name: 'nbdkit-tcp',
      description: 'nbdkit file plugin over TCP (one hop)',
      ours: false,
      readOnly: false,
      missing: missingProgram('nbdkit'),
      start: async (image) => {
        const { port, process } = await startNbdkitFile(image);
        return { uri: `nbd://127.0.0.1:${port}`, roles: [{ name: 'nbdkit', process }] };
      },
    },
    {
      name: 'qemu-nbd',
      description: 'qemu-nbd over a unix socket (one hop)',
      ours: false,
      readOnly: false,
      missing: missingProgram('qemu-nbd'),
      start: startQemuNbd,
    },
  ];
}

function missingProgram(...programs: string[]): string | undefined {
  const missing = programs.filter((program) => findProgram(program) === undefined);
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`;
}

const socketUri = (path: string): string => `nbd+unix:///?socket=${path}`;

/** Starts an http-disk-server on a free port; tells its URL. */
export async function startDiskServer(image: string): Promise<{ url: string; port: number; process: Started }> {
  const port = await freePort();
  const args = ['--disk', image, '--ip', '127.0.0.1', '--port', String(port)];
  const process = await start(diskServer, args, { host: '127.0.0.1', port });
  const url = `http://127.0.0.1:${port}`;
  // It listens before the disk is open, and answers 503 until then.
  while ((await fetch(url, { method: 'HEAD' })).status === 503) await delay(10);
  return { url, port, process };
}

async function startOurs(image: string, folder: string, options: readonly string[]): Promise<Setup> {
  const server = await startDiskServer(image);
  const path = join(folder, 'socket');
  const args = ['--no-attach', '--socket-path', path, '--nbd-name', `bench-${process.pid}`, '--urls', server.url];
  const gateway = await start(nbdServer, [...args, ...options], { path });
  return {
    uri: socketUri(path),
    roles: [
      { name: 'nbd-server', process: gateway },
      { name: 'http-disk-server', process: server.process },
    ],
  };
}

async function startCurlNginx(image: string, folder: string): Promise<Setup> {
  const port = await freePort();
  const config = join(folder, 'nginx.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join('\n');
  await writeFile(
    config,
    `${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off; worker_processes auto; pid ${join(folder, 'nginx.pid')}; error_log stderr;
events { worker_connections 256; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
  ${temporary}
  server { listen 127.0.0.1:${port}; root ${dirname(image)}; }
}
`,
  );
  await mkdir(join(folder, 'logs'), { recursive: true });
  const nginxArgs = ['-p', folder, '-c', config, '-e', 'stderr'];
  const nginx = await start(findProgram('nginx') ?? 'nginx', nginxArgs, { host: '127.0.0.1', port });
  const path = join(folder, 'socket');
  const url = `http://127.0.0.1:${port}/${basename(image)}`;
  const nbdkit = await start('nbdkit', ['-f', '-r', '-U', path, 'curl', `url=${url}`], { path });
  return {
    uri: socketUri(path),
    roles: [
      { name: 'nbdkit curl', process: nbdkit },
      { name: 'nginx', process: nginx },
    ],
  };
}

async function startNbdNbd(image: string, folder: string): Promise<Setup> {
  const server = await startNbdkitFile(image);
  const path = join(folder, 'socket');
  const nbdkit = await start('nbdkit', ['-f', '-U', path, 'nbd', `uri=nbd://127.0.0.1:${server.port}`], { path });
  return {
    uri: socketUri(path),
    roles: [
      { name: 'nbdkit nbd', process: nbdkit },
      { name: 'nbdkit file', process: server.process },
    ],
  };
}

async function startNbdkitFile(image: string): Promise<{ port: number; process: Started }> {
  const port = await freePort();
  const args = ['-f', '-i', '127.0.0.1', '-p', String(port), 'file', image];
  return { port, process: await start('nbdkit', args, { host: '127.0.0.1', port }) };
}

async function startQemuNbd(image: string, folder: string): Promise<Setup> {
  const path = join(folder, 'socket');
  await rm(path, { force: true });
  const options = ['--persistent', '--shared=8', '--cache=writeback', '--aio=threads', '--format=raw'];
  const process = await start('qemu-nbd', [...options, `--socket=${path}`, image], { path });
  return { uri: socketUri(path), roles: [{ name: 'qemu-nbd', process }] };
}
