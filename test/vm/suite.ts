/**
 * Makes the cases that run inside a virtual machine cases of this test run: one boot, one `node:test` case for each.
 * Promise: a case that did not run, for whatever reason, has failed.
 */
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../support/processes.js';
import { runInMachine } from './machine.js';
import type { Report } from './report.js';

type Outcome = Extract<Report, { event: 'end' }>;

/**
 * Runs the cases in guest/. `VM_CASES`, a regular expression, selects some of them by name.
 */
export function machineSuite(name: string, timeLimitMs: number): void {
  test(name, { timeout: timeLimitMs + 30_000 }, async (t) => {
    const outcomes = new Outcomes();
    const runner = fileURLToPath(new URL('./guest/runner.js', import.meta.url));
    const command = [process.execPath, '--enable-source-maps', runner, process.env['VM_CASES'] ?? ''];
    const disks = [{ path: emptyImage(t), shared: false }];
    const ended = runInMachine({ command, timeLimitMs, disks, onReport: (report) => outcomes.take(report) }).finally(
      () => outcomes.close(),
    );
    ended.catch(() => undefined);

    for (const planned of await outcomes.planned()) {
      await t.test(planned, async (inner) => {
        const outcome = await outcomes.of(planned);
        assert.ok(outcome !== undefined, 'the machine ended before this case did');
        inner.diagnostic(`${Math.round(outcome.ms)} ms in the machine`);
        if (outcome.output !== '') inner.diagnostic(outcome.output);
        assert.ok(outcome.ok, outcome.output);
      });
    }
    assert.equal(await ended, 0, 'the exit code of the runner in the machine');
  });
}

const imageBytes = 512 * 1024 * 1024;

/** /dev/vda of the machine, for cases that must not keep a disk in its memory. */
function emptyImage(t: TestContext): string {
  const path = join(temporaryFolder(t), 'image');
  writeFileSync(path, '');
  truncateSync(path, imageBytes);
  return path;
}

/** What has been reported so far, and who waits for the rest. */
class Outcomes {
  #names: readonly string[] | undefined;
  readonly #outcomes = new Map<string, Outcome>();
  #closed = false;
  #waiting: (() => void)[] = [];

  take(report: Report): void {
    if (report.event === 'plan') this.#names = report.names;
    if (report.event === 'end') this.#outcomes.set(report.name, report);
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async planned(): Promise<readonly string[]> {
    while (this.#names === undefined && !this.#closed) await this.#change();
    return this.#names ?? [];
  }

  async of(name: string): Promise<Outcome | undefined> {
    while (!this.#outcomes.has(name) && !this.#closed) await this.#change();
    return this.#outcomes.get(name);
  }

  #change(): Promise<void> {
    return new Promise((resolve) => void this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
