/** Mounts and loop devices for tests. Only root has them; a test that needs one skips with the reason given here. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cleanup } from './processes.js';

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

const isRoot = process.getuid?.() === 0;

/** Why there are no mounts here; false when there are: for `skip`. */
export const noMounts: string | false = isRoot ? false : 'needs root (mount)';

/** Why there are no loop devices here; false when there are: for `skip`. */
export const noLoopDevices: string | false = isRoot
  ? existsSync('/dev/loop-control')
    ? false
    : 'needs a kernel with loop devices'
  : 'needs root (losetup)';

/** A tmpfs of `sizeBytes`, unmounted when the test is over. Returns its folder. */
export function mountTmpfs(context: Cleanup, sizeBytes: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'http-nbd-transfer-'));
  run('mount', '-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'tmpfs', folder);
  context.after(() => {
    // Lazily: what the test opened may be closed after this.
    run('umount', '--lazy', folder);
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

export interface LoopDevice {
  readonly path: string;
  /** The file behind it. */
  readonly file: string;
  /** Makes the kernel look again how large the file is. */
  resize(sizeBytes: number): void;
}

/** A loop device over a new sparse file, detached when the test is over. */
export function loopDevice(context: Cleanup, sizeBytes: number, ...options: string[]): LoopDevice {
  const folder = mkdtempSync(join(tmpdir(), 'http-nbd-transfer-'));
  const file = join(folder, 'disk');
  writeFileSync(file, '');
  truncateSync(file, sizeBytes);
  const path = run('losetup', '--find', '--show', ...options, file);
  context.after(() => {
    run('losetup', '--detach', path);
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    path,
    file,
    resize: (newSizeBytes) => {
      truncateSync(file, newSizeBytes);
      run('losetup', '--set-capacity', path);
    },
  };
}
