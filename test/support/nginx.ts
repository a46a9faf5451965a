/** nginx as a plain web server, in the foreground, with everything it writes in a temporary folder. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Cleanup, freePort, type RunningProgram, startCommand, temporaryFolder } from './processes.js';
import { untilListening } from './stack.js';

export interface Nginx {
  readonly port: number;
  readonly program: RunningProgram;
  /** The request lines that it has logged, as `GET /disk.img HTTP/1.1`. */
  requestLines(): string[];
}

export interface NginxOptions {
  /** More configuration for the `server` block. */
  readonly extra?: string;
  readonly tls?: { readonly key: string; readonly certificate: string };
}

/** Serves the files of `root` on 127.0.0.1. */
export async function startNginx(t: Cleanup, root: string, { extra = '', tls }: NginxOptions = {}): Promise<Nginx> {
  const folder = temporaryFolder(t);
  const port = await freePort();
  mkdirSync(join(folder, 'logs'));
  const config = join(folder, 'nginx.conf');
  const log = join(folder, 'access.log');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join(' ');
  const secure = tls === undefined ? '' : `ssl_certificate ${tls.certificate}; ssl_certificate_key ${tls.key};`;
  writeFileSync(
    config,
    `${process.getuid?.() === 0 ? 'user root;' : ''} daemon off; worker_processes 1; error_log stderr;
pid ${join(folder, 'nginx.pid')};
events { worker_connections 64; }
http { log_format line '$request'; access_log ${log} line; ${temporary}
  server { listen 127.0.0.1:${port} ${tls === undefined ? '' : 'ssl'}; ${secure} root ${root}; ${extra} } }
`,
  );
  const program = startCommand(t, 'nginx', ['-p', folder, '-c', config, '-e', 'stderr'], { ownGroup: true });
  await untilListening({ host: '127.0.0.1', port }, program);
  return { port, program, requestLines: () => readFileSync(log, 'utf8').split('\n') };
}
