/**
 * The text by which the kernel knows a device of ours (/sys/block/nbdN/backend): whose it is, and of which lineage of processes.
 * `http-nbd-transfer:NAME:SESSION`
 */
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
