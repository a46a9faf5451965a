/** What all connections of one HTTP binding share. */
import type { BufferPool } from '../base/buffer-pool.js';
import type { Channel } from '../base/channel.js';
import type { Clock } from '../base/clock.js';
import type { Access } from './access-log.js';
import type { ByteBudget } from '../base/byte-budget.js';
import type { DiskServer } from './disk-server.js';

export interface FrontLimits {
  readonly connectionsMax: number;
  /** Bodies of writes in memory, from the reservation to the end of the write. At least one body of the largest size beside those for small ones. */
  readonly uploadBytesMax: number;
  /** How much of that is kept for small bodies. */
  readonly smallUploadBytes: number;
  /** Data of reads in memory, from the reservation until the kernel has taken it. At least two pieces. */
  readonly responseBytesMax: number;
  /** A longer read is answered in pieces of this length. */
  readonly pieceBytesMax: number;
  /** Requests of one connection that are not answered. */
  readonly exchangesMax: number;
  /** Answers of one connection that its client has not taken, or that are being made: no further request is read. */
  readonly unsentBytesMax: number;
  /** From the first byte of a head to its end. */
  readonly headMs: number;
  /** Between two parts of a body. */
  readonly bodyStallMs: number;
  /** Between two parts of the answers that a client takes. */
  readonly responseStallMs: number;
  /** Between two requests. It is announced to the client. */
  readonly keepAliveMs: number;
  /** How long the client's remaining bytes are read after the last answer, so that it can see that answer. */
  readonly lingerMs: number;
  /** How long a request waits for memory. */
  readonly budgetWaitMs: number;
  /** While others wait for memory, whoever holds some must send or take so much of it a second, after a while of grace. */
  readonly slowBytesPerSecond: number;
  readonly slowGraceMs: number;
  /** How often time limits are looked at. */
  readonly sweepMs: number;
}

const mib = 1024 * 1024;

export const defaultFrontLimits: FrontLimits = {
  connectionsMax: 512,
  uploadBytesMax: 80 * mib,
  smallUploadBytes: 16 * mib,
  responseBytesMax: 32 * mib,
  pieceBytesMax: mib,
  exchangesMax: 256,
  unsentBytesMax: 4 * mib,
  headMs: 10_000,
  bodyStallMs: 20_000,
  responseStallMs: 60_000,
  keepAliveMs: 75_000,
  lingerMs: 2000,
  budgetWaitMs: 30_000,
  slowBytesPerSecond: 4 * mib,
  slowGraceMs: 500,
  sweepMs: 250,
};

export interface Front {
  readonly core: DiskServer;
  readonly clock: Clock;
  readonly limits: FrontLimits;
  readonly pool: BufferPool;
  readonly uploads: ByteBudget;
  readonly responses: ByteBudget;
  readonly accesses: Channel<Access>;
  /** The field lines that go with every response. */
  commonLines(): string;
  /** Calls {@link Pumped.pump} once, later in this turn of the event loop: what becomes due together goes out together. */
  schedule(connection: Pumped): void;
}

export interface Pumped {
  pump(): void;
}
