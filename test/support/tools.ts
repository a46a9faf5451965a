/**
 * Foreign programs that tests use. Promise: a test whose program is missing is reported as skipped, with the name of the
 * Debian package that has it (.ci/run fails on any skip).
 */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';

// mkfs and nginx lie where an ordinary user's PATH does not lead.
const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
process.env['PATH'] = folders.join(delimiter);

/** The full path of `program`, or undefined if it is not installed. */
export function findProgram(program: string): string | undefined {
  return folders.map((folder) => join(folder, program)).find(isExecutable);
}

/** Whether `program` is installed; if not, `t` is skipped: `if (!needs(t, 'nbdinfo', 'libnbd-bin')) return;` */
export function needs(t: Pick<TestContext, 'skip'>, program: string, debianPackage: string): boolean {
  if (findProgram(program) !== undefined) return true;
  t.skip(`${program} is not installed (Debian package ${debianPackage})`);
  return false;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
