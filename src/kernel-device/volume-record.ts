/**
 * What a successor must know if this process dies, in one file under /run: which device is ours, the session and its generation, where
 * writes may be on their way, and who holds writes that are not durable (failover rules T2 to T5).
 * Promises: the file holds the newest record, or there is none (it could not be written): never a mixture, and never one that is out
 * of date, which a successor would believe; a record of another boot counts as none.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Ledger, LedgerEntry } from '../gateway/ledger.js';

/** A server to which writes of this session have gone. */
export interface UsedServer {
  readonly server: string;
  readonly endpoint: string | undefined;
  readonly instance: string | undefined;
  /** When another one was chosen, CLOCK_BOOTTIME, milliseconds. Undefined: it is in use. */
  readonly leftAtMs: number | undefined;
}

export interface RecordedDevice {
  readonly index: number;
  readonly identifier: string;
  readonly sizeBytes: number;
  readonly connections: number;
  /** That connected it: where the kernel keeps no identifier. */
  readonly thread?: number | undefined;
}

export interface VolumeRecord {
  readonly bootId: string;
  readonly pid: number;
  readonly session: string;
  readonly generation: number;
  readonly device: RecordedDevice | undefined;
  readonly servers: readonly UsedServer[];
  /** What holds acknowledged writes that may not be durable; `instance`: the server in use. */
  readonly unflushed: LedgerEntry['unflushed'];
}

/** Longer than any write can be on its way to a server (Dmax of the failover protocol, and a margin). */
export const writeFlightMsMax = 62_000;

export function encodeRecord(record: VolumeRecord): string {
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/** Undefined: not a record. */
export function decodeRecord(text: string): VolumeRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isRecord(value) ? value : undefined;
}

function isRecord(value: unknown): value is VolumeRecord {
  return (
    has(value, { bootId: 'string', pid: 'number', session: 'string', generation: 'number', unflushed: 'string' }) &&
    ['none', 'instance', 'nobody'].includes(String(value['unflushed'])) &&
    (value['device'] === undefined ||
      (has(value['device'], { index: 'number', identifier: 'string', sizeBytes: 'number', connections: 'number' }) &&
        hasOptional(value['device'], { thread: 'number' }))) &&
    Array.isArray(value['servers']) &&
    value['servers'].every(
      (server) =>
        has(server, { server: 'string' }) &&
        hasOptional(server, { endpoint: 'string', instance: 'string', leftAtMs: 'number' }),
    )
  );
}

type Types = Readonly<Record<string, 'string' | 'number'>>;

function has(value: unknown, types: Types): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(types).every(([name, type]) => typeof (value as Record<string, unknown>)[name] === type);
}

function hasOptional(value: Record<string, unknown>, types: Types): boolean {
  return Object.entries(types).every(([name, type]) => value[name] === undefined || typeof value[name] === type);
}

/** Identifies this boot of this machine. */
export function thisBoot(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** The record of a predecessor. Undefined: there is none, it is of another boot, or it makes no sense. Throws what the file system says. */
export function loadRecord(path: string): VolumeRecord | undefined {
  try {
    const record = decodeRecord(readFileSync(path, 'utf8'));
    return record?.bootId === thisBoot() ? record : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * The record of this process, and the gateway's ledger. It is on file from {@link VolumeLedger.keep} on, until {@link VolumeLedger.remove}
 * or {@link VolumeLedger.release}.
 */
export class VolumeLedger implements Ledger {
  readonly #path: string;
  readonly #bootTimeMs: () => number;
  readonly #onError: (error: unknown) => void;
  #record: VolumeRecord;
  #kept = false;

  /** `onError`: a change could not be written, and the record is gone: nobody can take over from us until the next one. */
  constructor(path: string, record: VolumeRecord, bootTimeMs: () => number, onError: (error: unknown) => void) {
    this.#path = path;
    this.#record = record;
    this.#bootTimeMs = bootTimeMs;
    this.#onError = onError;
  }

  get current(): VolumeRecord {
    return this.#record;
  }

  /**
   * Puts it on file, and everything that changes from now on. Before that, nothing must be sent that changes a disk.
   * Throws what the file system says; what was there before is as it was.
   */
  keep(): void {
    this.#save();
    this.#kept = true;
  }

  /** The file is a successor's from now on. */
  release(): void {
    this.#kept = false;
  }

  /** The file is a memory of the kernel's: this is no slower than a system call. */
  record(entry: LedgerEntry): Promise<void> {
    const { server, endpoint, instance, unflushed } = entry;
    const nowMs = this.#bootTimeMs();
    const before = this.#record.servers.flatMap((used) => stillOfInterest(used, nowMs, instance) ?? []);
    this.change({ unflushed, servers: [{ server, endpoint, instance, leftAtMs: undefined }, ...before] });
    return Promise.resolve();
  }

  change(what: Partial<VolumeRecord>): void {
    this.#record = { ...this.#record, ...what };
    if (!this.#kept) return;
    try {
      this.#save();
    } catch (error) {
      discard(this.#path);
      this.#onError(error);
    }
  }

  /** Nobody needs to take anything over. Does nothing to a file that is not ours yet. */
  remove(): void {
    if (!this.#kept) return;
    this.#kept = false;
    discard(this.#path);
  }

  #save(): void {
    const draft = `${this.#path}.new`;
    try {
      writeFileSync(draft, encodeRecord(this.#record), { mode: 0o600 });
      renameSync(draft, this.#path);
    } catch (error) {
      discard(draft);
      throw error;
    }
  }
}

/** Best effort: a file system that takes no files has often room to remove some. */
function discard(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // Nothing more can be done.
  }
}

/** A server before the one that is in use from now on: as long as a write may be on its way there. */
function stillOfInterest(used: UsedServer, nowMs: number, instance: string | undefined): UsedServer | undefined {
  // An instance that is used again keeps its own order; without one, nothing can be known.
  if (used.instance === undefined || used.instance === instance) return undefined;
  const leftAtMs = used.leftAtMs ?? nowMs;
  return nowMs - leftAtMs < writeFlightMsMax ? { ...used, leftAtMs } : undefined;
}
