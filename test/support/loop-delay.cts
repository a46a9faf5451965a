/** Preloaded into a program (`node --require`): on SIGUSR2 it tells on stderr how late its event loop was since the last time, at most. */
const { monitorEventLoopDelay } = require('node:perf_hooks') as typeof import('node:perf_hooks');

const delays = monitorEventLoopDelay({ resolution: 10 });
delays.enable();

process.on('SIGUSR2', () => {
  process.stderr.write(`event loop: at most ${Math.round(delays.max / 1e6)} ms late\n`);
  delays.reset();
});
