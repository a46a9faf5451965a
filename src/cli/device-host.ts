/**
 * nbd-server's side of its /dev/nbdN: gets it (afresh, or from a predecessor that died), says so, and gives it back.
 * Promise: what is on record is what the kernel has; a device that is left over under our name is cleared, any other is not touched.
 */
import type { BufferPool } from '../base/buffer-pool.js';
import { type Clock, sleep } from '../base/clock.js';
import { Failure } from '../base/failure.js';
import type { Gateway } from '../gateway/gateway.js';
import { formatIdentifier } from '../kernel-device/identifier.js';
import {
  blockBytes,
  type HandedSocket,
  KernelDevice,
  type KernelDeviceOptions,
} from '../kernel-device/kernel-device.js';
import { type Listed, listDevices, whileChoosing } from '../kernel-device/other-users.js';
import { kernelTimeouts } from '../kernel-device/timeouts.js';
import type { RecordedDevice } from '../kernel-device/volume-record.js';
import type { NbdDriver } from '../linux/nbd-netlink.js';
import type { Log } from '../observability/log.js';
import type { Lineage } from './lineage.js';
import type { NbdServerOptions } from './nbd-server-options.js';
import { isNameInUse } from './run-files.js';

/** How long a stop waits for a device that is being attached. */
const gettingWaitMs = 3000;

export interface DeviceHostOptions {
  readonly options: NbdServerOptions;
  readonly driver: NbdDriver;
  readonly lineage: Lineage;
  readonly gateway: Gateway;
  readonly clock: Clock;
  readonly buffers: BufferPool;
  readonly log: Log;
  readonly onLost: () => void;
}

export class DeviceHost {
  readonly #given: DeviceHostOptions;
  #getting: Promise<KernelDevice> | undefined;
  #device: KernelDevice | undefined;
  /** After a takeover the kernel would first wait for what was in flight at the predecessor's death. */
  #mayGrowAtMs = 0;

  constructor(options: DeviceHostOptions) {
    this.#given = options;
  }

  /** Rejects with a `Failure`. */
  async start(): Promise<void> {
    const { lineage, log, options } = this.#given;
    const { device: left } = lineage;
    this.#getting = left === undefined ? this.#attach() : this.#takeOver(left);
    const device = await this.#getting;
    this.#device = device;
    const { index, sizeBytes, thread } = device;
    const connections = left?.connections ?? options.connections;
    lineage.ledger.change({ device: { index, sizeBytes, identifier: this.#identifier, connections, thread } });
    const failed = await device.tune();
    if (failed.length > 0) log.line(`Warning: \`${device.path}\` could not be tuned: ${failed.join(', ')}.`);
    if (left !== undefined) log.line(`\`${device.path}\` is taken over from process ${lineage.former?.pid}.`);
    log.line(`NBD \`${device.path}\` is now attached.`);
  }

  /** Makes the device as large as the volume has become. Rejects with a `Failure`. */
  async grow(sizeBytes: number): Promise<void> {
    const device = this.#device;
    const { clock, lineage, log } = this.#given;
    const roundedBytes = roundDown(sizeBytes);
    if (device === undefined || roundedBytes <= device.sizeBytes || clock.nowMs() < this.#mayGrowAtMs) return;
    await device.grow(roundedBytes);
    const { device: recorded } = lineage.ledger.current;
    if (recorded !== undefined) lineage.ledger.change({ device: { ...recorded, sizeBytes: roundedBytes } });
    log.line(`\`${device.path}\` has grown to ${roundedBytes} bytes.`);
  }

  /** Goes on with what a predecessor hands over. */
  adopt(handed: RecordedDevice, sockets: readonly HandedSocket[]): void {
    const { connections } = handed;
    const device = KernelDevice.adopt({ ...this.#deviceOptions(), connections }, handed, sockets);
    this.#getting = Promise.resolve(device);
    this.#device = device;
  }

  /** What a successor needs copies of. */
  get descriptors(): number[] {
    return this.#device?.descriptors ?? [];
  }

  /** Answers what has been read and serves nothing more. */
  async handOver(): Promise<HandedSocket[]> {
    return (await this.#device?.handOver()) ?? [];
  }

  /** Gives the device back to the kernel. */
  async detach(): Promise<void> {
    const { clock, log } = this.#given;
    const getting = this.#getting?.catch(() => undefined);
    const device = await Promise.race([getting, sleep(clock, gettingWaitMs).then(() => 'stuck' as const)]);
    if (device === 'stuck')
      log.line('The kernel does not answer. A device that it still makes is cleared at the next start.');
    if (device === undefined || device === 'stuck') return;
    const outcome = await device.detach();
    if (outcome === 'busy') {
      log.line(`\`${device.path}\` is still in use: all I/O on it fails now, and it is free again when it is closed.`);
    } else if (outcome === 'stuck') {
      log.line(`\`${device.path}\` could not be disconnected: the kernel does not answer.`);
    }
  }

  async #attach(): Promise<KernelDevice> {
    const { options, gateway, clock, log } = this.#given;
    await this.#clearLeftovers();
    const { sizeBytes } = gateway;
    const roundedBytes = roundDown(sizeBytes);
    if (roundedBytes === 0) throw new Failure('unavailable', `A disk of ${sizeBytes} bytes is too small for a device.`);
    if (roundedBytes !== sizeBytes) {
      log.line(`Warning: the device has ${roundedBytes} bytes: it has whole blocks of ${blockBytes} bytes only.`);
    }
    return whileChoosing(clock, () => KernelDevice.attach(this.#deviceOptions(), roundedBytes, options.deviceIndex));
  }

  async #takeOver(left: RecordedDevice): Promise<KernelDevice> {
    const { clock, gateway, log, options } = this.#given;
    const { index, sizeBytes, connections } = left;
    const wanted = gateway.sizeBytes;
    if (wanted < sizeBytes) {
      throw new Failure(
        'unavailable',
        `\`/dev/nbd${index}\` has ${sizeBytes} bytes, and cannot be shrunk to ${wanted}.`,
      );
    }
    if (options.deviceSizeBytes !== undefined && roundDown(wanted) > sizeBytes) {
      log.line(`Warning: \`/dev/nbd${index}\` is taken over as it is and keeps its ${sizeBytes} bytes.`);
    }
    if (options.deviceIndex !== undefined && options.deviceIndex !== index) {
      log.line(`Warning: \`/dev/nbd${index}\` is taken over instead of \`/dev/nbd${options.deviceIndex}\`.`);
    }
    this.#mayGrowAtMs = clock.nowMs() + 2 * kernelTimeouts(options).timeoutS * 1000;
    return KernelDevice.takeOver({ ...this.#deviceOptions(), connections }, left);
  }

  /** Devices under our name that nobody serves: we hold its lock, so their process is dead, and they are not on record. */
  async #clearLeftovers(): Promise<void> {
    const { driver, log, options } = this.#given;
    for (const device of listDevices(isNameInUse)) {
      if (device.volume === options.name) {
        log.line(leakLine(device));
        await driver.disconnect(device.index).catch(() => {});
      } else if (device.state === 'dead') log.line(leakLine(device));
    }
  }

  get #identifier(): string {
    return formatIdentifier({ name: this.#given.options.name, session: this.#given.lineage.session });
  }

  #deviceOptions(): KernelDeviceOptions {
    const { options, driver, gateway, clock, buffers, onLost } = this.#given;
    return {
      ...{ driver, clock, buffers, onLost },
      volume: gateway,
      identifier: this.#identifier,
      connections: options.connections,
      timeouts: kernelTimeouts(options),
    };
  }
}

function roundDown(sizeBytes: number): number {
  return sizeBytes - (sizeBytes % blockBytes);
}

function leakLine({ index, thread }: Listed): string {
  return `Potential leaked NBD device detected: \`/dev/nbd${index}\` used by dead process ${thread ?? 'unknown'}`;
}
