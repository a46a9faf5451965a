/** The tables that people read. Rates are rounded; --json has them exact. */
import type { Contender } from './contenders.js';
import type { Endurance } from './endurance.js';
import type { ClientRow } from './http-clients.js';
import type { Row } from './measure.js';
import { peakBytesMax, type Target, targets, type Workload } from './workloads.js';

const mebibyte = 2 ** 20;

export interface Verdict extends Target {
  /** Undefined: one of the two was not measured. */
  readonly ratio: number | undefined;
}

export function verdicts(rows: readonly Row[]): Verdict[] {
  const rate = (workload: string, contender: string): number | undefined =>
    rows.find((row) => row.workload === workload && row.contender === contender)?.requestsPerSecond;
  return targets.map((target) => {
    const mine = rate(target.workload, target.contender);
    const theirs = rate(target.workload, target.against);
    return { ...target, ratio: mine === undefined || theirs === undefined ? undefined : mine / theirs };
  });
}

export function formatRows(rows: readonly Row[], workloads: readonly Workload[]): string {
  const lines = [
    '| workload | who | rate | ours ÷ this | median / p99 µs | CPU s per GiB | CPU s per 100 k | peak MiB |',
    '| --- | --- | --: | --: | --: | --: | --: | --- |',
  ];
  for (const workload of workloads) {
    const measured = rows.filter((row) => row.workload === workload.name);
    const ours = measured.find((row) => row.contender === 'ours');
    for (const row of measured) {
      const cells = [
        workload.title,
        row.contender,
        formatRate(row, workload),
        ours === undefined ? '–' : `${(ours.requestsPerSecond / row.requestsPerSecond).toFixed(2)} ×`,
        `${row.medianUs.toFixed(0)} / ${row.p99Us.toFixed(0)}`,
        row.cpuSecondsPerGib.toFixed(2),
        row.cpuSecondsPer100k.toFixed(2),
        formatPeaks(row),
      ];
      lines.push(`| ${cells.join(' | ')} |`);
    }
  }
  return lines.join('\n');
}

export function formatVerdicts(rows: readonly Row[], workloads: readonly Workload[]): string {
  const lines = ['| target | against | at least | measured | |', '| --- | --- | --: | --: | --- |'];
  for (const { workload, contender, against, ratioMin, ratio } of verdicts(rows)) {
    const title = workloads.find(({ name }) => name === workload)?.title ?? workload;
    const measured = ratio === undefined ? '–' : `${ratio.toFixed(2)} ×`;
    const verdict = ratio === undefined ? 'not measured' : ratio >= ratioMin ? 'met' : 'MISSED';
    lines.push(`| ${title}, ${contender} | ${against} | ${ratioMin.toFixed(1)} × | ${measured} | ${verdict} |`);
  }
  const peaks = rows.filter((row) => row.contender.startsWith('ours')).flatMap((row) => Object.values(row.peakBytes));
  if (peaks.length > 0) {
    const worst = Math.max(...peaks);
    const verdict = worst <= peakBytesMax ? 'met' : 'MISSED';
    lines.push(`| peak memory of each process | – | ≤ ${mib(peakBytesMax)} MiB | ${mib(worst)} MiB | ${verdict} |`);
  }
  return lines.join('\n');
}

export function formatEndurance(contender: string, endurance: Endurance): string {
  const lines = endurance.memory.map(({ role, before, after, idle }) => {
    const grown = ((idle - before) / mebibyte).toFixed(1);
    return `${contender}, ${role}: ${mib(before)} MiB resident at the start, ${mib(after)} MiB after ${endurance.requests} requests, ${mib(idle)} MiB idle (${grown} MiB more; target: at most 20)`;
  });
  const factor = (endurance.besideStreamUs / endurance.aloneUs).toFixed(1);
  lines.push(
    `${contender}: a read at depth 1 takes ${endurance.aloneUs.toFixed(0)} µs alone, ${endurance.besideStreamUs.toFixed(0)} µs beside a sequential stream (${factor} ×; target: at most 5)`,
  );
  return lines.join('\n');
}

export function formatClients(rows: readonly ClientRow[]): string {
  const lines = ['| HTTP client alone | load | reads | CPU s per 100 k |', '| --- | --- | --: | --: |'];
  for (const { client, load, readsPerSecond, cpuSecondsPer100k } of rows) {
    const rate = `${(readsPerSecond / 1e3).toFixed(1)} k/s`;
    lines.push(`| ${client} | ${load} | ${rate} | ${cpuSecondsPer100k.toFixed(2)} |`);
  }
  return lines.join('\n');
}

export function formatLegend(contenders: readonly Contender[]): string {
  return contenders
    .map(
      ({ name, description, missing }) =>
        `${name}: ${description}${missing === undefined ? '' : ` – NOT MEASURED: ${missing}`}`,
    )
    .join('\n');
}

function formatRate(row: Row, workload: Workload): string {
  return workload.job.blockBytes >= mebibyte
    ? `${(row.bytesPerSecond / 1e6).toFixed(0)} MB/s`
    : `${(row.requestsPerSecond / 1e3).toFixed(1)} k/s`;
}

function formatPeaks(row: Row): string {
  return Object.entries(row.peakBytes)
    .map(([role, bytes]) => `${role} ${mib(bytes)}`)
    .join(', ');
}

function mib(bytes: number): string {
  return (bytes / mebibyte).toFixed(0);
}
