/** An NBD server over a volume in memory, with a clock that stands still, on a unix socket in a folder of its own. */
import type { NetConnectOpts } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import { type NbdEvent, NbdServer } from '../../../src/nbd-server/nbd-server.js';
import { FakeClock } from '../../support/fake-clock.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { NbdClient, type Wishes } from '../../support/nbd-client.js';
import { temporaryFolder } from '../../support/processes.js';

export const mebibyte = 2 ** 20;

export interface Served {
  readonly server: NbdServer;
  readonly volume: MemoryVolume;
  readonly buffers: BufferPool;
  readonly clock: FakeClock;
  readonly events: NbdEvent[];
  readonly folder: string;
  readonly where: NetConnectOpts;
  /** A client in the transmission phase. */
  readonly open: (wishes?: Wishes) => Promise<NbdClient>;
  /** A client that has said nothing yet. */
  readonly connect: () => Promise<NbdClient>;
}

export async function serve(t: TestContext, sizeBytes: number, readOnly = false): Promise<Served> {
  const buffers = new BufferPool(64 * mebibyte);
  const volume = new MemoryVolume(sizeBytes, buffers, readOnly);
  const clock = new FakeClock();
  const server = new NbdServer({ clock, volume, buffers, exportName: 'disk', exportDescription: 'A test' });
  const events: NbdEvent[] = [];
  server.events.subscribe((event) => void events.push(event));
  const folder = temporaryFolder(t);
  const where = { path: join(folder, 'socket') };
  await server.listenUnix(where.path);
  t.after(() => server.close());
  const own = (client: NbdClient) => {
    t.after(() => client.destroy());
    return client;
  };
  const open = async (wishes?: Wishes) => own(await NbdClient.open(where, wishes));
  const connect = async () => own(await NbdClient.connect(where));
  return { server, volume, buffers, clock, events, folder, where, open, connect };
}

/** Waits for something that happens by itself, and soon. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const patienceMs = 20_000;
  for (const startMs = performance.now(); !holds(); ) {
    if (performance.now() - startMs > patienceMs) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => void setTimeout(resolve, 2));
  }
}
