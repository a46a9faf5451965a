/**
 * What tells a device of ours from everybody else's. The text by which the kernel knows a device of ours (/sys/block/nbdN/backend): whose it is, and of which lineage of processes.
 * `http-nbd-transfer:NAME:SESSION`; where the kernel keeps none (before 5.14), the thread that connected the device has to do.
 */
import type { ConnectedDevice } from '../linux/nbd-sysfs.js';

const prefix = 'http-nbd-transfer';

export interface DeviceOwner {
  readonly name: string;
  readonly session: string;
}

export function formatIdentifier({ name, session }: DeviceOwner): string {
  return `${prefix}:${name}:${session}`;
}

/** Undefined: not a device of ours. A name may contain colons, a session does not. */
export function parseIdentifier(identifier: string): DeviceOwner | undefined {
  const match = /^http-nbd-transfer:(.+):([0-9a-f]+)$/.exec(identifier);
  const [, name, session] = match ?? [];
  return name === undefined || session === undefined ? undefined : { name, session };
}

/** What is known of a device since it was connected. */
export interface DeviceMark {
  readonly identifier: string;
  /** As sysfs shows it; a takeover does not change it. Undefined: it could not be read. */
  readonly thread?: number | undefined;
}

/** Whether what is configured under a device's number now is still that device. */
export function isSameDevice(found: ConnectedDevice, { identifier, thread }: DeviceMark): boolean {
  if (found.identifier !== '') return found.identifier === identifier;
  return thread !== undefined && found.thread === thread;
}
