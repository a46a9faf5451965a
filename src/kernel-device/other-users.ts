/**
 * The other users of network block devices on this host: what they left behind, and the lock under which some of them look for a free
 * device (XAPI's nbd_client_manager), so that we do not take the one that they have just found.
 */
import { closeSync, existsSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Clock, sleep } from '../base/clock.js';
import { tryLock } from '../linux/flock.js';
import { type ConnectedDevice, connectedDevices } from '../linux/nbd-sysfs.js';
import { parseIdentifier } from './identifier.js';

const choiceLockPath = '/var/run/nonpersistent/nbd_client_manager';
const choiceWaitMs = 2000;
const choiceRetryMs = 20;

/** Runs `choose` while nobody else looks for a free device; waits a moment at the most, because they may hold it for long. */
export async function whileChoosing<T>(clock: Clock, choose: () => Promise<T>): Promise<T> {
  if (!existsSync(dirname(choiceLockPath))) return choose();
  let lock: number;
  try {
    lock = openSync(choiceLockPath, 'a', 0o644);
  } catch {
    return choose();
  }
  try {
    const endMs = clock.nowMs() + choiceWaitMs;
    while (!tryLock(lock) && clock.nowMs() < endMs) await sleep(clock, choiceRetryMs);
    return await choose();
  } finally {
    closeSync(lock);
  }
}

/** Whose a device is: of a volume of ours, which has that name, or somebody else's. */
export type Listed = ConnectedDevice & {
  readonly volume: string | undefined;
  /** `unknown`: ours, and we may not see whether it is served. `foreign`: nothing is known of it. */
  readonly state: 'alive' | 'dead' | 'unknown' | 'foreign';
};

/** `devices`, and whose they are. A volume of ours lives as long as its lock is held. */
export function listDevices(
  isHeld: (volume: string) => boolean | undefined,
  devices: readonly ConnectedDevice[] = connectedDevices(),
): Listed[] {
  return devices.map((device) => {
    const volume = parseIdentifier(device.identifier)?.name;
    if (volume === undefined) return { ...device, volume, state: 'foreign' };
    const held = isHeld(volume);
    return { ...device, volume, state: held === undefined ? 'unknown' : held ? 'alive' : 'dead' };
  });
}
