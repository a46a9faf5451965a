/** What the kernel's log says, and what must not be there. */
import { run } from './commands.js';

const complaint = /\bBUG:|\bWARNING:|\bOops:|blocked for more than \d+ seconds|\bCall Trace:|possible circular locking/;
let linesSeen = 0;

/** Each line is returned once. */
export async function kernelComplaints(): Promise<string[]> {
  const lines = (await run('dmesg')).split('\n');
  const fresh = lines.slice(linesSeen);
  linesSeen = lines.length - 1;
  return fresh.filter((line) => complaint.test(line));
}

/** What the kernel says when it gave up a socket or waited for a time-out of a device. */
export const socketLost = /nbd\d+: (?:Dead connection|Connection timed out|Possible stuck request|Receive|Send)/;

/** The lines since the beginning of this case that match. */
export async function kernelLines(pattern: RegExp): Promise<string[]> {
  const lines = (await run('dmesg')).split('\n');
  const start = lines.findLastIndex((line) => line.includes('case: '));
  return lines.slice(start).filter((line) => pattern.test(line));
}
