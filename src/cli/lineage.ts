/**
 * The line of processes that serve one volume under one name, one after the other: what this one has from the one before it, and leaves to
 * the next. Promise: this process's generation is on file before it sends its first request (failover rule T2).
 */
import { asFailure, Failure } from '../base/failure.js';
import type { Inheritance } from '../gateway/inheritance.js';
import { isSameDevice } from '../kernel-device/identifier.js';
import { connectedDevice } from '../linux/nbd-sysfs.js';
import {
  loadRecord,
  type RecordedDevice,
  thisBoot,
  VolumeLedger,
  type VolumeRecord,
} from '../kernel-device/volume-record.js';

export interface LineageOptions {
  readonly path: string;
  /** The lock is ours, so that the file is. */
  readonly isOnFile: boolean;
  /** A device is wanted: one that the predecessor left is taken over. */
  readonly attach: boolean;
  /** The predecessor is alive and hands over: the file is its own until then, and it leaves nothing on its way (rule T6). */
  readonly planned: boolean;
  readonly newSession: () => string;
  readonly bootTimeMs: () => number;
  readonly warn: (text: string) => void;
}

export class Lineage {
  readonly ledger: VolumeLedger;
  /** Of the predecessor that died. */
  readonly former: VolumeRecord | undefined;
  /** The device that it left: still there, and still its. */
  readonly device: RecordedDevice | undefined;
  /** What the gateway must know of it (failover rules T3, T5). */
  readonly inherited: Inheritance | undefined;
  readonly #path: string;

  private constructor(
    former: VolumeRecord | undefined,
    { path, attach, planned, newSession, bootTimeMs, warn }: LineageOptions,
  ) {
    const nowMs = bootTimeMs();
    this.#path = path;
    this.former = former;
    this.device = attach && former?.device !== undefined ? asFound(former.device) : undefined;
    this.inherited = former && inheritanceOf(planned ? withoutLast(former) : former, nowMs);
    const record: VolumeRecord = {
      bootId: thisBoot(),
      pid: process.pid,
      session: former?.session ?? newSession(),
      generation: (former?.generation ?? 0) + 1,
      device: this.device,
      servers: former?.servers.map((used) => ({ ...used, leftAtMs: used.leftAtMs ?? nowMs })) ?? [],
      unflushed: former?.unflushed ?? 'none',
    };
    this.ledger = new VolumeLedger(path, record, bootTimeMs, (error) =>
      warn(`\`${path}\` cannot be written, nobody will be able to take over from us: \`${errorCode(error)}\`.`),
    );
  }

  /** Throws a `Failure` if what a predecessor left cannot be read, or this process's own record cannot be written. */
  static begin(options: LineageOptions): Lineage {
    const { path, isOnFile, attach, planned, warn } = options;
    const lineage = new Lineage(isOnFile ? load(path) : undefined, options);
    if (!isOnFile || planned) return lineage;
    try {
      lineage.keep();
    } catch (error) {
      // With neither device nor predecessor there is nothing that a record would protect.
      if (attach || lineage.former !== undefined) throw error;
      warn(asFailure(error).message);
    }
    return lineage;
  }

  /** Puts it on file. Throws a `Failure`; then the record of the predecessor is as it was, for the next one to find. */
  keep(): void {
    try {
      this.ledger.keep();
    } catch (error) {
      throw new Failure('unavailable', `\`${this.#path}\` cannot be written: \`${errorCode(error)}\``);
    }
  }

  get session(): string {
    return this.ledger.current.session;
  }

  get generation(): number {
    return this.ledger.current.generation;
  }

  /** The orderly end. `quiet`: nothing that was sent can still land, so that the next one may start afresh. */
  end(quiet: boolean): void {
    if (quiet) this.ledger.remove();
    else this.ledger.change({ device: undefined, unflushed: 'none' });
  }
}

/** As the kernel has it: its process may have died between a change and the record of it. */
function asFound(left: RecordedDevice): RecordedDevice | undefined {
  const found = connectedDevice(left.index);
  if (found === undefined || !isSameDevice(found, left)) return undefined;
  return { ...left, sizeBytes: Math.max(left.sizeBytes, found.sizeBytes) };
}

function load(path: string): VolumeRecord | undefined {
  try {
    return loadRecord(path);
  } catch (error) {
    throw new Failure('unavailable', `\`${path}\` cannot be read: \`${errorCode(error)}\`.`);
  }
}

function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

/** Its last server owes it no answer; those before may still be waited for. */
function withoutLast(former: VolumeRecord): VolumeRecord {
  return { ...former, unflushed: 'none', servers: former.servers.filter(({ leftAtMs }) => leftAtMs !== undefined) };
}

function inheritanceOf({ servers, unflushed }: VolumeRecord, nowMs: number): Inheritance {
  return {
    unflushed,
    servers: servers.map(({ server, endpoint, instance, leftAtMs }) => {
      return { server, endpoint, instance, leftMsAgo: leftAtMs === undefined ? 0 : Math.max(0, nowMs - leftAtMs) };
    }),
  };
}
