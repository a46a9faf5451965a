/**
 * One /dev/nbdN that this process serves.
 *
 *     (attach · takeOver · adopt) ──▶ serving ── detach ──▶ detached
 *                                       │  ▲
 *                                       │  └─ a socket that the kernel gave up is replaced
 *                                       ├── handOver ──▶ handed over (a successor serves it now) ── detach ──▶ detached (it does not)
 *                                       └── disconnected by somebody else ──▶ lost
 *
 * Promises: the device is never opened here, and nothing that can block runs on this thread; a device whose identifier is not
 * ours is never touched; `detach` needs no server and no client, and answers within {@link detachWaitMs}.
 */
import { closeSync } from 'node:fs';
import type { BufferPool } from '../base/buffer-pool.js';
import { type Clock, sleep } from '../base/clock.js';
import { Failure } from '../base/failure.js';
import type { Volume } from '../base/volume.js';
import { errnoOf } from '../linux/errno.js';
import { type NbdDriver, serverFlag, type Timeouts } from '../linux/nbd-netlink.js';
import { connectedDevice, setQueue } from '../linux/nbd-sysfs.js';
import { isAbandoned, socketPair } from '../linux/socket-pair.js';
import { ByteBudget } from '../base/byte-budget.js';
import { isSameDevice } from './identifier.js';
import { KernelSocket, type KernelSocketContext } from './kernel-socket.js';

export interface KernelDeviceOptions {
  readonly driver: NbdDriver;
  readonly clock: Clock;
  readonly volume: Volume;
  /** Shared with the volume. */
  readonly buffers: BufferPool;
  /** What tells the device from everybody else's. */
  readonly identifier: string;
  /** Sockets, at least one. */
  readonly connections: number;
  readonly timeouts: Timeouts;
  /** Told once: the device is not ours any more, though nobody here gave it up. */
  readonly onLost: () => void;
}

/** A device that is connected already. */
export interface ExistingDevice {
  readonly index: number;
  readonly sizeBytes: number;
  /** Of {@link KernelDevice.thread}, when it was attached. */
  readonly thread?: number | undefined;
}

/** A socket and what was read from it and not served. */
export interface HandedSocket {
  readonly fd: number;
  readonly received: Buffer;
}

/** The kernel addresses the device in these. */
export const blockBytes = 512;
/** Payload bytes in flight, of all sockets together. */
const payloadBytesInFlightMax = 64 * 1024 * 1024;
const detachWaitMs = 3000;
const settingsWaitMs = 1000;
const replaceRetryMs = 50;
const takeOverWaitMs = 5000;
const nothing = Buffer.alloc(0);

/**
 * One request of the kernel is one request to the server, of the gateway's largest size; read-ahead keeps several of them on their way.
 */
const queueSettings = [
  ['scheduler', 'none'],
  ['max_sectors_kb', '1024'],
  ['read_ahead_kb', '4096'],
] as const;

type State = 'serving' | 'handed-over' | 'detached' | 'lost';

export class KernelDevice {
  readonly #options: KernelDeviceOptions;
  readonly #context: KernelSocketContext;
  readonly #sockets = new Set<KernelSocket>();
  #index = -1;
  #thread: number | undefined;
  #sizeBytes = 0;
  #state: State = 'serving';
  #replacing = false;

  private constructor(options: KernelDeviceOptions, sizeBytes: number) {
    const { volume, buffers } = options;
    this.#options = options;
    this.#sizeBytes = sizeBytes;
    this.#context = { volume, buffers, budget: new ByteBudget(payloadBytesInFlightMax) };
  }

  /** Makes a device of `sizeBytes` (a multiple of {@link blockBytes}): `index`, or one that the kernel chooses. */
  static async attach(
    options: KernelDeviceOptions,
    sizeBytes: number,
    index: number | undefined,
  ): Promise<KernelDevice> {
    const device = new KernelDevice(options, sizeBytes);
    const { driver, connections, identifier, timeouts, volume } = options;
    const ends = device.#makeSockets(connections);
    try {
      device.#index = await driver.connect({
        ...{ index, sizeBytes, blockBytes, identifier, ...timeouts },
        serverFlags: flagsFor(volume),
        sockets: ends.map(({ kernelEnd }) => kernelEnd),
      });
    } catch (error) {
      device.#close();
      throw refusal(error, index);
    } finally {
      for (const { kernelEnd } of ends) closeSync(kernelEnd);
    }
    device.#thread = connectedDevice(device.#index)?.thread;
    return device;
  }

  /** Serves a device whose process has died, through new sockets. Its size stays as it is. */
  static async takeOver(options: KernelDeviceOptions, existing: ExistingDevice): Promise<KernelDevice> {
    const device = KernelDevice.#of(options, existing);
    const endMs = options.clock.nowMs() + takeOverWaitMs;
    // The kernel notices the death of one socket after the other.
    while (!(await device.#replaceSockets(options.timeouts))) {
      if (options.clock.nowMs() > endMs) break;
      await sleep(options.clock, replaceRetryMs);
    }
    if (device.#sockets.size > 0) return device;
    throw new Failure('unavailable', `The kernel took no socket for \`${device.path}\`.`);
  }

  /** Goes on with the sockets of a predecessor that serves them no more. */
  static adopt(options: KernelDeviceOptions, existing: ExistingDevice, sockets: readonly HandedSocket[]): KernelDevice {
    const device = KernelDevice.#of(options, existing);
    for (const { fd, received } of sockets) device.#serve(fd, received);
    void device.#replaceUntilWhole();
    return device;
  }

  static #of(options: KernelDeviceOptions, { index, sizeBytes, thread }: ExistingDevice): KernelDevice {
    const device = new KernelDevice(options, sizeBytes);
    device.#index = index;
    device.#thread = thread;
    return device;
  }

  /** N of /dev/nbdN. */
  get index(): number {
    return this.#index;
  }

  get path(): string {
    return `/dev/nbd${this.#index}`;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The thread that connected it, as sysfs shows it. */
  get thread(): number | undefined {
    return this.#thread;
  }

  /**
   * Scheduler, size of requests and read-ahead. Resolves with what could not be set, after {@link settingsWaitMs} at the latest: the
   * kernel may first let the device run empty, which it does not as long as no server answers.
   */
  async tune(): Promise<string[]> {
    const failed: string[] = [];
    const set = async () => {
      for (const [name, value] of queueSettings) {
        await setQueue(this.#index, name, value).catch((error: unknown) => {
          failed.push(`${name}: ${errnoOf(error) ?? String(error)}`);
        });
      }
    };
    await Promise.race([set(), sleep(this.#options.clock, settingsWaitMs)]);
    return failed;
  }

  /** Makes the device larger, online. `sizeBytes`: a multiple of {@link blockBytes}. Rejects with a `Failure`. */
  async grow(sizeBytes: number): Promise<void> {
    const { driver, identifier } = this.#options;
    try {
      await driver.reconfigure({ index: this.#index, identifier, sizeBytes, sockets: [] });
    } catch (error) {
      throw refusal(error, this.#index);
    }
    this.#sizeBytes = sizeBytes;
    // The kernel has put it back to its default.
    await this.tune();
  }

  /**
   * Disconnects the device at once: what is in flight fails, an open or mounted device fails everything from now on.
   * Resolves with `busy` if somebody still has it open: it is free again when they close it. `stuck`: the kernel does not answer.
   * After {@link handOver}: only if no successor has it.
   */
  async detach(): Promise<'free' | 'busy' | 'stuck'> {
    if (this.#state === 'detached' || this.#state === 'lost') return 'free';
    this.#state = 'detached';
    const isOurs = this.#isOurs();
    // First our ends: the kernel's farewell would wait for room in a socket that nobody reads.
    this.#close();
    if (!isOurs) return 'free';
    const { driver, clock } = this.#options;
    const disconnected = driver.disconnect(this.#index).then(
      () => true,
      () => true,
    );
    const done = await Promise.race([disconnected, sleep(clock, detachWaitMs).then(() => false)]);
    if (!done) return 'stuck';
    return this.#isOurs() ? 'busy' : 'free';
  }

  /** Answers what was read, reads no more, and gives the sockets away. They stay open in this process until it ends. */
  async handOver(): Promise<HandedSocket[]> {
    this.#state = 'handed-over';
    const sockets = [...this.#sockets];
    return Promise.all(sockets.map(async (socket) => ({ fd: socket.fd, received: await socket.stop() })));
  }

  /** What a successor needs copies of, before {@link handOver}. */
  get descriptors(): number[] {
    return Array.from(this.#sockets, ({ fd }) => fd);
  }

  #isOurs(): boolean {
    const found = connectedDevice(this.#index);
    const { identifier } = this.#options;
    return found !== undefined && isSameDevice(found, { identifier, thread: this.#thread });
  }

  #serve(fd: number, received: Buffer): KernelSocket {
    const socket = new KernelSocket(fd, this.#context, received, () => this.#closed(socket));
    this.#sockets.add(socket);
    return socket;
  }

  #makeSockets(count: number): { socket: KernelSocket; kernelEnd: number }[] {
    return Array.from({ length: count }, () => {
      const [ours, kernelEnd] = socketPair();
      return { socket: this.#serve(ours, nothing), kernelEnd };
    });
  }

  #close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  // --- sockets that the kernel gave up ---

  #closed(socket: KernelSocket): void {
    if (this.#sockets.delete(socket) && this.#state === 'serving' && this.#index >= 0) void this.#replaceUntilWhole();
  }

  async #replaceUntilWhole(): Promise<void> {
    if (this.#replacing) return;
    this.#replacing = true;
    while (this.#state === 'serving' && this.#sockets.size < this.#options.connections) {
      if (!this.#isOurs()) {
        this.#state = 'lost';
        this.#close();
        this.#options.onLost();
        break;
      }
      await this.#replaceSockets(undefined).catch(() => false);
      await sleep(this.#options.clock, replaceRetryMs);
    }
    this.#replacing = false;
  }

  /** Offers the kernel as many sockets as are missing. True: it has all that it should have. */
  async #replaceSockets(timeouts: Timeouts | undefined): Promise<boolean> {
    const { driver, identifier, connections } = this.#options;
    const ends = this.#makeSockets(connections - this.#sockets.size);
    const sockets = ends.map(({ kernelEnd }) => kernelEnd);
    let refused: Failure | undefined;
    try {
      const change = { index: this.#index, identifier, sockets };
      await driver.reconfigure(timeouts === undefined ? change : { ...change, timeouts });
    } catch (error) {
      refused = refusal(error, this.#index);
    }
    for (const { socket, kernelEnd } of ends) {
      closeSync(kernelEnd);
      // It ignores those for which it has no place, with success.
      if (!this.#sockets.has(socket) || !isAbandoned(socket.fd)) continue;
      this.#sockets.delete(socket);
      socket.destroy();
    }
    if (refused !== undefined) throw refused;
    return this.#sockets.size === connections;
  }
}

/** The same whatever the servers can do: the device is there before any of them. */
function flagsFor({ readOnly }: Volume): number {
  const { hasFlags, flush, fua, trim, writeZeroes, multiConnection } = serverFlag;
  return hasFlags | flush | fua | trim | writeZeroes | multiConnection | (readOnly ? serverFlag.readOnly : 0);
}

function refusal(error: unknown, index: number | undefined): Failure {
  const errno = errnoOf(error);
  if (errno === undefined) throw error;
  const device = index === undefined ? 'an NBD device' : `\`/dev/nbd${index}\``;
  const reason = errno === 'EBUSY' ? 'it is in use' : errno;
  return new Failure('unavailable', `The kernel refused ${device}: \`${reason}\`.`);
}
