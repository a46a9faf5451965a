/** What the kernel's log says that must not be there. Promise: each line is returned once. */
import { run } from './commands.js';

const complaint = /\bBUG:|\bWARNING:|\bOops:|blocked for more than \d+ seconds|\bCall Trace:|possible circular locking/;
let linesSeen = 0;

export async function kernelComplaints(): Promise<string[]> {
  const lines = (await run('dmesg')).split('\n');
  const fresh = lines.slice(linesSeen);
  linesSeen = lines.length - 1;
  return fresh.filter((line) => complaint.test(line));
}
