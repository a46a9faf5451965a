/**
 * A timer of the kernel that kills this process: timer_create(2) with CLOCK_BOOTTIME and SIGKILL. It strikes while the process is
 * stopped, too (SIGSTOP, gdb, a frozen cgroup), and none of its threads runs again.
 */
import { constants } from 'node:os';
import { lookAgain } from './boot-clock.js';
import { LibcFunction } from './libc.js';
import { SystemError } from './errno.js';

/** System call numbers: the wrappers' library differs from one C library to the next. */
const numbersOf: Readonly<Record<string, { readonly create: number; readonly settime: number }>> = {
  x64: { create: 222, settime: 223 },
  arm64: { create: 107, settime: 110 },
};

const CLOCK_BOOTTIME = 7;
const TIMER_ABSTIME = 1;
/** Process 1 of a PID namespace gets no SIGKILL from inside of it. */
const unkillablePid = 1;

const timerCreate = new LibcFunction('long syscall(long number, long clock, void* event, void* id)');
const timerSettime = new LibcFunction('long syscall(long number, long id, long flags, void* value, void* before)');

export class BootKillTimer {
  readonly #settimeNumber: number;
  readonly #id: number;
  /** struct itimerspec { interval, value }, each a struct timespec { s64 seconds; s64 nanoseconds }. Reused. */
  readonly #value = new BigInt64Array(4);

  /** Throws a {@link SystemError} where there is no such timer. */
  constructor() {
    const numbers = numbersOf[process.arch];
    if (numbers === undefined) throw new SystemError(constants.errno.ENOSYS, 'timer_create');
    if (process.pid === unkillablePid) throw new SystemError(constants.errno.EPERM, 'timer_create');
    // struct sigevent { u64 value; s32 signo; s32 notify (SIGEV_SIGNAL is 0); … } of 64 bytes.
    const event = Buffer.alloc(64);
    event.writeInt32LE(constants.signals.SIGKILL, 8);
    const id = Buffer.alloc(4);
    timerCreate.callOrThrow(numbers.create, CLOCK_BOOTTIME, event, id);
    this.#settimeNumber = numbers.settime;
    this.#id = id.readInt32LE();
  }

  /** When, in milliseconds of CLOCK_BOOTTIME. Undefined: not at all. What is checked after it is checked with the time as it is then. */
  set(atMs: number | undefined): void {
    const seconds = atMs === undefined ? 0 : Math.floor(atMs / 1000);
    this.#value[2] = BigInt(seconds);
    // All zeroes would turn it off.
    this.#value[3] = atMs === undefined ? 0n : BigInt(Math.max(1, Math.floor((atMs - seconds * 1000) * 1e6)));
    timerSettime.callOrThrow(this.#settimeNumber, this.#id, TIMER_ABSTIME, this.#value, null);
    lookAgain();
  }
}
