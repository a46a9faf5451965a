/**
 * `npm run bench`: our programs and their peers, side by side on this machine. Times are not judged here (the exit code
 * says only whether everything ran); the tables are.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Contender, contenders, findProgram, startDiskServer } from './contenders.js';
import { endure } from './endurance.js';
import { type ClientRow, compareClients } from './http-clients.js';
import { makeImage } from './image.js';
import { measure } from './measure.js';
import { stopAll } from './process.js';
import { formatClients, formatEndurance, formatLegend, formatRows, formatVerdicts, verdicts } from './report.js';
import { type Workload, workloads } from './workloads.js';

const usage = `npm run bench -- [options]

  --short             one round of half a second each: does it run?
  --rounds N          rounds (default 3)
  --seconds S         seconds for each measurement (default 3)
  --only WORD,…       only workloads whose name contains one of the words: ${workloads.map(({ name }) => name).join(' ')}
  --contenders WORD,… only these: ${contenders()
    .map(({ name }) => name)
    .join(' ')}
  --no-endurance      without memory after a million requests, and fairness
  --no-clients        without our HTTP client beside undici
  --folder PATH       where the image file lies (default: the temporary folder)
  --json              for machines`;

const mebibyte = 2 ** 20;
let exitCode = 0;

const { values: options } = parseArgs({
  options: {
    short: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string' },
    contenders: { type: 'string' },
    'no-endurance': { type: 'boolean', default: false },
    'no-clients': { type: 'boolean', default: false },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function positive(text: string | undefined, otherwise: number): number {
  const number = text === undefined ? otherwise : Number(text);
  if (!(number > 0)) throw new Error(`not a positive number: ${text}`);
  return number;
}

function workload(name: string): Workload {
  const found = workloads.find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`no workload ${name}`);
  return found;
}

async function bench(folder: string): Promise<void> {
  const progress = (text: string): void => console.error(text);
  const matches = (words: string | undefined, name: string): boolean =>
    words === undefined || words.split(',').some((word) => name.includes(word));
  const all = contenders();
  const chosen = all.filter(
    ({ name }) => options.contenders === undefined || options.contenders.split(',').includes(name),
  );
  const able = chosen.filter(({ missing }) => missing === undefined);
  if (options.short && able.length < chosen.length) exitCode = 1; // It must run, all of it.
  const imageBytes = (options.short ? 256 : 1024) * mebibyte;
  const image = join(folder, 'disk.img');
  const seconds = positive(options.seconds, options.short ? 0.5 : 3);
  progress(`Making an image of ${imageBytes / mebibyte} MiB…`);
  await makeImage(image, imageBytes);

  const rows = await measure(
    {
      contenders: able,
      workloads: workloads.filter(({ name }) => matches(options.only, name)),
      rounds: positive(options.rounds, options.short ? 1 : 3),
      seconds,
      image,
      imageBytes,
      folder,
    },
    progress,
  );
  const enduring = options['no-endurance'] ? [] : able.filter(({ ours }) => ours);
  const endurances = [];
  for (const contender of enduring) {
    endurances.push({ contender: contender.name, endurance: await endureOne(contender) });
  }
  const clients = enduring.length === 0 || options['no-clients'] ? [] : await compareOnce();

  const machine = `${cpus()[0]?.model ?? 'unknown CPU'}, ${availableParallelism()} cores, Linux ${release()}, Node ${process.version}`;
  if (options.json) {
    const missing = chosen.flatMap(({ name, missing: why }) => (why === undefined ? [] : [{ name, why }]));
    console.log(
      JSON.stringify({ machine, missing, rows, verdicts: verdicts(rows), endurances, clients }, undefined, 2),
    );
    return;
  }
  const parts = [
    machine,
    formatLegend(chosen),
    formatRows(rows, workloads),
    formatVerdicts(rows, workloads),
    ...endurances.map(({ contender, endurance }) => formatEndurance(contender, endurance)),
    ...(clients.length === 0 ? [] : [formatClients(clients)]),
  ];
  console.log(`\n${parts.join('\n\n')}`);

  async function compareOnce(): Promise<ClientRow[]> {
    progress('HTTP clients alone');
    const server = await startDiskServer(image);
    const rounds = options.short ? 1 : 3;
    try {
      return await compareClients(server.url, imageBytes, rounds, seconds);
    } finally {
      await server.process.stop();
    }
  }

  function endureOne(contender: Contender): ReturnType<typeof endure> {
    progress(`endurance: ${contender.name}`);
    return endure(contender, {
      image,
      imageBytes,
      folder,
      requests: options.short ? 20_000 : 1_000_000,
      idleSeconds: options.short ? 1 : 10,
      seconds,
      random: workload('randread-32'),
      single: workload('randread-1'),
      stream: workload('read-1m'),
    });
  }
}

if (options.help) {
  console.log(usage);
  process.exit(0);
}
if (findProgram('fio') === undefined) {
  console.error('The benchmark needs fio (Debian packages: fio nbdkit qemu-utils nginx-light).');
  process.exit(1);
}

const folder = await mkdtemp(join(options.folder, 'http-nbd-bench-'));
async function end(): Promise<never> {
  await stopAll();
  await rm(folder, { recursive: true, force: true });
  process.exit(exitCode);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    exitCode = 1;
    void end();
  });
}
try {
  await bench(folder);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  exitCode = 1;
}
await end();
