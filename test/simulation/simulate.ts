/** `npm run simulate -- --seeds N [--from SEED]`: runs seeds, and prints a shrunk schedule of the first that fails. */
import { parseArgs } from 'node:util';
import { type Plan, planFor } from './plan.js';
import { runPlan } from './run.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    log: { type: 'boolean', default: false },
  },
});
const from = Number(values.from);
const count = Number(values.seeds);
const startedMs = performance.now();
let events = 0;

for (let seed = from; seed < from + count; seed += 1) {
  const plan = planFor(seed);
  const verdict = await runPlan(plan);
  events += verdict.events;
  if (values.log) process.stdout.write(`${verdict.log.join('\n')}\n`);
  if (verdict.violation !== undefined) {
    process.stdout.write(`seed ${seed}: ${verdict.violation}\n`);
    await printShrunk(plan);
    process.stdout.write(
      `\nseed ${seed} FAILED: ${verdict.violation}\nReplay: npm run simulate -- --seeds 1 --from ${seed} --log\n`,
    );
    process.exitCode = 1;
    break;
  }
  if ((seed - from + 1) % 1000 === 0) process.stdout.write(`${seed - from + 1} seeds, ${events} events\n`);
}
if (process.exitCode === undefined) {
  const seconds = (performance.now() - startedMs) / 1000;
  process.stdout.write(`${count} seeds from ${from}: no violation (${events} events, ${seconds.toFixed(1)} s)\n`);
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
    if (steps.length > 4)
      yield { ...plan, clients: plan.clients.with(client, steps.slice(0, Math.ceil(steps.length / 2))) };
    if (steps.length > 4)
      yield { ...plan, clients: plan.clients.with(client, steps.slice(Math.floor(steps.length / 2))) };
    for (const index of steps.keys()) yield { ...plan, clients: plan.clients.with(client, steps.toSpliced(index, 1)) };
  }
}
