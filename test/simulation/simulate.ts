/**
 * `npm run simulate -- [--seeds N] [--from SEED] [--jobs N] [--resume FILE] [--statistics] [--log]`: runs seeds, and prints a shrunk schedule of
 * the first that fails.
 * `npm run simulate -- --mutants [--only TEXT] [--jobs N]`: shows that the checkers can fail.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { runMutants } from './mutant-runner.js';
import { planFor } from './plan.js';
import { runPlan } from './run.js';
import { runRange } from './seed-range.js';
import { shrink } from './shrink.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    resume: { type: 'string' },
    statistics: { type: 'boolean', default: false },
    log: { type: 'boolean', default: false },
    'no-shrink': { type: 'boolean', default: false },
    mutants: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const [from, count, jobs] = [values.from, values.seeds, values.jobs].map(wholeNumber) as [number, number, number];
const say = (text: string) => void process.stdout.write(`${text}\n`);

if (values.mutants) {
  const missed = await runMutants(values.only, jobs, say);
  say(missed === 0 ? 'every planted bug was caught' : `${missed} planted bugs were not caught`);
  process.exitCode = missed === 0 ? 0 : 1;
} else if (values.log) {
  for (let seed = from; seed < from + count; seed += 1) await show(seed);
} else {
  await runSeeds();
}

async function show(seed: number): Promise<void> {
  const { violation, log } = await runPlan(planFor(seed), { keepsLog: true });
  say(log.join('\n'));
  say(`seed ${seed}: ${violation ?? 'no violation'}`);
  if (violation !== undefined) process.exitCode = 1;
}

async function runSeeds(): Promise<void> {
  const startedMs = performance.now();
  const { seeds, events, statistics, failure } = await runRange({
    from,
    count,
    jobs,
    file: values.resume,
    progress: say,
  });
  if (values.statistics) say(statistics.format(seeds));
  if (failure === undefined) {
    const seconds = (performance.now() - startedMs) / 1000;
    say(`${seeds} seeds from ${from}: no violation (${events} events, ${seconds.toFixed(1)} s)`);
    return;
  }
  process.exitCode = 1;
  const { seed, violation } = failure;
  say(`seed ${seed}: ${violation}`);
  if (!values['no-shrink']) await printShrunk(seed);
  say(`Replay: npm run simulate -- --seeds 1 --from ${seed} --log`);
}

async function printShrunk(seed: number): Promise<void> {
  const plan = await shrink(planFor(seed));
  const { violation, log } = await runPlan(plan, { keepsLog: true });
  const { clients, faults, ...rest } = plan;
  say(`shrunk to ${faults.length} faults, ${clients.flat().length} steps; ${JSON.stringify(rest)}`);
  say(`${log.join('\n')}\n${violation}`);
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${text}: a whole number, at least 1, is wanted`);
  return value;
}
