/** The programs as the cases start them inside the virtual machine: from bin/, as a user does. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CaseContext } from './cases.js';
import { run } from './commands.js';

export const bin = fileURLToPath(new URL('../../../../bin/', import.meta.url));
export const mebibyte = 1024 * 1024;

/** Everything is many times slower in the machine. */
const waitMs = 120_000;

export class Program {
  readonly child: ChildProcess;
  output = '';
  #waiting: (() => void)[] = [];
  /** The process's exit code or signal. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** Nobody has its streams open any more, successors included. */
  readonly closed: Promise<void>;

  /** One of ours, from bin/, in a process group of its own. */
  static start(name: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}): Program {
    const options = { env: { ...process.env, ...environment }, cwd: environment['PWD'], detached: true };
    return Program.of(spawn(join(bin, name), args, { stdio: ['ignore', 'pipe', 'pipe'], ...options }));
  }

  static of(child: ChildProcess): Program {
    return new Program(child);
  }

  private constructor(child: ChildProcess) {
    this.child = child;
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
        this.#wake();
      });
    }
    this.closed = new Promise((resolve) => void this.child.on('close', () => resolve()));
    this.ended = new Promise((resolve) => {
      this.child.on('exit', (code, signal) => {
        resolve(code ?? signal ?? 'SIGKILL');
        this.#wake();
      });
    });
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Resolves with the first line that matches; rejects when the program ends without, or takes too long. */
  async line(pattern: RegExp, limitMs = waitMs): Promise<RegExpExecArray> {
    const endMs = performance.now() + limitMs;
    for (;;) {
      for (const line of this.output.split('\n')) {
        const match = pattern.exec(line);
        if (match !== null) return match;
      }
      if (!this.isRunning || performance.now() > endMs) throw new Error(`no line ${pattern} in:\n${this.output}`);
      await this.#change(endMs - performance.now());
    }
  }

  /** The `count`th match in the output so far or to come, also of successors that write to the same streams. */
  async nth(pattern: RegExp, count: number, limitMs = waitMs): Promise<RegExpExecArray> {
    const endMs = performance.now() + limitMs;
    const global = new RegExp(pattern, 'g');
    for (;;) {
      const match = [...this.output.matchAll(global)][count - 1];
      if (match !== undefined) return match;
      if (performance.now() > endMs) throw new Error(`no ${count} times ${pattern} in:\n${this.output}`);
      await this.#change(endMs - performance.now());
    }
  }

  /** SIGTERM, and the exit code. */
  stop(): Promise<number | NodeJS.Signals> {
    this.child.kill('SIGTERM');
    return this.ended;
  }

  kill(): Promise<number | NodeJS.Signals> {
    this.child.kill('SIGKILL');
    return this.ended;
  }

  /** To every process of its group, which `child` must have been started with. Those that have ended are no error. */
  signalGroup(signal: NodeJS.Signals): void {
    try {
      if (this.child.pid !== undefined) process.kill(-this.child.pid, signal);
    } catch {
      // The whole group has ended.
    }
  }

  #change(limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, limitMs);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export function temporaryFolder(context: CaseContext): string {
  const folder = mkdtempSync('/dev/shm/case-');
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function diskImage(context: CaseContext, sizeBytes: number): string {
  const path = join(temporaryFolder(context), 'disk.img');
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  return path;
}

let nextPort = 18_000;

export interface Server {
  readonly program: Program;
  readonly port: number;
  readonly url: string;
}

export interface ServerOptions {
  readonly port?: number;
  readonly args?: readonly string[];
  /** Added to the environment; PWD is the folder that it runs in. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** An http-disk-server that is ready. */
export async function startServer(context: CaseContext, disk: string, options: ServerOptions = {}): Promise<Server> {
  const port = options.port ?? nextPort++;
  const args = ['--disk', disk, '--ip', '127.0.0.1', '--port', String(port), ...(options.args ?? [])];
  const program = Program.start('http-disk-server', args, options.environment);
  context.after(() => program.kill());
  await program.line(/Server ready!$/);
  return { program, port, url: `http://127.0.0.1:${port}` };
}

export interface Gateway {
  readonly program: Program;
  /** /dev/nbdN */
  readonly device: string;
  readonly name: string;
  readonly socketPath: string;
}

let nextName = 0;

export interface GatewayOptions {
  readonly name?: string;
  readonly socketPath?: string;
  readonly args?: readonly string[];
}

/** The program alone: what it attaches is taken away at the end of the case. */
export function launchGateway(context: CaseContext, urls: readonly string[], options: GatewayOptions = {}) {
  const name = options.name ?? `case-${nextName++}`;
  const socketPath = options.socketPath ?? join(temporaryFolder(context), 'socket');
  const args = ['--socket-path', socketPath, '--nbd-name', name, '--urls', urls.join(','), ...(options.args ?? [])];
  const program = Program.start('nbd-server', args);
  context.after(async () => {
    await program.stop();
    // A successor that it handed over to.
    const pidFile = `/run/nbd-${name}.pid`;
    if (!existsSync(pidFile)) return;
    try {
      process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGTERM');
    } catch {
      // It was killed, and nobody came after it.
      rmSync(pidFile);
    }
  });
  return { program, name, socketPath };
}

/** An nbd-server whose device is attached. */
export async function startGateway(
  context: CaseContext,
  urls: readonly string[],
  options: GatewayOptions = {},
): Promise<Gateway> {
  const launched = launchGateway(context, urls, options);
  const [, device = ''] = await launched.program.line(/NBD `(\/dev\/nbd\d+)` is now attached\.$/);
  return { ...launched, device };
}

/** What is left of a volume: nothing, if all is well. */
export function leftovers({ name, socketPath, device }: Omit<Gateway, 'program'>): string[] {
  const sys = `/sys/block/${device.replace('/dev/', '')}`;
  return [`${sys}/pid`, `${sys}/backend`, socketPath, `/run/nbd-${name}.pid`, `/run/nbd-${name}.state`].filter(
    existsSync,
  );
}

export function queueSetting(device: string, name: string): string {
  return readFileSync(`/sys/block/${device.replace('/dev/', '')}/queue/${name}`, 'utf8').trim();
}

export function listDevices(): string {
  return execFileSync(join(bin, 'nbd-server'), ['--list-devices'], { encoding: 'utf8' });
}

/** The process that serves the volume now. */
export function pidOf({ name }: Gateway): number {
  return Number(readFileSync(`/run/nbd-${name}.pid`, 'utf8'));
}

/** Waits until something holds, and shows in no output of a program. */
export async function until(what: string, holds: () => boolean, limitMs = waitMs): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Reads or writes blocks of the device past the page cache; resolves or rejects as `dd` does. */
export function readDevice(device: string, blocks = 4): Promise<string> {
  return run('dd', [`if=${device}`, 'of=/dev/null', 'bs=4k', `count=${blocks}`, 'iflag=direct', 'status=none']);
}

export function writeDevice(device: string, blocks = 4): Promise<string> {
  return run('dd', ['if=/dev/zero', `of=${device}`, 'bs=4k', `count=${blocks}`, 'oflag=direct', 'status=none']);
}

/** Without opening it: the kernel would look for partitions, and wait for a server. */
export function sizeOf(device: string): number {
  return 512 * Number(readFileSync(`/sys/block/${device.replace('/dev/', '')}/size`, 'utf8'));
}
