/**
 * `npm run simulate -- --seeds N [--from SEED]`: runs seeds, and prints a shrunk schedule of the first that fails.
 * `npm run simulate -- --mutants [--only TEXT]`: shows that the checkers can fail.
 */
import { parseArgs } from 'node:util';
import { runMutants } from './mutants.js';
import { type Plan, planFor } from './plan.js';
import { runPlan } from './run.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    log: { type: 'boolean', default: false },
    'no-shrink': { type: 'boolean', default: false },
    mutants: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
/** A planted bug that is not caught within so many seeds is a fault of the simulation. */
const mutantSeedsMax = 20_000;

if (values.mutants) {
  const missed = runMutants(values.only, mutantSeedsMax);
  process.stdout.write(missed === 0 ? 'every planted bug was caught\n' : `${missed} planted bugs were not caught\n`);
  process.exitCode = missed === 0 ? 0 : 1;
} else {
  process.exitCode = (await runSeeds(Number(values.from), Number(values.seeds))) ? 0 : 1;
}

async function runSeeds(from: number, count: number): Promise<boolean> {
  const startedMs = performance.now();
  let events = 0;
  for (let seed = from; seed < from + count; seed += 1) {
    const plan = planFor(seed);
    const verdict = await runPlan(plan);
    events += verdict.events;
    if (values.log) process.stdout.write(`${verdict.log.join('\n')}\n`);
    if (verdict.violation !== undefined) {
      process.stdout.write(`seed ${seed}: ${verdict.violation}\n`);
      if (!values['no-shrink']) await printShrunk(plan);
      process.stdout.write(`Replay: npm run simulate -- --seeds 1 --from ${seed} --log\n`);
      return false;
    }
    if ((seed - from + 1) % 10_000 === 0) process.stdout.write(`${seed - from + 1} seeds, ${events} events\n`);
  }
  const seconds = (performance.now() - startedMs) / 1000;
  process.stdout.write(`${count} seeds from ${from}: no violation (${events} events, ${seconds.toFixed(1)} s)\n`);
  return true;
}

/** Leaves out faults and clients' steps one by one, as long as the run still fails. */
async function printShrunk(whole: Plan): Promise<void> {
  let plan = whole;
  for (let shrunk = true; shrunk; ) {
    shrunk = false;
    for (const smaller of smallerPlans(plan)) {
      if ((await runPlan(smaller)).violation === undefined) continue;
      plan = smaller;
      shrunk = true;
      break;
    }
  }
  const { violation, log } = await runPlan(plan);
  const { clients, faults, ...rest } = plan;
  process.stdout.write(`shrunk to ${faults.length} faults, ${clients.flat().length} steps; ${JSON.stringify(rest)}\n`);
  process.stdout.write(`${log.join('\n')}\n${violation}\n`);
}

function* smallerPlans(plan: Plan): Generator<Plan> {
  for (const index of plan.faults.keys()) yield { ...plan, faults: plan.faults.toSpliced(index, 1) };
  for (const [client, steps] of plan.clients.entries()) {
    const half = Math.ceil(steps.length / 2);
    if (steps.length > 4) yield { ...plan, clients: plan.clients.with(client, steps.slice(0, half)) };
    if (steps.length > 4) yield { ...plan, clients: plan.clients.with(client, steps.slice(half)) };
    for (const index of steps.keys()) yield { ...plan, clients: plan.clients.with(client, steps.toSpliced(index, 1)) };
  }
}
