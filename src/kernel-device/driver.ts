/** The kernel's nbd driver, loaded if need be. */
import { execFile } from 'node:child_process';
import { Failure } from '../base/failure.js';
import { errnoOf } from '../linux/errno.js';
import { NbdDriver } from '../linux/nbd-netlink.js';

const modprobeWaitMs = 5000;

/** Rejects with a `Failure` that says in one line why this machine has no network block devices for us. */
export async function findDriver(): Promise<NbdDriver> {
  const found = (await find()) ?? (await loadModule().then(find));
  if (found !== undefined) return found;
  throw new Failure('unavailable', 'This kernel has no network block devices: `modprobe nbd` did not help.');
}

async function find(): Promise<NbdDriver | undefined> {
  try {
    return await NbdDriver.find();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    throw new Failure('unavailable', `The nbd driver of the kernel cannot be reached: \`${errno}\`.`);
  }
}

/** Whether it succeeded shows in whether the driver is there afterwards. */
function loadModule(): Promise<void> {
  const options = { timeout: modprobeWaitMs, killSignal: 'SIGKILL' } as const;
  return new Promise((resolve) => void execFile('modprobe', ['nbd'], options, () => resolve()));
}
