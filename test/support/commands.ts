/** Foreign programs that run to their end. Promise: what they printed stands in the error when they fail or hang. */
import { execFile } from 'node:child_process';

const commandTimeoutMs = 120_000;
const outputBytesMax = 64 * 2 ** 20;

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `program` until it ends, whatever its exit code is. */
export function finish(
  program: string,
  args: readonly string[],
  cwd?: string,
  timeoutMs = commandTimeoutMs,
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const options = { timeout: timeoutMs, maxBuffer: outputBytesMax, killSignal: 'SIGKILL', cwd } as const;
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr });
      else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr });
      else reject(new Error(`${error.message}\n${stdout}${stderr}`, { cause: error }));
    }).stdin?.end();
  });
}

/** Runs `program`, expects exit code 0, and resolves with what it printed on standard output. */
export async function run(program: string, args: readonly string[], cwd?: string): Promise<string> {
  const { code, stdout, stderr } = await finish(program, args, cwd);
  if (code === 0) return stdout;
  throw new Error(`${program} ${args.join(' ')} ended with ${code}\n${stdout}${stderr}`);
}
