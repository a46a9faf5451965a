/**
 * The program that runs inside the virtual machine: runs the cases of all suites in order, and reports each.
 * Argument: a regular expression that selects cases by name ('' for all).
 * Promise: exits with 0 only if at least one case ran and none failed.
 */
import { appendFileSync, closeSync, openSync, writeSync } from 'node:fs';
import { inspect } from 'node:util';
import type { Report } from '../report.js';
import { type CaseContext, type MachineCase, machineCases } from './cases.js';
import { kernelComplaints } from './kernel-log.js';
import './machine.js';
import './attach.js';
import './drbd.js';
import './drbd-failover.js';
import './drbd-setup.js';
import './filesystems.js';
import './growth.js';
import './hand-over.js';
import './pressure.js';
import './run-folder.js';
import './service.js';
import './sharing.js';
import './slow-disk.js';
import './storage-manager.js';
import './takeover.js';

const port = openSync('/dev/vport0p1', 'w');

function report(what: Report): void {
  writeSync(port, `${JSON.stringify(what)}\n`);
}

async function runCase(one: MachineCase): Promise<boolean> {
  const lines: string[] = [];
  const cleanUps: (() => unknown)[] = [];
  const context: CaseContext = {
    note: (line) => void lines.push(line),
    after: (cleanUp) => void cleanUps.push(cleanUp),
  };
  // The kernel's log shows where each case began.
  appendFileSync('/dev/kmsg', `case: ${one.name}\n`);
  const startedMs = performance.now();
  let ok = true;
  const fail = (error: unknown) => {
    ok = false;
    lines.push(error instanceof Error ? (error.stack ?? error.message) : inspect(error));
  };
  const attempt = async (what: () => unknown) => {
    try {
      await within(one.timeLimitMs, what);
    } catch (error) {
      fail(error);
    }
  };
  // What nobody waits for yet is this case's failure, not the end of all cases.
  process.on('unhandledRejection', fail);
  await attempt(() => one.run(context));
  for (const cleanUp of cleanUps.toReversed()) await attempt(cleanUp);
  process.off('unhandledRejection', fail);
  const complaints = await kernelComplaints();
  if (complaints.length > 0) ok = false;
  lines.push(...complaints.map((line) => `kernel: ${line}`));
  report({ event: 'end', name: one.name, ok, ms: performance.now() - startedMs, output: lines.join('\n') });
  return ok;
}

async function within(limitMs: number, what: () => unknown): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not finished after ${limitMs} ms`)), limitMs);
  });
  try {
    await Promise.race([what(), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function main(): Promise<number> {
  const pattern = process.argv[2] ?? '';
  const selected = machineCases.filter(({ name }) => new RegExp(pattern).test(name));
  report({ event: 'plan', names: selected.map(({ name }) => name) });
  let failed = selected.length === 0;
  for (const one of selected) failed = !(await runCase(one)) || failed;
  return failed ? 1 : 0;
}

const exitCode = await main();
closeSync(port);
// A case that failed may have left something that would keep the process alive.
process.exit(exitCode);
