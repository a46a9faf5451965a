/**
 * Two http-disk-servers on one file, one reached through a proxy, and nbd-server before them: everything that can happen to the
 * servers and to the network happens, again and again, under a load whose history is judged.
 * Promise: after each round every block was read through the gateway and from the file, and everything ever read is explained.
 */
import { randomInt } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NbdClient } from '../../demo/nbd-client.js';
import { type Cleanup, temporaryFolder } from '../support/processes.js';
import { RecordedLoad } from '../support/recorded-load.js';
import { blockBytes } from '../support/stamped-block.js';
import { type DiskServer, type Gateway, resume, startDiskServer, startGateway } from '../support/stack.js';
import { TcpProxy } from '../support/tcp-proxy.js';

export type CacheMode = 'writethrough' | 'writeback';

const blocks = 256;
const requestTimeoutMs = 1000;
const faultsPerRound = 6;
const answerWaitMs = 60_000;

/** How often each fault is chosen, relative to the others. */
const faults = {
  'kill -9 of the server in use': 6,
  'kill -9 of both servers': 2,
  'the server in use hangs': 2,
  'the server in use hangs and is killed': 1,
  'a moment of silence': 2,
  'orderly restart of the server in use': 1,
  'the proxy holds everything back': 2,
  'the proxy holds back what its clients have given up': 1,
  'the proxy cuts all connections': 2,
} as const;
type Fault = keyof typeof faults;

export interface FaultReport {
  readonly faults: ReadonlyMap<string, number>;
  readonly kills: number;
  /** Servers that the kernel ended when they had been stopped with writes on their way (failover rule S8). */
  readonly fenced: number;
  readonly rounds: number;
  readonly counts: RecordedLoad['counts'];
  /** Copies that were written again after a failover. */
  readonly replayedWrites: number;
}

/** Runs for `seconds`, and to the end of the round. Rejects when anything is wrong. `note`: what happens, a line each. */
export async function runFaultLoop(
  t: Cleanup,
  mode: CacheMode,
  seconds: number,
  note: (line: string) => void,
): Promise<FaultReport> {
  const loop = await FaultLoop.start(t, mode, note);
  const endMs = performance.now() + seconds * 1000;
  do await loop.round();
  while (performance.now() < endMs);
  return loop.report();
}

class FaultLoop {
  readonly #t: Cleanup;
  readonly #note: (line: string) => void;
  readonly #disk: string;
  readonly #servers: [DiskServer, DiskServer];
  /** Before the second server. */
  readonly #proxy: TcpProxy;
  readonly #gateway: Gateway;
  readonly #load: RecordedLoad;
  readonly #done = new Map<string, number>();
  #kills = 0;
  #fenced = 0;
  #rounds = 0;

  private constructor(
    t: Cleanup,
    note: (line: string) => void,
    parts: { disk: string; servers: [DiskServer, DiskServer]; proxy: TcpProxy; gateway: Gateway; load: RecordedLoad },
  ) {
    this.#t = t;
    this.#note = note;
    this.#disk = parts.disk;
    this.#servers = parts.servers;
    this.#proxy = parts.proxy;
    this.#gateway = parts.gateway;
    this.#load = parts.load;
  }

  static async start(t: Cleanup, mode: CacheMode, note: (line: string) => void): Promise<FaultLoop> {
    const disk = join(temporaryFolder(t), 'disk.img');
    writeFileSync(disk, Buffer.alloc(blocks * blockBytes));
    const servers: [DiskServer, DiskServer] = [await startDiskServer(t, disk), await startDiskServer(t, disk)];
    const proxy = await TcpProxy.start(servers[1].port);
    t.after(() => proxy.close());
    const gateway = await startGateway(
      t,
      [servers[0].url, proxy.url],
      ['--cache', mode, '--cache-size', '2M', '--request-timeout', `${requestTimeoutMs}ms`, '--io-timeout', '60s'],
    );
    const clients = await Promise.all([1, 2].map(() => NbdClient.connect(gateway.socketPath)));
    for (const client of clients) t.after(() => client.close());
    const load = new RecordedLoad(clients, {
      ...{ blocks, workers: 6, pauseMsMax: 10, answerWaitMs },
      durableWhenAnswered: mode === 'writethrough',
    });
    t.after(() => load.expectLoss());
    return new FaultLoop(t, note, { disk, servers, proxy, gateway, load });
  }

  /** Some faults, then silence, then judgement. */
  async round(): Promise<void> {
    this.#rounds += 1;
    this.#load.start();
    for (let count = 0; count < faultsPerRound; count++) {
      await this.#load.progress(randomInt(1, 100));
      const fault = choose();
      this.#done.set(fault, (this.#done.get(fault) ?? 0) + 1);
      this.#note(`${(performance.now() / 1000).toFixed(3)} s: ${fault} (in use: ${this.#inUse()})`);
      await this.#happen(fault);
    }
    await this.#load.progress(50);
    await this.#load.stop();
    await this.#load.readBack();
    this.#load.found(readFileSync(this.#disk));
    try {
      this.#load.judge();
    } catch (error) {
      throw new Error(`${String(error)}\n${this.#gateway.program.stdout}`, { cause: error });
    }
    if (randomInt(2) === 0) await this.#load.flush();
    this.#load.forget();
  }

  report(): FaultReport {
    const replays = this.#gateway.program.stdout.matchAll(/Writing (\d+) writes that are not durable/g);
    return {
      faults: this.#done,
      kills: this.#kills,
      fenced: this.#fenced,
      rounds: this.#rounds,
      counts: this.#load.counts,
      replayedWrites: [...replays].reduce((sum, [, count]) => sum + Number(count), 0),
    };
  }

  async #happen(fault: Fault): Promise<void> {
    const used = this.#inUse();
    switch (fault) {
      case 'kill -9 of the server in use':
        await this.#kill(used);
        return this.#restart(used);
      case 'kill -9 of both servers':
        await Promise.all([this.#kill(0), this.#kill(1)]);
        await this.#restart(randomInt(2) === 0 ? 0 : 1);
        for (const server of [0, 1] as const) if (!this.#servers[server].program.isRunning) await this.#restart(server);
        return;
      case 'the server in use hangs':
        this.#servers[used].program.signal('SIGSTOP');
        await this.#load.progress(60);
        return this.#resume(used);
      case 'the server in use hangs and is killed':
        this.#servers[used].program.signal('SIGSTOP');
        await this.#load.progress(20);
        this.#servers[used].program.signal('SIGCONT');
        await delay(randomInt(20));
        await this.#kill(used);
        return this.#restart(used);
      case 'a moment of silence':
        this.#servers[used].program.signal('SIGSTOP');
        await delay(randomInt(requestTimeoutMs / 4));
        return this.#resume(used);
      case 'orderly restart of the server in use':
        return this.#restartInOrder(used);
      case 'the proxy holds everything back':
        this.#proxy.change({ toServer: { held: true } });
        await delay(randomInt(4 * requestTimeoutMs));
        return this.#proxy.change({});
      case 'the proxy holds back what its clients have given up':
        this.#proxy.change({ toServer: { held: true } });
        await delay(randomInt(50));
        this.#proxy.cutClients();
        await delay(randomInt(4 * requestTimeoutMs));
        return this.#proxy.change({});
      case 'the proxy cuts all connections':
        return this.#proxy.cut();
    }
  }

  async #kill(server: 0 | 1): Promise<void> {
    this.#kills += 1;
    await this.#servers[server].program.kill();
  }

  /** A server that was stopped goes on, unless the kernel has ended it: then it is started again. */
  async #resume(server: 0 | 1): Promise<void> {
    if ((await resume(this.#servers[server])) === 'goes on') return;
    this.#fenced += 1;
    await this.#restart(server);
  }

  async #restart(server: 0 | 1): Promise<void> {
    await delay(randomInt(300));
    this.#servers[server] = await startDiskServer(this.#t, this.#disk, [], this.#servers[server].port);
  }

  async #restartInOrder(server: 0 | 1): Promise<void> {
    const stopped = this.#servers[server].program.stop();
    this.#servers[server] = await startDiskServer(this.#t, this.#disk, [], this.#servers[server].port);
    await stopped;
  }

  /** The server that the gateway said last that it uses. */
  #inUse(): 0 | 1 {
    const selected = this.#gateway.program.lines('stdout').findLast((line) => line.includes('Selected server: '));
    return selected?.includes(this.#servers[0].url) === true ? 0 : 1;
  }
}

function choose(): Fault {
  const entries = Object.entries(faults) as [Fault, number][];
  let rest = randomInt(entries.reduce((sum, [, share]) => sum + share, 0));
  for (const [fault, share] of entries) {
    rest -= share;
    if (rest < 0) return fault;
  }
  throw new Error('the shares add up to more than their sum');
}
