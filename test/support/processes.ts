/**
 * Real programs in tests. Promise: every process that was started here is dead when its test is over, killed by its own
 * pid; waiting is for a condition, and what the program wrote so far stands in the error when it does not come true.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout: compiled tests lie in dist/test/. */
export const projectRoot = fileURLToPath(new URL('../../../', import.meta.url));

/** What is needed of a test's context, or of `node:test` itself (then it is cleaned up after the whole file). */
export interface Cleanup {
  after(run: () => void | Promise<void>): void;
}

export type Stream = 'stdout' | 'stderr';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface StartOptions {
  readonly cwd?: string;
  /** Added to the environment of the test. */
  readonly env?: Record<string, string>;
  /** In a process group of its own: `signalGroup` then reaches all of it. */
  readonly ownGroup?: boolean;
}

interface Waiter {
  readonly check: () => boolean;
  readonly fail: (why: string) => void;
}

const lineTimeoutMs = 15_000;
const outputBytesMax = 16 * 1024 * 1024;

export class RunningProgram {
  readonly name: string;
  readonly exited: Promise<Exit>;
  readonly startedMs = performance.now();
  readonly #child: ChildProcess;
  readonly #ownGroup: boolean;
  readonly #output: Record<Stream, string> = { stdout: '', stderr: '' };
  readonly #waiters = new Set<Waiter>();
  #exit: Exit | undefined;

  constructor(command: string, args: readonly string[], options: StartOptions = {}) {
    this.name = command;
    this.#ownGroup = options.ownGroup === true;
    this.#child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      detached: this.#ownGroup,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.#collect('stdout');
    this.#collect('stderr');
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', (error) => {
        this.#failAll(error.message);
        reject(error);
      });
      // `close` comes when both streams have ended too.
      this.#child.once('close', (code, signal) => {
        this.#exit = { code, signal };
        this.#advance();
        this.#failAll(`it ended with ${code ?? signal}`);
        resolve(this.#exit);
      });
    });
    this.exited.catch(() => {});
  }

  get pid(): number {
    const pid = this.#child.pid;
    if (pid === undefined) throw new Error(`${this.name} was not started`);
    return pid;
  }

  get stdout(): string {
    return this.#output.stdout;
  }

  get stderr(): string {
    return this.#output.stderr;
  }

  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  lines(stream: Stream): string[] {
    return this.#output[stream].split('\n').filter((line) => line !== '');
  }

  /** The first whole line of `stream`, written already or still to come, that matches. */
  line(stream: Stream, pattern: RegExp | string, timeoutMs = lineTimeoutMs): Promise<string> {
    const matches = (line: string) => (typeof pattern === 'string' ? line.includes(pattern) : pattern.test(line));
    const find = () => this.#output[stream].split('\n').slice(0, -1).find(matches);
    return this.#wait(`a line ${String(pattern)} on ${stream}`, find, timeoutMs);
  }

  /** Resolves when `found` gives something; it is asked after each output. */
  #wait<Found>(what: string, found: () => Found | undefined, timeoutMs: number): Promise<Found> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        clearTimeout(timeout);
        this.#waiters.delete(waiter);
        act();
      };
      const waiter: Waiter = {
        check: () => {
          const value = found();
          if (value !== undefined) settle(() => resolve(value));
          return value !== undefined;
        },
        fail: (why) => settle(() => reject(new Error(`no ${what}: ${why}\n${this.report()}`))),
      };
      const timeout = setTimeout(() => waiter.fail(`not within ${timeoutMs} ms`), timeoutMs);
      this.#waiters.add(waiter);
      if (!waiter.check() && !this.isRunning) waiter.fail('it has ended');
    });
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) process.kill(this.pid, signal);
  }

  /** To every process of its group; started with `ownGroup`. */
  signalGroup(signal: NodeJS.Signals): void {
    if (!this.#ownGroup) throw new Error('started without a process group of its own');
    process.kill(-this.pid, signal);
  }

  /** SIGTERM, and its end. */
  async stop(timeoutMs = lineTimeoutMs): Promise<Exit> {
    this.signal('SIGTERM');
    return this.end(timeoutMs);
  }

  /** How it ended; rejects when it is still there after `timeoutMs`. */
  end(timeoutMs = lineTimeoutMs): Promise<Exit> {
    return this.#wait('end', () => this.#exit, timeoutMs);
  }

  /** SIGKILL, to the whole group where it has one, and its end. */
  async kill(): Promise<void> {
    try {
      process.kill(this.#ownGroup ? -this.pid : this.pid, 'SIGKILL');
    } catch {
      // It is gone already.
    }
    await this.exited.catch(() => {});
  }

  /** Everything that it wrote so far. */
  report(): string {
    return `--- ${this.name} stdout\n${this.stdout}--- ${this.name} stderr\n${this.stderr}---`;
  }

  #collect(stream: Stream): void {
    const source = this.#child[stream];
    source?.setEncoding('utf8');
    source?.on('data', (text: string) => {
      this.#output[stream] = (this.#output[stream] + text).slice(-outputBytesMax);
      this.#advance();
    });
  }

  #advance(): void {
    for (const waiter of this.#waiters) waiter.check();
  }

  #failAll(why: string): void {
    for (const waiter of this.#waiters) waiter.fail(why);
  }
}

/** Starts any command; it is killed when the test is over. */
export function startCommand(
  context: Cleanup,
  command: string,
  args: readonly string[],
  options: StartOptions = {},
): RunningProgram {
  const program = new RunningProgram(command, args, options);
  context.after(() => program.kill());
  return program;
}

/** Starts one of our own programs, by its name in bin/. */
export function startProgram(
  context: Cleanup,
  program: 'http-disk-server' | 'nbd-server' | 'nbd-http-server',
  args: readonly string[],
  options: StartOptions = {},
): RunningProgram {
  return startCommand(context, join(projectRoot, 'bin', program), args, options);
}

/** A folder that is gone when the test is over. */
export function temporaryFolder(context: Cleanup, parent = tmpdir()): string {
  const folder = mkdtempSync(join(parent, 'http-nbd-transfer-'));
  context.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** A TCP port of 127.0.0.1 that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port);
        else reject(new Error('no port'));
      });
    });
  });
}
