/** Runs fio with its NBD engine and reads what it measured. Promise: an I/O error that fio saw is a failure here. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const reportBytesMax = 64 * 2 ** 20;

export interface Job {
  /** fio's `rw`. */
  readonly pattern: 'randread' | 'randwrite' | 'randrw' | 'read' | 'write';
  readonly blockBytes: number;
  readonly depth: number;
  /** A flush after this many writes. */
  readonly flushEvery?: number;
  /** Percent of reads in a mix. */
  readonly readPercent?: number;
}

export interface Measured {
  readonly requests: number;
  readonly bytes: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Completion latency, microseconds. Of the slower direction in a mix. */
  readonly medianUs: number;
  readonly p99Us: number;
}

interface Direction {
  readonly total_ios: number;
  readonly io_bytes: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

interface Report {
  readonly jobs: readonly { readonly error: number; readonly read: Direction; readonly write: Direction }[];
}

/** Until `seconds` have passed, or `bytes` have been transferred, whichever is given. */
export type Limit = { readonly seconds: number } | { readonly bytes: number };

export async function fio(uri: string, job: Job, sizeBytes: number, limit: Limit): Promise<Measured> {
  const options = {
    name: job.pattern,
    ioengine: 'nbd',
    uri,
    rw: job.pattern,
    bs: job.blockBytes,
    iodepth: job.depth,
    size: sizeBytes,
    ...('seconds' in limit
      ? { runtime: `${Math.round(limit.seconds * 1000)}ms`, time_based: 1 }
      : { io_size: Math.ceil(limit.bytes) }),
    ...(job.flushEvery === undefined ? {} : { fsync: job.flushEvery }),
    ...(job.readPercent === undefined ? {} : { rwmixread: job.readPercent }),
    thread: 1,
    randrepeat: 0,
    norandommap: 1,
    'output-format': 'json',
  };
  const args = Object.entries(options).map(([option, value]) => `--${option}=${value}`);
  const { stdout } = await run('fio', args, { maxBuffer: reportBytesMax });
  // fio prints a line of its own before the report.
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as Report;
  const result = report.jobs[0];
  if (result === undefined || result.error !== 0) throw new Error(`fio failed:\n${stdout}`);
  const directions = [result.read, result.write].filter((direction) => direction.total_ios > 0);
  if (directions.length === 0) throw new Error(`fio did nothing:\n${stdout}`);
  const total = (field: (direction: Direction) => number): number =>
    directions.reduce((sum, direction) => sum + field(direction), 0);
  const slowest = (percentile: string): number =>
    Math.max(...directions.map((direction) => (direction.clat_ns.percentile?.[percentile] ?? 0) / 1000));
  return {
    requests: total((direction) => direction.total_ios),
    bytes: total((direction) => direction.io_bytes),
    requestsPerSecond: total((direction) => direction.iops),
    bytesPerSecond: total((direction) => direction.bw_bytes),
    medianUs: slowest('50.000000'),
    p99Us: slowest('99.000000'),
  };
}
