/** nbd-server, started by bin/nbd-server: wiring only. */
import { systemClock } from '../base/clock.js';
import { endProcess } from '../linux/process.js';
import { Log } from '../observability/log.js';
import { deviceTable } from './device-table.js';
import { parseNbdServerOptions } from './nbd-server-options.js';
import { NbdServerProgram } from './nbd-server-program.js';

export async function main(args: readonly string[]): Promise<void> {
  if (args.includes('--list-devices')) {
    process.stdout.write(deviceTable());
    return;
  }
  const parsed = parseNbdServerOptions(args);
  if (parsed.at === 'ended') {
    process[parsed.stream].write(parsed.text);
    process.exitCode = parsed.exitCode;
    return;
  }
  const { options } = parsed;
  const log = new Log('stdout', options.name);
  const exit = (code: 0 | 1) => {
    log.flush();
    endProcess(code);
  };
  const program = new NbdServerProgram({ options, log, clock: systemClock, exit });
  process.on('SIGTERM', () => void program.stop('SIGTERM'));
  process.on('SIGUSR2', () => void program.handOver());
  process.on('SIGINT', () => void program.stop('SIGINT'));
  // The clock's timers keep no process alive, and while no server is found there is nothing else that would.
  setInterval(() => {}, 2 ** 30);
  await program.start();
}
