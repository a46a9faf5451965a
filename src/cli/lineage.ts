/**
 * The line of processes that serve one volume under one name, one after the other: what this one has from the one before it, and leaves to
 * the next. Promise: this process's generation is on file before it sends its first request (failover rule T2).
 */
import type { Inheritance } from '../gateway/inheritance.js';
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

  private constructor(
    former: VolumeRecord | undefined,
    { path, attach, planned, newSession, bootTimeMs, warn }: LineageOptions,
  ) {
    const nowMs = bootTimeMs();
    this.former = former;
    this.device = attach && former?.device !== undefined && isStillThere(former.device) ? former.device : undefined;
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
      warn(`\`${path}\` cannot be written, nobody will be able to take over from us: ${String(error)}.`),
    );
  }

  static begin(options: LineageOptions): Lineage {
    const lineage = new Lineage(options.isOnFile ? loadRecord(options.path) : undefined, options);
    if (options.isOnFile && !options.planned) lineage.ledger.keep();
    return lineage;
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

function isStillThere({ index, identifier }: RecordedDevice): boolean {
  const found = connectedDevice(index);
  // Kernels before 5.14 keep no identifier: there the record alone tells.
  return found !== undefined && (found.identifier === identifier || found.identifier === '');
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
