/** Runs a helper program without ever waiting longer for it than told. */
import { execFile } from 'node:child_process';

const outputBytesMax = 4 * 1024 * 1024;

/**
 * `failed`: not found, or ended with another code than 0. `interrupted`: somebody killed it.
 * `timed-out`: it was killed, and is `gone` when the kernel has let it go.
 */
export type CommandOutcome =
  | { readonly at: 'done'; readonly stdout: string }
  | { readonly at: 'failed' | 'interrupted' }
  | { readonly at: 'timed-out'; readonly gone: Promise<void> };

/** Administrators' programs lie where an ordinary PATH does not look. */
const searchPath = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** Never rejects. At `timeoutMs` the command is killed, and not waited for: it may be stuck in the kernel. */
export function runCommand(command: string, args: readonly string[], timeoutMs: number): Promise<CommandOutcome> {
  return new Promise((resolve) => {
    const options = { maxBuffer: outputBytesMax, env: { ...process.env, PATH: searchPath, LC_ALL: 'C' } };
    const child = execFile(command, args, options, (error, stdout) => {
      clearTimeout(timer);
      if (error === null) resolve({ at: 'done', stdout });
      else resolve({ at: typeof error.signal === 'string' ? 'interrupted' : 'failed' });
    });
    const gone = new Promise<void>((resolveGone) => {
      child.once('exit', () => resolveGone()).once('error', () => resolveGone());
    });
    const timer = setTimeout(() => {
      resolve({ at: 'timed-out', gone });
      child.kill('SIGKILL');
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
    }, timeoutMs);
  });
}
