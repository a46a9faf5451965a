/**
 * A successor's rehearsal: what its first requests would have to wait for, code that is made ready when it first runs, is done while the
 * predecessor still serves. Requests as the kernel sends them pass through all that will serve them. Reads go to the server in use;
 * writes only to a stand-in, because nothing may be written yet (failover rule T6).
 * Promise: nothing is changed on any server; it is over after {@link rehearsalMsMax}, whatever the servers do.
 */
import { Socket } from 'node:net';
import { BufferPool } from '../base/buffer-pool.js';
import { ByteBudget } from '../base/byte-budget.js';
import type { Clock } from '../base/clock.js';
import type { Volume } from '../base/volume.js';
import { within } from '../base/within.js';
import type { Backend, Completion, Probe } from '../gateway/backend.js';
import { Gateway, type GatewayOptions } from '../gateway/gateway.js';
import { noLedger } from '../gateway/ledger.js';
import { Session } from '../gateway/session.js';
import { features, type DiskAnswer } from '../http-disk/messages.js';
import { KernelSocket } from '../kernel-device/kernel-socket.js';
import { socketPair } from '../linux/socket-pair.js';
import { command, commandFlag } from '../nbd/constants.js';
import { encodeRequest, requestBytes } from '../nbd/request.js';

/** @public */
export const rehearsalMsMax = 1000;
/** Enough for code to be compiled, few enough for a slow machine. */
const rounds = 16;
const blockBytes = 4096;
const replyBytes = 16;
const idleBufferBytesMax = 1024 * 1024;

export interface RehearsalOptions extends Pick<GatewayOptions, 'clock' | 'writeBack'> {
  /** Its reads are rehearsed. */
  readonly volume: Volume;
}

/** Resolves with whether all was answered. */
export async function rehearse({ volume, clock, writeBack }: RehearsalOptions): Promise<boolean> {
  if (volume.sizeBytes < blockBytes) return true;
  const buffers = new BufferPool(idleBufferBytesMax);
  const scratch = scratchVolume(clock, buffers, writeBack);
  const [ours, theirs] = socketPair();
  const context = { volume: readingFrom(volume, scratch), buffers, budget: new ByteBudget(idleBufferBytesMax) };
  const socket = new KernelSocket(ours, context, Buffer.alloc(0), () => {});
  const kernel = new Kernel(theirs);
  const isComplete = await within(clock, rehearsalMsMax, kernel.play());
  kernel.end();
  socket.destroy();
  await scratch.close();
  return isComplete;
}

/** What the kernel would be at the other end of a device's socket. */
class Kernel {
  readonly #socket: Socket;
  #expectedBytes = 0;
  #answered: () => void = () => {};

  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('data', (chunk) => {
      this.#expectedBytes -= chunk.length;
      if (this.#expectedBytes <= 0) this.#answered();
    });
  }

  /** Resolves when all is answered: never, if a read fails. */
  async play(): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      await this.#ask(command.write, round % 2 === 0 ? 0 : commandFlag.fua, blockBytes, replyBytes);
      await this.#ask(command.read, 0, blockBytes, replyBytes + blockBytes);
      await this.#ask(command.flush, 0, 0, replyBytes);
    }
  }

  end(): void {
    this.#socket.destroy();
  }

  #ask(type: number, flags: number, length: number, expectedBytes: number): Promise<void> {
    const request = encodeRequest({ type, flags, length, offset: 0, cookieHigh: 0, cookieLow: 0 });
    this.#expectedBytes = expectedBytes;
    return new Promise((resolve) => {
      this.#answered = resolve;
      const payloadBytes = type === command.write ? length : 0;
      this.#socket.write(Buffer.concat([request, Buffer.alloc(payloadBytes)], requestBytes + payloadBytes));
    });
  }
}

/** Reads of `volume`; everything else of `scratch`. */
function readingFrom(volume: Volume, scratch: Volume): Volume {
  return {
    sizeBytes: volume.sizeBytes,
    readOnly: volume.readOnly,
    read: (offset, into) => volume.read(offset, into),
    write: (offset, bytes, fua) => scratch.write(offset, bytes, fua),
    zero: (offset, length, options) => scratch.zero(offset, length, options),
    trim: (offset, length, fua) => scratch.trim(offset, length, fua),
    flush: () => scratch.flush(),
    cache: (offset, length) => scratch.cache(offset, length),
    extents: (offset, length) => scratch.extents(offset, length),
  };
}

/** A gateway of its own, whose one server answers whatever it is told. */
function scratchVolume(clock: Clock, buffers: BufferPool, writeBack: GatewayOptions['writeBack']): Gateway {
  const gateway = new Gateway([new StandIn(clock)], {
    ...{ clock, buffers, writeBack, readOnly: false, sizeBytes: blockBytes, refusalProvesDeath: false },
    ...{ session: new Session('rehearsal', 1), ledger: noLedger, requestTimeoutMs: rehearsalMsMax },
    ioTimeoutMs: 2 * rehearsalMsMax,
  });
  gateway.start();
  return gateway;
}

class StandIn implements Backend {
  readonly name = 'rehearsal';
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async probe(): Promise<Probe> {
    const atMs = this.#clock.nowMs();
    const { instance, clockMs } = this.#answer();
    const description = {
      ...{ sizeBytes: blockBytes, readOnly: false, features: new Set(features), instance, clockMs },
      ...{ logicalBlockBytes: 512, physicalBlockBytes: blockBytes, endpoint: undefined },
    };
    return { description, sentAtMs: atMs, receivedAtMs: atMs, endpoint: undefined, oneAtATime: false };
  }

  send(_request: unknown, _bytes: unknown, _into: unknown, completion: Completion): void {
    queueMicrotask(() => completion.answered(this.#answer()));
  }

  async refuses(): Promise<boolean> {
    return false;
  }

  abandon(): void {}

  #answer(): DiskAnswer {
    return { instance: 'rehearsal', clockMs: this.#clock.nowMs() };
  }
}
