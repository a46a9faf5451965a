/** A connection in the transmission phase that is handed from one `Transmission` to the next, as from process to process. */
import { createServer, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Cleanup } from '../../support/processes.js';
import { BufferPool } from '../../../src/base/buffer-pool.js';
import type { Volume } from '../../../src/base/volume.js';
import { plainAgreement } from '../../../src/nbd/negotiation.js';
import { ByteBudget } from '../../../src/base/byte-budget.js';
import { Transmission } from '../../../src/nbd-server/transmission.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { NbdClient } from '../../support/nbd-client.js';
import { temporaryFolder } from '../../support/processes.js';
import { mebibyte } from './harness.js';

export class Relay {
  readonly #socket: Socket;
  readonly #volume: Volume;
  readonly #buffers: BufferPool;
  readonly #budget: ByteBudget;
  #transmission: Transmission;
  /** How often a transmission said that it is over. */
  overs = 0;
  receivedBytes = 0;

  constructor(socket: Socket, volume: Volume, buffers: BufferPool, budget: ByteBudget) {
    this.#socket = socket;
    this.#volume = volume;
    this.#buffers = buffers;
    this.#budget = budget;
    this.#transmission = this.#begin();
    socket.on('data', (chunk: Buffer) => {
      this.receivedBytes += chunk.length;
      this.#transmission.push(chunk);
    });
    socket.on('end', () => this.#transmission.end());
    socket.on('error', () => {});
    socket.on('close', () => this.#transmission.abort());
  }

  stop(): Promise<Buffer | null> {
    return this.#transmission.stop();
  }

  /** To a new transmission; resolves with what it began with. */
  async handOver(): Promise<Buffer | null> {
    const rest = await this.#transmission.stop();
    if (rest === null) return null;
    this.#transmission = this.#begin();
    this.#socket.resume(); // before the transmission has reasons to pause
    this.#transmission.push(Buffer.from(rest));
    return rest;
  }

  /** Nothing more comes. */
  end(): void {
    this.#transmission.end();
  }

  /** The socket breaks. */
  break(): void {
    this.#socket.destroy();
  }

  #begin(): Transmission {
    return new Transmission(this.#socket, {
      volume: this.#volume,
      buffers: this.#buffers,
      budget: this.#budget,
      agreement: plainAgreement,
      flow: { pause: () => void this.#socket.pause(), resume: () => void this.#socket.resume() },
      onOver: () => {
        this.overs += 1;
        this.#socket.destroySoon();
      },
    });
  }
}

export interface Relayed {
  readonly client: NbdClient;
  readonly relay: Relay;
  readonly volume: MemoryVolume;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
}

export async function startRelay(t: Cleanup): Promise<Relayed> {
  const buffers = new BufferPool(64 * mebibyte);
  const volume = new MemoryVolume(64 * mebibyte, buffers);
  const budget = new ByteBudget(96 * mebibyte);
  const [near, far] = await socketPair(t);
  const relay = new Relay(near, volume, buffers, budget);
  return { client: NbdClient.adopt(far, false), relay, volume, budget, buffers };
}

/** Two ends of a stream. */
async function socketPair(t: Cleanup): Promise<[Socket, Socket]> {
  const path = join(temporaryFolder(t), 'socket');
  const server = createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => void server.once('connection', resolve));
  const far = connect({ path, allowHalfOpen: true });
  const near = await accepted;
  server.close();
  t.after(() => {
    near.destroy();
    far.destroy();
  });
  return [near, far];
}
