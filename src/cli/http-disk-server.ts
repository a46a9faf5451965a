/** http-disk-server, started by bin/http-disk-server: wiring only. */
import { randomBytes } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { basename } from 'node:path';
import { sleep, systemClock } from '../base/clock.js';
import { Channel } from '../base/channel.js';
import { Drbdsetup } from '../disk/drbd.js';
import { openDisk, type DiskEvent } from '../disk/open-disk.js';
import { formatAccess } from '../disk-server/access-log.js';
import { DiskServer } from '../disk-server/disk-server.js';
import { type KillTimer, noKillTimer } from '../disk-server/fence.js';
import { HttpBinding } from '../disk-server/http-binding.js';
import { bootClock, lookAgain } from '../linux/boot-clock.js';
import { SystemError } from '../linux/errno.js';
import { BootKillTimer } from '../linux/kill-timer.js';
import { endProcess, isIoFlusher } from '../linux/process.js';
import { Log } from '../observability/log.js';
import { DiskServerProgram } from './disk-server-program.js';
import { type HttpDiskServerOptions, parseHttpDiskServerOptions } from './http-disk-server-options.js';

/** For the log's prefix; then it must do without the real path. */
const realPathWaitMs = 1000;
const keepAliveMs = 2 ** 30;

export async function main(args: readonly string[]): Promise<void> {
  const parsed = parseHttpDiskServerOptions(args);
  if (parsed.at === 'ended') {
    process[parsed.stream].write(parsed.text);
    process.exitCode = parsed.exitCode;
    return;
  }
  // Nothing else keeps the process alive while it waits for a disk or a port: no timer of the clock does.
  setInterval(() => {}, keepAliveMs);
  const signal = new Promise<'SIGTERM' | 'SIGINT'>((resolve) => {
    process.on('SIGTERM', resolve).on('SIGINT', resolve);
  });
  const log = new Log('stderr', await nameOf(parsed.options.disk));
  const exit = (code: 0 | 1) => {
    log.flush();
    endProcess(code);
  };
  process.on('uncaughtException', (error) => {
    log.line(`Got exception: \`${error.stack ?? String(error)}\`.`);
    exit(1);
  });
  const { program, core, binding } = wire(parsed.options, log, exit);
  void signal.then((name) => program.stop(name));
  await program.start(core, binding);
}

function wire(options: HttpDiskServerOptions, log: Log, exit: (code: 0 | 1) => void) {
  const { disk: diskPath, ip, port, readOnly, direct, verbose } = options;
  const events = new Channel<DiskEvent>();
  events.subscribe(({ reason }) => log.line(`The disk is read-only: \`${reason}\`.`));
  if (readOnly) events.publish({ is: 'opened-read-only', reason: '--read-only' });
  const program = new DiskServerProgram({
    ...{ diskPath, log, exit, clock: systemClock },
    address: ip === undefined ? { port } : { host: ip, port },
  });
  const drbdsetup = new Drbdsetup();
  const core = new DiskServer({
    clock: bootClock,
    killTimer: openKillTimer(log),
    openDisk: program.opener(() => openDisk(diskPath, { readOnly, direct, events, drbdsetup })),
    newInstance: () => randomBytes(16).toString('hex'),
  });
  const binding = new HttpBinding({ core, clock: systemClock, arrived: lookAgain });
  if (verbose) {
    log.line(`Serves a disk as I/O flusher: ${isIoFlusher() ? 'yes' : 'no'}.`);
    binding.accesses.subscribe((access) => log.line(formatAccess(access, new Date())));
  }
  return { program, core, binding };
}

/** Without it everything works as well, but for one promise (docs/reliability.md). */
function openKillTimer(log: Log): KillTimer {
  try {
    return new BootKillTimer();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    log.line(`No timer that ends this process when it is stopped with writes on their way: \`${error.code}\`.`);
    return noKillTimer;
  }
}

/** The last part of the path that the disk really has. */
async function nameOf(path: string): Promise<string> {
  const real = await Promise.race([realpath(path).catch(() => path), sleep(systemClock, realPathWaitMs)]);
  return basename(real ?? path);
}
