/** Makes a plan that fails smaller. */
import type { Plan } from './plan.js';
import { runPlan } from './run.js';

/** Leaves out faults and clients' steps one by one, as long as the run still fails in the same way. */
export async function shrink(whole: Plan): Promise<Plan> {
  let plan = whole;
  const kind = await kindOfViolation(whole);
  for (let shrunk = true; shrunk; ) {
    shrunk = false;
    for (const smaller of smallerPlans(plan)) {
      if ((await kindOfViolation(smaller)) !== kind) continue;
      plan = smaller;
      shrunk = true;
      break;
    }
  }
  return plan;
}

/** Without names and numbers. */
async function kindOfViolation(plan: Plan): Promise<string | undefined> {
  const { violation } = await runPlan(plan);
  return violation?.replace(/.*(?=is not explained).*/, 'not explained').replaceAll(/\d[\d.,]*/g, '');
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
