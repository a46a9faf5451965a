/**
 * Checks the layer rules of .dependency-cruiser.cjs. Fails also if a source file was not read: without a TypeScript that
 * it can load, dependency-cruiser reads nothing, finds nothing, and would report success.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const folders = ['src', 'test', 'bench', 'demo'].filter((folder) => existsSync(folder));

const sources = folders.flatMap((folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name)),
);

const report = JSON.parse(cruise());
const read = new Set(report.modules.map((module) => module.source));
const unread = sources.filter((source) => !read.has(source));
const { violations, totalDependenciesCruised } = report.summary;

for (const { rule, from, to } of violations) {
  const why = report.summary.ruleSetUsed.forbidden.find(({ name }) => name === rule.name)?.comment;
  console.error(`${from} → ${to}: ${rule.name} (${why})`);
}
for (const source of unread) console.error(`${source}: not read`);
// Files without imports alone would be a sign of a parser that understands nothing.
if (sources.length === 0 || totalDependenciesCruised === 0) console.error('no module or no import was read');

const failed = violations.length > 0 || unread.length > 0 || sources.length === 0 || totalDependenciesCruised === 0;
if (!failed) console.log(`layers: ${sources.length} files, ${totalDependenciesCruised} imports, no violation`);
process.exit(failed ? 1 : 0);

/** The JSON report. Violations make the tool exit with their number: that is no failure of its own. */
function cruise() {
  const args = ['--config', '.dependency-cruiser.cjs', '--output-type', 'json', ...folders];
  try {
    return execFileSync('node_modules/.bin/depcruise', args, { encoding: 'utf8', maxBuffer: 2 ** 28 });
  } catch (error) {
    if (typeof error.stdout === 'string' && error.stdout.startsWith('{')) return error.stdout;
    throw error;
  }
}
