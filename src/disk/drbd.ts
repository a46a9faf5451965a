/**
 * DRBD: whether a device may be opened here now. With DRBD 9 an open for writing makes this host Primary (auto-promote),
 * which must not be tried while a peer is: it could succeed during a break of the connection between the two.
 * Promise: an answer within a few seconds, also when drbdsetup is missing, fails, hangs or prints what nobody expects;
 * then the kernel alone decides.
 */
import { Failure } from '../base/failure.js';
import { type CommandOutcome, runCommand } from './command.js';

export interface DrbdDevice {
  readonly path: string;
  readonly minor: number;
}

const timeoutMs = 3000;

export type CommandRunner = (command: string, args: readonly string[], timeoutMs: number) => Promise<CommandOutcome>;

/**
 * The peer that is Primary, so that the device must not be opened here; undefined: nothing speaks against it. Rejects
 * with `unavailable` when drbdsetup was killed: with its whole process group, this program is about to be told to stop.
 */
export async function primaryPeer(device: DrbdDevice, run: CommandRunner = runCommand): Promise<string | undefined> {
  const resource = resourceOf(device.path);
  const args = resource === undefined ? ['status', '--json'] : ['status', resource, '--json'];
  const status = await run('drbdsetup', args, timeoutMs);
  if (status.at === 'done') return primaryPeerIn(status.stdout, resource, device.minor);
  if (status.at === 'interrupted') throw new Failure('unavailable', 'drbdsetup was interrupted');
  if (status.at === 'timed-out') return undefined;
  // DRBD 8.4 has no JSON. It prints both roles of its one connection, ours first: `Secondary/Primary`.
  const role = await run('drbdsetup', ['role', String(device.minor)], timeoutMs);
  if (role.at !== 'done') return undefined;
  return /^(?:Secondary|Unknown)\/Primary$/.test(role.stdout.trim()) ? 'the peer' : undefined;
}

/** The resource in `/dev/drbd/by-res/RESOURCE/VOLUME`. */
function resourceOf(path: string): string | undefined {
  return /^\/dev\/drbd\/by-res\/([^/]+)\/\d+$/.exec(path)?.[1];
}

/** The `status --json` of DRBD 9: [{name, role, devices: [{minor}], connections: [{name, "peer-role"}]}]. */
function primaryPeerIn(json: string, name: string | undefined, minor: number): string | undefined {
  const resource = list(parse(json)).find((entry) =>
    name === undefined
      ? list(field(entry, 'devices')).some((device) => field(device, 'minor') === minor)
      : field(entry, 'name') === name,
  );
  if (field(resource, 'role') === 'Primary') return undefined;
  const peer = list(field(resource, 'connections')).find((entry) => field(entry, 'peer-role') === 'Primary');
  const peerName = field(peer, 'name');
  return peer === undefined ? undefined : typeof peerName === 'string' ? peerName : 'a peer';
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
