/** What is measured, and what is aimed at. */
import type { Job } from './fio.js';

export interface Workload {
  readonly name: string;
  readonly title: string;
  readonly job: Job;
  readonly writes: boolean;
}

const kibibyte = 2 ** 10;
const mebibyte = 2 ** 20;

const small = (pattern: Job['pattern'], depth: number): Job => ({ pattern, blockBytes: 4 * kibibyte, depth });
const large = (pattern: Job['pattern']): Job => ({ pattern, blockBytes: mebibyte, depth: 4 });

export const workloads: readonly Workload[] = [
  { name: 'randread-1', title: 'random read 4 KiB, depth 1', job: small('randread', 1), writes: false },
  { name: 'randread-32', title: 'random read 4 KiB, depth 32', job: small('randread', 32), writes: false },
  { name: 'randwrite-1', title: 'random write 4 KiB, depth 1', job: small('randwrite', 1), writes: true },
  { name: 'randwrite-32', title: 'random write 4 KiB, depth 32', job: small('randwrite', 32), writes: true },
  {
    name: 'randwrite-32-flush',
    title: 'random write 4 KiB, depth 32, a flush every 32 writes',
    job: { ...small('randwrite', 32), flushEvery: 32 },
    writes: true,
  },
  { name: 'read-1m', title: 'sequential read 1 MiB, depth 4', job: large('read'), writes: false },
  { name: 'write-1m', title: 'sequential write 1 MiB, depth 4', job: large('write'), writes: true },
  {
    name: 'mixed-16',
    title: 'random 4 KiB, 70 % reads, depth 16',
    job: { ...small('randrw', 16), readPercent: 70 },
    writes: true,
  },
];

export interface Target {
  readonly workload: string;
  readonly contender: string;
  readonly against: string;
  /** The rate of `contender` divided by that of `against`, in one run. */
  readonly ratioMin: number;
}

export const targets: readonly Target[] = [
  { workload: 'randread-32', contender: 'ours', against: 'curl-nginx', ratioMin: 6 },
  { workload: 'randread-32', contender: 'ours', against: 'nbd-nbd', ratioMin: 3 },
  { workload: 'randread-32', contender: 'ours', against: 'nbdkit-tcp', ratioMin: 1 },
  { workload: 'randread-1', contender: 'ours', against: 'curl-nginx', ratioMin: 1 },
  { workload: 'randwrite-32', contender: 'ours-wb', against: 'nbd-nbd', ratioMin: 2 },
  { workload: 'randwrite-1', contender: 'ours-wb', against: 'nbd-nbd', ratioMin: 1 },
  { workload: 'randwrite-32', contender: 'ours', against: 'ours-wb', ratioMin: 0.5 },
  { workload: 'read-1m', contender: 'ours', against: 'curl-nginx', ratioMin: 1.3 },
  { workload: 'write-1m', contender: 'ours-wb', against: 'nbd-nbd', ratioMin: 1 },
];

/** Each of our processes, in any workload, beside the writes that it retains (32 MiB by default). */
export const peakBytesMax = (200 + 32) * mebibyte;
