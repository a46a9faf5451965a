/**
 * prctl(PR_SET_IO_FLUSHER) for this thread and every thread that it starts later. CommonJS, so that bin/ can load it
 * before any `import()`: that would start the thread pool, whose threads would then not have it.
 */
interface ForeignFunctions {
  load(path: null): { func(declaration: string): (...values: number[]) => number };
}

const koffi = require('koffi') as ForeignFunctions;

const PR_SET_IO_FLUSHER = 57;

/** Best effort: needs Linux 5.6 and CAP_SYS_RESOURCE. Never throws for lack of them. */
function becomeIoFlusher(): void {
  const library = koffi.load(null);
  const prctl = library.func(
    'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
  );
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

module.exports = { becomeIoFlusher };
