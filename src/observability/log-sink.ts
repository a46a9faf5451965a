/**
 * Where log bytes go: standard output or standard error, whatever stands behind it.
 * Promise: never throws; never waits for a reader of a pipe or socket; leaves the flags of the descriptor, which other
 * processes share, as they are.
 */
import { closeSync, constants, fstatSync, openSync, type Stats, writeSync } from 'node:fs';
import { errnoOf } from '../linux/errno.js';
import { sendNow } from '../linux/socket.js';

/** Writes what can be written at once: the number of bytes, `full` (try later), or `gone` (nobody will ever read). */
export type LogSink = (bytes: Buffer) => number | 'full' | 'gone';

/** The sink of an open descriptor (1 or 2). */
export function openSink(fd: number): LogSink {
  let stats: Stats;
  try {
    stats = fstatSync(fd);
  } catch {
    return () => 'gone';
  }
  if (stats.isSocket()) return (bytes) => attempt(() => sendNow(fd, bytes));
  const own = stats.isFIFO() ? reopenNonBlocking(fd) : undefined;
  return (bytes) => attempt(() => writeSync(own ?? fd, bytes));
}

/** The same pipe, opened anew: O_NONBLOCK then holds for us alone. Undefined where that is not allowed. */
function reopenNonBlocking(fd: number): number | undefined {
  try {
    const own = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
    if (fstatSync(own).isFIFO()) return own;
    closeSync(own);
  } catch {
    // No /proc, another owner, or nobody reads any more: the descriptor itself must do.
  }
  return undefined;
}

function attempt(write: () => number): ReturnType<LogSink> {
  try {
    return write();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'EAGAIN' || errno === 'EINTR' || errno === 'ENOBUFS') return 'full';
    if (errno === undefined) throw error;
    return 'gone';
  }
}
