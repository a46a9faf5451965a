/**
 * Two things that no rate shows: whether memory comes back after a million requests, and whether a sequential stream at
 * full speed starves a depth-1 reader on another connection.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Contender, Setup } from './contenders.js';
import { fio } from './fio.js';
import { settle } from './image.js';
import { residentBytes } from './process.js';
import type { Workload } from './workloads.js';

export interface Endurance {
  /** Resident bytes of each process: after a first burst, after the requests, and idle for a while after them. */
  readonly requests: number;
  readonly memory: readonly {
    readonly role: string;
    readonly before: number;
    readonly after: number;
    readonly idle: number;
  }[];
  /** Microseconds of one 4 KiB read at depth 1, median: alone, and beside a sequential stream. */
  readonly aloneUs: number;
  readonly besideStreamUs: number;
}

export interface EndurancePlan {
  readonly image: string;
  readonly imageBytes: number;
  readonly folder: string;
  readonly requests: number;
  readonly idleSeconds: number;
  readonly seconds: number;
  readonly random: Workload;
  readonly single: Workload;
  readonly stream: Workload;
}

export async function endure(contender: Contender, plan: EndurancePlan): Promise<Endurance> {
  const folder = await mkdtemp(join(plan.folder, 'endurance-'));
  const setup = await contender.start(plan.image, folder);
  try {
    const memory = await memoryAfter(setup, plan);
    await settle(plan.image);
    const alone = await fio(setup.uri, plan.single.job, plan.imageBytes, { seconds: plan.seconds });
    // The stream starts first and ends last.
    const stream = fio(setup.uri, plan.stream.job, plan.imageBytes, { seconds: plan.seconds + 2 });
    await delay(1_000);
    const beside = await fio(setup.uri, plan.single.job, plan.imageBytes, { seconds: plan.seconds });
    await stream;
    return { requests: plan.requests, memory, aloneUs: alone.medianUs, besideStreamUs: beside.medianUs };
  } finally {
    for (const role of setup.roles) await role.process.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** "Before" is after a first burst: what a runtime loads and compiles once is no leak. */
async function memoryAfter(setup: Setup, plan: EndurancePlan): Promise<Endurance['memory']> {
  const { random, imageBytes } = plan;
  const resident = (): number[] => setup.roles.map((role) => residentBytes(role.process.pid));
  await fio(setup.uri, random.job, imageBytes, { bytes: (plan.requests / 20) * random.job.blockBytes });
  const before = resident();
  await fio(setup.uri, random.job, imageBytes, { bytes: plan.requests * random.job.blockBytes });
  const after = resident();
  await delay(plan.idleSeconds * 1000);
  const idle = resident();
  return setup.roles.map((role, i) => ({
    role: role.name,
    before: before[i] ?? 0,
    after: after[i] ?? 0,
    idle: idle[i] ?? 0,
  }));
}
