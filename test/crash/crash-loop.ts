/**
 * `npm run crash-loop -- [--minutes N]`: the fault loop for N minutes (default 1), half of them in each cache mode, and before that how
 * long a failover takes. Exits with 1, and says what happened before it, when anything is wrong.
 */
import { parseArgs } from 'node:util';
import type { Cleanup } from '../support/processes.js';
import { measureFailover } from './failover-times.js';
import { runFaultLoop } from './fault-loop.js';

const linesShownMax = 20;

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '1' } } });
const minutes = Number(values.minutes);
if (!(minutes > 0)) {
  console.error('crash-loop: --minutes is a number of minutes, for example 10');
  process.exit(2);
}

/** Undoes everything, the last thing first. */
class Undoing implements Cleanup {
  readonly #steps: (() => void | Promise<void>)[] = [];

  after(step: () => void | Promise<void>): void {
    this.#steps.push(step);
  }

  async undo(): Promise<void> {
    for (const step of this.#steps.toReversed()) await step();
  }
}

async function cleanly<Value>(what: (cleanup: Cleanup) => Promise<Value>): Promise<Value> {
  const undoing = new Undoing();
  try {
    return await what(undoing);
  } finally {
    await undoing.undo();
  }
}

async function loop(mode: 'writethrough' | 'writeback'): Promise<void> {
  const lines: string[] = [];
  try {
    const report = await cleanly((t) => runFaultLoop(t, mode, (minutes * 60) / 2, (line) => void lines.push(line)));
    const { read, write, fua, flush } = report.counts;
    console.log(`${mode}: every block of ${report.rounds} rounds is right`);
    console.log(`  ${read} reads, ${write} writes, ${fua} FUA writes, ${flush} flushes answered`);
    console.log(
      `  ${report.kills} servers killed, ${report.fenced} ended by the kernel, ${report.replayedWrites} writes replayed`,
    );
    for (const [fault, count] of report.faults) console.log(`  ${count} × ${fault}`);
  } catch (error) {
    for (const line of lines.slice(-linesShownMax)) console.error(line);
    throw error;
  }
}

for (const line of await cleanly(measureFailover)) console.log(line);
await loop('writethrough');
await loop('writeback');
