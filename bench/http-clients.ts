/**
 * The HTTP client alone: ours beside undici, in this process, reading from one http-disk-server, in turn. It answers the
 * question whether a client of our own pays.
 */
import { Pool } from 'undici';
import { systemClock } from '../src/base/clock.js';
import { HttpBackend } from '../src/http-client/http-backend.js';
import { parseServerUrl } from '../src/http-client/target.js';
import { median } from './median.js';

type Read = (offset: number, into: Buffer) => Promise<void>;

interface Client {
  readonly name: string;
  readonly read: Read;
  close(): Promise<void>;
}

export interface ClientRow {
  readonly client: string;
  readonly load: string;
  readonly readsPerSecond: number;
  /** Of this process: the client and the loop around it. */
  readonly cpuSecondsPer100k: number;
}

const loads = [
  { name: '4 KiB, depth 1', blockBytes: 4096, depth: 1 },
  { name: '4 KiB, depth 32', blockBytes: 4096, depth: 32 },
  { name: '1 MiB, depth 4', blockBytes: 2 ** 20, depth: 4 },
] as const;

export async function compareClients(
  url: string,
  sizeBytes: number,
  rounds: number,
  seconds: number,
): Promise<ClientRow[]> {
  const rows: ClientRow[] = [];
  for (const { name, blockBytes, depth } of loads) {
    const samples = new Map<string, { rate: number; cpu: number }[]>();
    for (let round = 0; round < rounds; round++) {
      for (const client of [await ownClient(url), undiciClient(url)]) {
        const sample = await drive(client.read, sizeBytes, blockBytes, depth, seconds);
        samples.set(client.name, [...(samples.get(client.name) ?? []), sample]);
        await client.close();
      }
    }
    for (const [client, taken] of samples) {
      rows.push({
        client,
        load: name,
        readsPerSecond: median(taken.map(({ rate }) => rate)),
        cpuSecondsPer100k: median(taken.map(({ cpu }) => cpu)),
      });
    }
  }
  return rows;
}

async function ownClient(url: string): Promise<Client> {
  const backend = new HttpBackend(parseServerUrl(url).target, {
    clock: systemClock,
    connectTimeoutMs: 3_000,
    environment: {},
  });
  await backend.probe();
  return {
    name: 'ours',
    read: (offset, into) =>
      new Promise((resolve, failed) => {
        const completion = { answered: () => resolve(), failed };
        backend.send({ op: 'read', offset, length: into.length }, null, into, completion);
      }),
    close: () => Promise.resolve(backend.abandon()),
  };
}

/** As fast as undici can be used: pipelining, no promise or stream for the body. */
function undiciClient(url: string): Client {
  const pool = new Pool(url, { connections: 4, pipelining: 16 });
  return {
    name: 'undici',
    read: (offset, into) =>
      new Promise((resolve, reject) => {
        let filled = 0;
        pool.dispatch(
          { method: 'GET', path: '/', headers: { range: `bytes=${offset}-${offset + into.length - 1}` } },
          {
            onRequestStart() {},
            onResponseStart(_controller, status) {
              if (status !== 206) throw new Error(`status ${status}`);
            },
            onResponseData(_controller, chunk) {
              filled += chunk.copy(into, filled);
            },
            onResponseEnd() {
              if (filled === into.length) resolve();
              else reject(new Error(`${filled} bytes of ${into.length}`));
            },
            onResponseError(_controller, error) {
              reject(error);
            },
          },
        );
      }),
    close: () => pool.close(),
  };
}

async function drive(
  read: Read,
  sizeBytes: number,
  blockBytes: number,
  depth: number,
  seconds: number,
): Promise<{ rate: number; cpu: number }> {
  const blocks = Math.floor(sizeBytes / blockBytes);
  let reads = 0;
  let endMs = performance.now() + 200;
  const worker = async (): Promise<void> => {
    const into = Buffer.alloc(blockBytes);
    while (performance.now() < endMs) {
      await read(Math.floor(Math.random() * blocks) * blockBytes, into);
      reads++;
    }
  };
  const run = (): Promise<void[]> => Promise.all(Array.from({ length: depth }, worker));
  await run(); // Warm-up.
  reads = 0;
  const beganMs = performance.now();
  const before = process.cpuUsage();
  endMs = beganMs + seconds * 1000;
  await run();
  const elapsedSeconds = (performance.now() - beganMs) / 1000;
  const { user, system } = process.cpuUsage(before);
  return { rate: reads / elapsedSeconds, cpu: (user + system) / 1e6 / (reads / 100_000) };
}
