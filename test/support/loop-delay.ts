/** Preloaded into a program (`node --import`): on SIGUSR2 it tells on stderr how late its event loop was since the last time, at most. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

const delays = monitorEventLoopDelay({ resolution: 10 });
delays.enable();

process.on('SIGUSR2', () => {
  process.stderr.write(`event loop: at most ${Math.round(delays.max / 1e6)} ms late\n`);
  delays.reset();
});
