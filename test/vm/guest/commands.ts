/** Commands of the system, as the cases in the virtual machine use them. */
import { spawn } from 'node:child_process';

/**
 * Runs a command to its end and resolves with what it wrote on standard output. Rejects, with everything that it wrote, if
 * its exit code is not 0 or it takes longer than `timeLimitMs`.
 */
export function run(command: string, args: readonly string[] = [], timeLimitMs = 120_000): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeLimitMs,
      killSignal: 'SIGKILL',
    });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => void (output += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => void (errors += text));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${command} ${args.join(' ')}: ended with ${code ?? signal}\n${output}${errors}`));
    });
  });
}
