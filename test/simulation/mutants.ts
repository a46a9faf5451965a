/**
 * Planted bugs: one for each rule of the failover protocol, as a change of the compiled code. The simulation must find each.
 * `npm run simulate -- --mutants` builds a copy of the program for each, runs seeds until one fails, and fails if none does.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

interface Mutant {
  /** The rule that it breaks, and how. */
  readonly name: string;
  /** Compiled file, relative to the folder of compiled code. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const core = 'src/disk-server/';
const gateway = 'src/gateway/';

const mutants: readonly Mutant[] = [
  {
    name: 'S1 epoch not checked',
    file: `${core}session-table.js`,
    from: "if (isBelow(epoch, session.epoch))\n            return 'stale-epoch';",
    to: '',
  },
  {
    name: 'S1 epoch not checked again before the write',
    file: `${core}write-guard.js`,
    from: 'if (sessions.isStale(stamp.session, stamp.epoch))',
    to: 'if (false)',
  },
  {
    name: 'S1 instance not checked',
    file: `${core}write-guard.js`,
    from: 'if (stamp.instance !== instance)',
    to: 'if (false)',
  },
  { name: 'S1 deadline not checked', file: `${core}write-guard.js`, from: 'if (aheadMs <= 0)', to: 'if (false)' },
  {
    name: 'S2 no wait for older writes in progress',
    file: `${core}session-table.js`,
    from: 'if (session?.writing === undefined || !isBelow(session.writing.epoch, epoch))',
    to: 'if (true)',
  },
  {
    name: 'S3 sessions forgotten at once',
    file: `${core}session-table.js`,
    from: 'session.epoch = epoch;\n        return',
    to: 'session.epoch = epoch; setImmediate(() => { if (session.writing === undefined) this.#sessions.delete(name); });\n        return',
  },
  {
    name: 'S4 a sync covers writes that came during it',
    file: `${core}group-commit.js`,
    from: "this.#state = { at: 'syncing', next };",
    to: "this.#state = { at: 'syncing', next: batch };",
  },
  {
    name: 'S5 a failed sync is followed by one that succeeds',
    file: `${core}group-commit.js`,
    from: "this.#state = { at: 'failed', failure };\n        this.#onFailure(failure);",
    to: "this.#state = { at: 'idle' };",
  },
  {
    name: 'S6 the listener is closed first',
    file: 'test/simulation/network.js',
    from: 'void life.server.stop()',
    to: 'for (const breaks of life.broken) breaks(); this.#life = undefined; void life.server.stop()',
  },
  {
    name: 'S7 instance of reads and commits not checked',
    file: `${core}disk-server.js`,
    from: 'if (instance === undefined || instance === life.instance)',
    to: 'if (true)',
  },
  { name: 'S8 no timer of the kernel', file: `${core}fence.js`, from: 'this.#timer.set(atMs);', to: '' },
  {
    name: 'G1 overlapping writes cross',
    file: `${gateway}write-order.js`,
    from: 'const ready = this.#wait(offset, offset + length);',
    to: 'const ready = undefined;',
  },
  {
    name: 'G2 reads do not wait for writes',
    file: `${gateway}write-order.js`,
    from: 'return this.#unanswered.size === 0 ? undefined : this.#wait(offset, offset + length);',
    to: 'return undefined;',
  },
  { name: 'G3 epoch not raised', file: `${gateway}session.js`, from: 'this.#counter += 1;', to: '' },
  {
    name: 'G4 an error is answered while the write may still land',
    file: `${gateway}pool.js`,
    from: 'waiting.giveUpAtMs <= nowMs && this.#cannotLand(waiting, nowMs)',
    to: 'waiting.giveUpAtMs <= nowMs',
  },
  {
    name: 'G5 a write goes to another server at once',
    file: `${gateway}attachment.js`,
    from: 'if (attachment.provenGone)',
    to: 'if (true)',
  },
  {
    name: 'G5 clock bound of the wrong sign',
    file: `${gateway}server-clock.js`,
    from: '(1 - rateErrorMax)',
    to: '(1 + 2)',
  },
  { name: 'G5 any lost connection proves death', file: `${gateway}pool.js`, from: 'if (refused) {', to: 'if (true) {' },
  {
    name: 'G6 answers of a given-up attachment count',
    file: `${gateway}pool.js`,
    from: 'if (job.sentTo !== attachment || !this.#inFlight.delete(job))\n            return false;',
    to: 'this.#inFlight.delete(job);',
  },
  {
    name: 'G7 reads and commits name no instance',
    file: `${gateway}pool.js`,
    from: 'const instance = retention === undefined ? undefined : attachment.instance;',
    to: 'const instance = undefined;',
  },
  { name: 'G8 no replay', file: `${gateway}pool.js`, from: 'if (!upToDate) {', to: 'if (false) {' },
  {
    name: 'G8 replay out of order',
    file: `${gateway}replay.js`,
    from: 'const task = tasks[next];',
    to: 'const task = tasks[tasks.length - 1 - next];',
  },
  {
    name: 'G8 a replay that was cut short counts as complete',
    file: `${gateway}pool.js`,
    from: 'this.#copiesAt = undefined;\n',
    to: 'this.#copiesAt = attachment;\n',
  },
  {
    name: 'G8 new requests during the replay',
    file: `${gateway}pool.js`,
    from: "this.#state = { at: 'preparing', attachment };",
    to: "this.#state = { at: 'preparing', attachment }; setImmediate(() => { if (this.#isPreparing(attachment)) { this.#state = { at: 'ready', attachment }; this.#pump(); this.#state = { at: 'preparing', attachment }; } });",
  },
  {
    name: 'G9 a commit drops copies acknowledged after it was sent',
    file: `${gateway}pool.js`,
    from: 'retention?.dropCommitted(job.coversUpTo)',
    to: 'retention?.dropCommitted(Infinity)',
  },
  {
    name: 'G9 copies dropped before the commit',
    file: `${gateway}pool.js`,
    from: 'job.coversUpTo = this.#options.retention?.newest ?? 0;',
    to: "if (task.op === 'flush') this.#options.retention?.dropCommitted(Infinity);",
  },
  {
    name: 'G10 flush answered early',
    file: `${gateway}gateway.js`,
    from: 'await this.#commit();',
    to: 'void this.#commit().catch(() => {});',
  },
  {
    name: 'G10 a failed flush drops the copies',
    file: `${gateway}gateway.js`,
    from: "await this.#pool.perform({ op: 'flush', offset: 0, length: 0 }, this.#giveUpAtMs());",
    to: "await this.#pool.perform({ op: 'flush', offset: 0, length: 0 }, this.#giveUpAtMs()).catch((error) => { this.#retention.dropCommitted(Infinity); throw error; });",
  },
  {
    name: 'G11 older copies stay under a durable write',
    file: `${gateway}retention.js`,
    from: 'const range = { offset, length };',
    to: 'return;',
  },
  {
    name: 'retained bytes beyond the budget',
    file: `${gateway}retention.js`,
    from: 'return used === 0 || used + bytes <= this.#budgetBytes;',
    to: 'return true;',
  },
  {
    name: 'a request is forgotten',
    file: `${gateway}pool.js`,
    from: 'if (job.once)\n            return job.reject(failure);',
    to: 'if (job.once)\n            return job.reject(failure);\n        if (job.failedAttempts === 2)\n            return;',
  },
  {
    name: 'T1 the predecessor is only paused',
    file: 'test/simulation/gateway-line.js',
    from: 'life.process.kill();',
    to: 'life.process.pause(); this.#world.after(3500, () => life.process.resume());',
  },
  {
    name: 'T2 a successor with the same generation',
    file: 'test/simulation/gateway-line.js',
    from: 'this.#generation += 1;',
    to: 'this.#generation = 1;',
  },
  {
    name: 'T2 a successor with a fresh session',
    file: 'test/simulation/gateway-line.js',
    from: 'new Session(name, this.#generation)',
    to: 'new Session(`${name}-${this.#generation}`, 1)',
  },
  {
    name: 'T3 writes of the predecessor are not waited for',
    file: `${gateway}inheritance.js`,
    from: 'return this.hazards.every((hazard) => hazard.attachment.isSameInstance(attachment) || this.#isOver(hazard, nowMs));',
    to: 'return true;',
  },
  {
    name: 'T4 a replay is not on record',
    file: `${gateway}pool.js`,
    from: "unflushed: 'nobody'",
    to: "unflushed: 'instance'",
  },
  {
    name: 'T4 unflushed writes are not on record',
    file: 'test/simulation/gateway-line.js',
    from: 'this.#unflushed = unflushed;',
    to: '',
  },
  {
    name: 'T5 no commit first',
    file: `${gateway}inheritance.js`,
    from: "return this.#unflushed.at !== 'none';",
    to: 'return false;',
  },
  {
    name: 'T5 any instance will do',
    file: `${gateway}inheritance.js`,
    from: "if (unflushed.at === 'none')\n            return undefined;",
    to: 'return undefined;',
  },
];

const compiled = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** Runs all mutants whose name contains `filter`; returns how many were not caught. */
export function runMutants(filter: string, seedsMax: number): number {
  let missed = 0;
  for (const [index, mutant] of mutants.entries()) {
    if (!mutant.name.includes(filter)) continue;
    const caught = runMutant(mutant, index, seedsMax);
    if (caught === undefined) missed += 1;
    process.stdout.write(`${caught === undefined ? 'MISSED' : 'caught'}  ${mutant.name.padEnd(62)} ${caught ?? ''}\n`);
  }
  return missed;
}

/** The verdict of the seed that caught it; undefined: none did. */
function runMutant(mutant: Mutant, index: number, seedsMax: number): string | undefined {
  const folder = join(compiled, '..', 'node_modules', '.cache', 'mutants', String(index));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const part of ['src', 'test']) cpSync(join(compiled, part), join(folder, part), { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  const path = join(folder, mutant.file);
  const before = readFileSync(path, 'utf8');
  if (before.split(mutant.from).length !== 2)
    throw new Error(`mutant "${mutant.name}": its place is not found exactly once in ${mutant.file}`);
  writeFileSync(
    path,
    before.replace(mutant.from, () => mutant.to),
  );
  const script = join(folder, 'test', 'simulation', 'simulate.js');
  const run = spawnSync(process.execPath, [script, '--seeds', String(seedsMax), '--no-shrink'], { encoding: 'utf8' });
  rmSync(folder, { recursive: true, force: true });
  if (run.status === 0) return undefined;
  const verdict = /^seed .*$/m.exec(run.stdout)?.[0];
  if (verdict === undefined) throw new Error(`mutant "${mutant.name}" did not run: ${run.stderr}`);
  return verdict;
}
