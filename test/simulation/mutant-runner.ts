/**
 * Builds a copy of the program for each planted bug (mutants.ts) and runs seeds until one fails, or the tests that are named.
 * A bug that no seed finds is a fault of the simulation.
 */
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Mutant, mutants } from './mutants.js';

const seedsMax = 20_000;
const compiled = join(import.meta.dirname, '..', '..');

/** Runs all mutants whose name contains `filter`, `jobs` at a time; resolves with how many were not caught. */
export async function runMutants(filter: string, jobs: number, say: (line: string) => void): Promise<number> {
  const chosen = mutants.filter(({ name }) => name.includes(filter));
  let missed = 0;
  let next = 0;
  const job = async () => {
    for (;;) {
      const index = next++;
      const mutant = chosen[index];
      if (mutant === undefined) return;
      const caught = await runMutant(mutant, index);
      if (caught === undefined) missed += 1;
      say(`${caught === undefined ? 'MISSED' : 'caught'}  ${mutant.name.padEnd(62)} ${caught ?? ''}`);
    }
  };
  await Promise.all(Array.from({ length: jobs }, job));
  return missed;
}

/** What caught it; undefined: nothing did. */
async function runMutant(mutant: Mutant, index: number): Promise<string | undefined> {
  const folder = join(compiled, '..', 'node_modules', '.cache', 'mutants', String(index));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const part of ['src', 'test']) cpSync(join(compiled, part), join(folder, part), { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  plant(mutant, join(folder, mutant.file));
  const simulate = ['test/simulation/simulate.js', '--seeds', String(seedsMax), '--jobs', '1', '--no-shrink'];
  const [script = '', ...options] = mutant.test === undefined ? simulate : [mutant.test];
  const { status, output } = await run([
    ...(mutant.test === undefined ? [] : ['--test', '--test-timeout=60000']),
    join(folder, script),
    ...options,
  ]);
  rmSync(folder, { recursive: true, force: true });
  if (status === 0) return undefined;
  const verdict = (mutant.test === undefined ? /^seed .*$/m : /^✖ .*$|^not ok .*$/m).exec(output)?.[0];
  if (verdict === undefined) throw new Error(`mutant "${mutant.name}" did not run: ${output}`);
  return mutant.test === undefined ? verdict : `${mutant.test}: ${verdict}`;
}

function plant({ name, file, from, to }: Mutant, path: string): void {
  const before = readFileSync(path, 'utf8');
  if (before.split(from).length !== 2)
    throw new Error(`mutant "${name}": its place is not found exactly once in ${file}`);
  writeFileSync(
    path,
    before.replace(from, () => to),
  );
}

function run(args: readonly string[]): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  return new Promise((resolve) => void child.on('close', (status) => resolve({ status, output })));
}
