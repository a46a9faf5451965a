/** How long a failover takes: figures for docs/, no test. Default time-outs, two servers on one file, one request at a time. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NbdClient } from '../../demo/nbd-client.js';
import { type Cleanup, type RunningProgram, temporaryFolder } from '../support/processes.js';
import { type DiskServer, type Gateway, resume, startDiskServer, startGateway } from '../support/stack.js';
import { blockBytes, stampBlock } from '../support/stamped-block.js';

const blocks = 64;
const killsEach = 10;
const hangsEach = 3;

type Request = (client: NbdClient) => Promise<unknown>;

const requests: Readonly<Record<'read' | 'write', Request>> = {
  read: (client) => client.read(0, blockBytes),
  write: (client) => client.write(0, stampBlock(0, 1)),
};

/** A table, a line each. */
export async function measureFailover(t: Cleanup): Promise<string[]> {
  const lines = [line('', 'median', 'longest')];
  for (const mode of ['writethrough', 'writeback'] as const) {
    const bench = await Bench.start(t, ['--cache', mode]);
    for (const name of ['read', 'write'] as const) {
      const request = requests[name];
      const times: [what: string, count: number, measure: () => Promise<number>][] = [
        [`${mode}: ${name}, nothing happens`, 100, () => bench.time(() => {}, request)],
        [`${mode}: server killed, then ${name}`, killsEach, () => bench.timeKill('before', request)],
        [`${mode}: server killed during ${name}`, killsEach, () => bench.timeKill('during', request)],
        [`${mode}: server hung, then ${name}`, hangsEach, () => bench.timeHang(request)],
      ];
      for (const [what, count, measure] of times) {
        const all: number[] = [];
        for (let index = 0; index < count; index++) all.push(await measure());
        all.sort((a, b) => a - b);
        lines.push(line(what, show(all[Math.floor(all.length / 2)]), show(all.at(-1))));
      }
    }
  }
  return lines;
}

class Bench {
  readonly #t: Cleanup;
  readonly #disk: string;
  readonly #servers: DiskServer[];
  readonly #gateway: Gateway;
  readonly #client: NbdClient;

  private constructor(t: Cleanup, disk: string, servers: DiskServer[], gateway: Gateway, client: NbdClient) {
    this.#t = t;
    this.#disk = disk;
    this.#servers = servers;
    this.#gateway = gateway;
    this.#client = client;
  }

  static async start(t: Cleanup, options: readonly string[]): Promise<Bench> {
    const disk = join(temporaryFolder(t), 'disk.img');
    writeFileSync(disk, Buffer.alloc(blocks * blockBytes));
    const servers = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
    const gateway = await startGateway(
      t,
      servers.map(({ url }) => url),
      options,
    );
    const client = await NbdClient.connect(gateway.socketPath);
    t.after(() => client.close());
    return new Bench(t, disk, servers, gateway, client);
  }

  /** From just before `happen` to the answer of a request that is sent right after it. Milliseconds. */
  async time(happen: () => void, request: Request): Promise<number> {
    const startMs = performance.now();
    happen();
    await request(this.#client);
    return performance.now() - startMs;
  }

  async timeKill(when: 'before' | 'during', request: Request): Promise<number> {
    await this.#warmUp();
    const used = this.#inUse();
    const { program } = this.#servers[used] as DiskServer;
    const ms = await (when === 'before'
      ? this.time(() => program.signal('SIGKILL'), request)
      : this.#timeDuring(program, request));
    await program.exited;
    await this.#restart(used);
    return ms;
  }

  async #restart(server: number): Promise<void> {
    this.#servers[server] = await startDiskServer(this.#t, this.#disk, [], this.#servers[server]?.port);
  }

  /** The request is on its way when the server dies. It may have been answered even so. */
  async #timeDuring(program: RunningProgram, request: Request): Promise<number> {
    program.signal('SIGSTOP');
    const answered = request(this.#client);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const startMs = performance.now();
    program.signal('SIGKILL');
    await answered;
    return performance.now() - startMs;
  }

  async timeHang(request: Request): Promise<number> {
    await this.#warmUp();
    const used = this.#inUse();
    const server = this.#servers[used] as DiskServer;
    const ms = await this.time(() => server.program.signal('SIGSTOP'), request);
    if ((await resume(server)) === 'was ended') await this.#restart(used);
    return ms;
  }

  async #warmUp(): Promise<void> {
    for (let count = 0; count < 10; count++) {
      await requests.read(this.#client);
      await requests.write(this.#client);
    }
    await this.#client.flush();
  }

  #inUse(): number {
    const selected = this.#gateway.program.lines('stdout').findLast((text) => text.includes('Selected server: '));
    return this.#servers.findIndex(({ url }) => selected?.includes(url));
  }
}

function show(ms: number | undefined): string {
  return ms === undefined ? '' : `${ms.toFixed(1)} ms`;
}

function line(what: string, median: string, longest: string): string {
  return `${what.padEnd(45)}${median.padStart(12)}${longest.padStart(12)}`;
}
