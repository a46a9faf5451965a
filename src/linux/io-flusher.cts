/**
 * prctl(PR_SET_IO_FLUSHER) for every thread of this process: memory pressure then never makes one of them wait for I/O that the process
 * itself is to do. CommonJS, so that bin/ can load it before anything else.
 *
 * The mark is a thread's own; threads that it starts later have it as well, and it survives exec. V8 has started threads before the first
 * line of JavaScript, and the main thread waits for them when garbage is collected. So the process sets the mark and executes itself
 * once more, under the same process id.
 */
interface ForeignFunctions {
  load(path: null): { func(declaration: string): (...values: unknown[]) => number };
}

const koffi = require('koffi') as ForeignFunctions;

const PR_SET_IO_FLUSHER = 57;
const FIONCLEX = 0x5450;

/** Set for the second time, whatever the kernel did to the mark: nothing is executed for ever. */
const variable = 'HTTP_NBD_EXECUTED';

/** What the process was started with, beyond the three streams and what its environment still has. */
interface Kept {
  readonly descriptors: readonly number[];
  readonly environment: Readonly<Record<string, string>>;
}

/** Best effort: needs Linux 5.6 and CAP_SYS_RESOURCE. */
function becomeIoFlusher({ descriptors, environment }: Kept): void {
  const executed = process.env[variable] !== undefined;
  delete process.env[variable];
  if (executed) return;
  const library = koffi.load(null);
  const prctl = library.func('int prctl(int what, unsigned long a, unsigned long b, unsigned long c, unsigned long d)');
  if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) !== 0) return;
  const ioctl = library.func('int ioctl(int fd, unsigned long request, void *argument)');
  const execv = library.func('int execv(const char *path, const char **arguments)');
  // Node closes them at an exec.
  for (const descriptor of [0, 1, 2, ...descriptors]) ioctl(descriptor, FIONCLEX, null);
  const added = { ...environment, [variable]: '1' };
  Object.assign(process.env, added);
  execv(process.execPath, [process.argv0, ...process.execArgv, ...process.argv.slice(1), null]);
  // It came back: this thread has the mark, and the pool's threads will.
  for (const name of Object.keys(added)) delete process.env[name];
}

module.exports = { becomeIoFlusher };
