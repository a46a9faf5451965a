/**
 * Starts the project's own programs for the demo and shows their log. Promise: after `stopAll`, none of them is left,
 * whatever state it was in.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const stopMs = 3_000;

const running = new Set<Program>();

export class Program {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  #lineArrived: (() => void) | undefined;
  #exited = false;

  constructor(name: string, script: string, args: readonly string[], show: (line: string) => void) {
    this.name = name;
    this.#process = spawn(script, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this);
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => {
        this.#lines.push(line);
        show(`${name}: ${line}`);
        this.#lineArrived?.();
      });
    }
    const gone = (): void => {
      this.#exited = true;
      running.delete(this);
      this.#lineArrived?.();
    };
    this.#process.on('exit', gone);
    this.#process.on('error', (error) => {
      show(`${name}: ${error.message}`);
      gone();
    });
  }

  get exited(): boolean {
    return this.#exited;
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** The last line so far that `pattern` matches. */
  lastMatch(pattern: RegExp): RegExpMatchArray | undefined {
    return this.#lines.findLast((line) => pattern.test(line))?.match(pattern) ?? undefined;
  }

  /** Waits for a line that `pattern` matches; fails if the program ends first. */
  async line(pattern: RegExp): Promise<void> {
    while (this.lastMatch(pattern) === undefined) {
      if (this.#exited) throw new Error(`${this.name} ended before it printed ${pattern.source}`);
      await new Promise<void>((resolve) => {
        this.#lineArrived = resolve;
      });
    }
  }

  /** kill -9, and waits until the process is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** SIGTERM, and after a while SIGKILL. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), stopMs);
    await this.#end('SIGTERM');
    clearTimeout(timer);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (this.#exited) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill(signal);
    await exited;
  }
}

export async function stopAll(): Promise<void> {
  await Promise.all([...running].map((program) => program.stop()));
}

/** A TCP port of this machine that is free at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no TCP port');
  return address.port;
}
