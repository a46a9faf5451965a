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

let readMs: number | undefined;

/** The next look is at the time as it is then. */
export function lookAgain(): void {
  readMs = undefined;
}

/**
 * It stands still until the next turn of the event loop, or {@link lookAgain}: a call through the FFI library costs a microsecond, and a
 * batch of requests asks several times for each. Whoever takes in requests calls {@link lookAgain} before, so that the time in an answer is
 * never one before its request came. That a check may see a time that has just passed changes nothing: between any check and its system
 * call the process may lose the processor anyway, and that is what the fence is for (docs/failover.md, rule S8).
 */
export const bootClock: Clock = {
  nowMs() {
    if (readMs !== undefined) return readMs;
    clockGettime.callOrThrow(CLOCK_BOOTTIME, timespec);
    readMs = Number(timespec[0]) * 1000 + Number(timespec[1]) / 1e6;
    setImmediate(lookAgain);
    return readMs;
  },
  after: (delayMs, run) => systemClock.after(delayMs, run),
};
