/**
 * A pool of three hosts that is upgraded one host at a time, while each of them writes its own sector of a 4 MiB disk, as the heartbeat of
 * high availability does. The disk is served by one host at a time, which changes. Old programs are stand-ins (test/support/).
 * Promise: a host always reads back what it wrote last, and of the others nothing older than what they had written before.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NbdClient } from '../../demo/nbd-client.js';
import { type Kind, MixedHost } from '../support/mixed-host.js';
import { OldGateway } from '../support/old-gateway.js';
import { temporaryFolder } from '../support/processes.js';
import { startGateway } from '../support/stack.js';

const diskBytes = 4 * 2 ** 20;
const sectorBytes = 512;
/** Sectors of different hosts are neighbours. */
const firstSector = 2048;
const beatPauseMs = 20;
const beatsWaitMs = 60_000;
const hosts = [0, 1, 2] as const;
/**
 * An old server is kept waiting so long by each write of an old gateway; really it is a second. Time-outs come late: what an old gateway
 * gives up may be written after all, and nobody promises otherwise.
 */
const oldGateway = { continueWaitMs: 100, requestTimeoutMs: 30_000 };

interface SectorClient {
  read(offset: number, length: number): Promise<Buffer>;
  write(offset: number, bytes: Buffer): Promise<void>;
}

/** sector = 64 × unit · unit = host u32 · value u32 */
function sectorOf(host: number, value: number): Buffer {
  const sector = Buffer.alloc(sectorBytes);
  if (value === 0) return sector;
  for (let at = 0; at < sectorBytes; at += 8) {
    sector.writeUInt32LE(host, at);
    sector.writeUInt32LE(value, at + 4);
  }
  return sector;
}

function valueIn(sector: Buffer, host: number): number {
  const value = sector.readUInt32LE(4);
  assert.ok(sectorOf(host, value).equals(sector), `the sector of host ${host} is torn or not its own`);
  return value;
}

/** Every host's heartbeat, and what each may find. */
class Pool {
  /** Of each host: what it has begun to write last, and what was acknowledged last. */
  readonly issued = hosts.map(() => 0);
  readonly acknowledged = hosts.map(() => 0);
  readonly errors = hosts.map(() => 0);
  readonly #beating: { stop: boolean; readonly end: Promise<void> }[] = [];
  #failure: Error | undefined;

  /** The host beats through this client until {@link stop}. `tolerant`: an error is tried again, as an old gateway returns them. */
  start(host: number, client: SectorClient, tolerant: boolean): void {
    const control = { stop: false };
    const beat = async (): Promise<void> => {
      while (!control.stop && this.#failure === undefined) {
        try {
          await this.#beat(host, client);
        } catch (error) {
          if (!tolerant || error instanceof assert.AssertionError) this.#failure = error as Error;
          else this.errors[host] = (this.errors[host] ?? 0) + 1;
        }
        await delay(beatPauseMs);
      }
    };
    this.#beating[host] = Object.assign(control, { end: beat() });
  }

  async stop(host: number): Promise<void> {
    const beating = this.#beating[host];
    if (beating === undefined) return;
    beating.stop = true;
    await beating.end;
  }

  /** Each host has written so many more values. */
  async beats(count: number): Promise<void> {
    const goals = this.acknowledged.map((value) => value + count);
    const deadlineMs = performance.now() + beatsWaitMs;
    while (this.#failure === undefined && goals.some((goal, host) => (this.acknowledged[host] ?? 0) < goal)) {
      assert.ok(
        performance.now() < deadlineMs,
        `the pool stands still: ${this.acknowledged.join()} of ${goals.join()}`,
      );
      await delay(beatPauseMs);
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #beat(host: number, client: SectorClient): Promise<void> {
    const value = (this.acknowledged[host] ?? 0) + 1;
    this.issued[host] = value;
    await client.write((firstSector + host) * sectorBytes, sectorOf(host, value));
    this.acknowledged[host] = value;
    const before = [...this.acknowledged];
    const sectors = await client.read(firstSector * sectorBytes, hosts.length * sectorBytes);
    this.check(sectors, before, `as host ${host} reads it`);
  }

  check(sectors: Buffer, before: readonly number[], what: string): void {
    for (const host of hosts) {
      const value = valueIn(sectors.subarray(host * sectorBytes, (host + 1) * sectorBytes), host);
      const [least = 0, most = 0] = [before[host], this.issued[host]];
      assert.ok(value >= least && value <= most, `host ${host}, ${what}: ${value} is not between ${least} and ${most}`);
    }
  }
}

test('a pool of three is upgraded one host at a time: every host finds what it wrote last, all the way', async (t) => {
  const disk = join(temporaryFolder(t), 'statefile');
  writeFileSync(disk, Buffer.alloc(diskBytes));
  const pool = new Pool();
  const places = await Promise.all(hosts.map(() => MixedHost.on(t, disk)));
  const urls = places.map(({ url }) => url);
  const place = (host: number): MixedHost => places[host] as MixedHost;

  const beatOld = async (host: number): Promise<void> => {
    pool.start(host, await OldGateway.open(t, urls, oldGateway), true);
  };
  const upgrade = async (host: number): Promise<void> => {
    await pool.stop(host);
    pool.start(host, await ourClient(t, urls), false);
    await pool.beats(10);
  };
  /** As the storage manager does it: the disk has one server, which ends before the next one starts. */
  const move = async (from: number, signal: 'SIGTERM' | 'SIGKILL', to: number, kind: Kind): Promise<void> => {
    await place(from).stop(signal);
    await place(to).start(kind);
    await pool.beats(10);
  };

  await place(0).start('old');
  for (const host of hosts) await beatOld(host);
  await pool.beats(5);

  await upgrade(1);
  await move(0, 'SIGKILL', 1, 'ours');
  await move(1, 'SIGKILL', 2, 'old');
  await move(2, 'SIGKILL', 1, 'ours');
  await upgrade(0);
  await move(1, 'SIGTERM', 0, 'ours');
  await move(0, 'SIGKILL', 2, 'old');
  await upgrade(2);
  await move(2, 'SIGKILL', 2, 'ours');
  await move(2, 'SIGTERM', 0, 'ours');

  for (const host of hosts) await pool.stop(host);
  const sectors = readFileSync(disk).subarray(firstSector * sectorBytes, (firstSector + hosts.length) * sectorBytes);
  pool.check(sectors, pool.acknowledged, 'on the disk at the end');
  t.diagnostic(`${pool.acknowledged.join(', ')} sectors written, ${pool.errors.join(', ')} errors from old gateways`);
});

async function ourClient(t: TestContext, urls: readonly string[]): Promise<SectorClient> {
  const { socketPath } = await startGateway(t, urls, ['--device-size', '4M']);
  const client = await NbdClient.connect(socketPath);
  t.after(() => client.close());
  return client;
}
