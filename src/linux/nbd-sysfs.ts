/**
 * What /sys/block says of the kernel's network block devices. Never opens a device.
 * Reads are attributes that the kernel answers from memory; writes go through the pool, because the kernel lets the device run empty
 * for some of them.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';

export interface ConnectedDevice {
  /** N of /dev/nbdN. */
  readonly index: number;
  readonly sizeBytes: number;
  /** The thread that connected it; undefined on some kernels while a disconnect is under way. */
  readonly thread: number | undefined;
  /** Empty: none was given, or the kernel is older than 5.14. */
  readonly identifier: string;
}

const sectorBytes = 512;

/** The devices that are configured, in order. */
export function connectedDevices(): ConnectedDevice[] {
  const indexes = existsSync('/sys/block') ? readdirSync('/sys/block').flatMap((name) => indexOf(name) ?? []) : [];
  return indexes.toSorted((a, b) => a - b).flatMap((index) => connectedDevice(index) ?? []);
}

/** Undefined: there is no such device, or it is not configured. */
export function connectedDevice(index: number): ConnectedDevice | undefined {
  // Both attributes exist while it is configured.
  const thread = attribute(index, 'pid');
  const identifier = attribute(index, 'backend');
  if (thread === undefined && identifier === undefined) return undefined;
  return {
    index,
    sizeBytes: Number(attribute(index, 'size') ?? 0) * sectorBytes,
    thread: thread === undefined ? undefined : Number(thread),
    identifier: identifier ?? '',
  };
}

/** `nbd7`: 7. Partitions and others: undefined. */
function indexOf(name: string): number | undefined {
  const match = /^nbd(\d{1,7})$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** One of the files in /sys/block/nbdN/queue. Rejects with what the file system says. */
export async function setQueue(index: number, name: string, value: string): Promise<void> {
  const path = `/sys/block/nbd${index}/queue/${name}`;
  const before = (await readFile(path, 'utf8')).trim();
  // The scheduler's file lists all, the chosen one in brackets.
  const chosen = /\[([^\]]+)\]/.exec(before)?.[1] ?? before;
  if (chosen !== value) await writeFile(path, value);
}

function attribute(index: number, name: string): string | undefined {
  try {
    return readFileSync(`/sys/block/nbd${index}/${name}`, 'utf8').trim();
  } catch {
    return undefined;
  }
}
