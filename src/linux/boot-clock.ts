/**
 * CLOCK_BOOTTIME as a Clock: it goes on while the machine is suspended, which CLOCK_MONOTONIC does not. Deadlines are
 * told in it, because a suspended server must not take a write that its sender gave up meanwhile.
 */
import { type Clock, systemClock } from '../base/clock.js';
import { LibcFunction } from './libc.js';

const CLOCK_BOOTTIME = 7;
const clockGettime = new LibcFunction('int clock_gettime(int clock, void *time)');

/** struct timespec { s64 seconds; s64 nanoseconds }, of a 64-bit machine. Reused: the call is over when it returns. */
const timespec = new BigInt64Array(2);

export const bootClock: Clock = {
  nowMs() {
    clockGettime.callOrThrow(CLOCK_BOOTTIME, timespec);
    return Number(timespec[0]) * 1000 + Number(timespec[1]) / 1e6;
  },
  after: (delayMs, run) => systemClock.after(delayMs, run),
};
