/** This process: how it ends when a thread is stuck in the kernel, and what the kernel knows of it. */
import { AssertionFailure } from '../base/assert.js';
import { LibcFunction } from './libc.js';

const PR_GET_IO_FLUSHER = 58;
const exitNow = new LibcFunction('void _exit(int code)');
const prctl = new LibcFunction(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
);

/**
 * Ends the process now, without joining the threads of the pool: `process.exit` waits for ever for one that is stuck in
 * a blocking open. Nothing is flushed: write the last log lines synchronously before.
 */
export function endProcess(code: number): never {
  exitNow.call(code);
  throw new AssertionFailure('the process has ended');
}

/**
 * Whether the kernel treats this thread as one that serves a disk (bin/ asks for it, so that all threads have it): memory pressure
 * then never makes it wait for I/O that itself is to do. Needs Linux 5.6 and CAP_SYS_RESOURCE.
 */
export function isIoFlusher(): boolean {
  return prctl.call(PR_GET_IO_FLUSHER, 0, 0, 0, 0) === 1;
}
