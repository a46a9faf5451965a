/**
 * Rounds: each contender in turn (A B C A B C …), fresh processes each time, so that what the machine does meanwhile hits
 * all of them alike. What is reported is the median over the rounds.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Contender } from './contenders.js';
import { fio, type Measured } from './fio.js';
import { settle } from './image.js';
import { median } from './median.js';
import { cpuSeconds, peakBytes } from './process.js';
import type { Workload } from './workloads.js';

export interface Plan {
  readonly contenders: readonly Contender[];
  readonly workloads: readonly Workload[];
  readonly rounds: number;
  readonly seconds: number;
  readonly image: string;
  readonly imageBytes: number;
  readonly folder: string;
}

interface Sample extends Measured {
  readonly cpuSecondsPerGib: number;
  readonly cpuSecondsPer100k: number;
  readonly peakBytes: Readonly<Record<string, number>>;
}

/** One line of the table: a contender's medians in one workload. */
export interface Row {
  readonly workload: string;
  readonly contender: string;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly medianUs: number;
  readonly p99Us: number;
  /** Of all its processes together. */
  readonly cpuSecondsPerGib: number;
  readonly cpuSecondsPer100k: number;
  /** The largest over the rounds, for each process. */
  readonly peakBytes: Readonly<Record<string, number>>;
  /** Requests per second, round by round. */
  readonly rounds: readonly number[];
}

/** A runtime that compiles while it runs is measured as it is after a while: all contenders get the same time for it. */
const warmUpSeconds = 3;

export async function measure(plan: Plan, progress: (text: string) => void): Promise<Row[]> {
  const rows: Row[] = [];
  for (const workload of plan.workloads) {
    const samples = new Map<string, Sample[]>();
    const able = plan.contenders.filter((contender) => !(workload.writes && contender.readOnly));
    for (let round = 1; round <= plan.rounds; round++) {
      for (const contender of able) {
        progress(`${workload.title}: ${contender.name}, round ${round} of ${plan.rounds}`);
        const sample = await measureOnce(plan, workload, contender);
        samples.set(contender.name, [...(samples.get(contender.name) ?? []), sample]);
      }
    }
    for (const [contender, taken] of samples) rows.push(summarize(workload.name, contender, taken));
  }
  return rows;
}

async function measureOnce(plan: Plan, workload: Workload, contender: Contender): Promise<Sample> {
  const folder = await mkdtemp(join(plan.folder, 'run-'));
  const setup = await contender.start(plan.image, folder);
  try {
    await fio(setup.uri, workload.job, plan.imageBytes, { seconds: Math.min(warmUpSeconds, plan.seconds) });
    await settle(plan.image);
    const cpuBefore = totalCpuSeconds(setup.roles);
    const measured = await fio(setup.uri, workload.job, plan.imageBytes, { seconds: plan.seconds });
    const cpu = totalCpuSeconds(setup.roles) - cpuBefore;
    return {
      ...measured,
      cpuSecondsPerGib: cpu / (measured.bytes / 2 ** 30),
      cpuSecondsPer100k: cpu / (measured.requests / 100_000),
      peakBytes: Object.fromEntries(setup.roles.map((role) => [role.name, peakBytes(role.process.pid)])),
    };
  } finally {
    for (const role of setup.roles) await role.process.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

function totalCpuSeconds(roles: readonly { readonly process: { readonly pid: number } }[]): number {
  return roles.reduce((total, role) => total + cpuSeconds(role.process.pid), 0);
}

function summarize(workload: string, contender: string, samples: readonly Sample[]): Row {
  const medianOf = (field: (sample: Sample) => number): number => median(samples.map(field));
  const roles = Object.keys(samples[0]?.peakBytes ?? {});
  return {
    workload,
    contender,
    requestsPerSecond: medianOf((sample) => sample.requestsPerSecond),
    bytesPerSecond: medianOf((sample) => sample.bytesPerSecond),
    medianUs: medianOf((sample) => sample.medianUs),
    p99Us: medianOf((sample) => sample.p99Us),
    cpuSecondsPerGib: medianOf((sample) => sample.cpuSecondsPerGib),
    cpuSecondsPer100k: medianOf((sample) => sample.cpuSecondsPer100k),
    peakBytes: Object.fromEntries(
      roles.map((role) => [role, Math.max(...samples.map((sample) => sample.peakBytes[role] ?? 0))]),
    ),
    rounds: samples.map((sample) => Math.round(sample.requestsPerSecond)),
  };
}
