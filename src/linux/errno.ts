/** A system call that failed, in the shape of Node's own: `code` is the errno's name, whoever made the call. */
import { constants } from 'node:os';

/** Names that Node's own table lacks. Numbers of Linux on all architectures that Node runs on but MIPS. */
const moreNames: readonly [number, string][] = [
  [112, 'EHOSTDOWN'],
  [117, 'EUCLEAN'],
  [121, 'EREMOTEIO'],
  [123, 'ENOMEDIUM'],
  [124, 'EMEDIUMTYPE'],
  [129, 'EKEYREJECTED'],
  [131, 'ENOTRECOVERABLE'],
];

const names = new Map<number, string>([
  ...Object.entries(constants.errno).map(([name, number]): [number, string] => [number, name]),
  ...moreNames,
]);
// Node lists EWOULDBLOCK and ENOTSUP with the numbers of EAGAIN and EOPNOTSUPP.
names.set(constants.errno.EAGAIN, 'EAGAIN');
names.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP');

/** The name of an errno (`ENOSPC`), or `errno N`. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `errno ${errno}`;
}

export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly errno: number;
  readonly code: string;

  constructor(errno: number, syscall: string) {
    super(`${syscall}: ${errnoName(errno)}`);
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

/**
 * The errno's name in an error of Node's `fs` or of ours; undefined for any other error (a bug).
 * Node knows some numbers but no name for them ("Unknown system error -124").
 */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof SystemError) return error.code;
  if (!(error instanceof Error) || !('errno' in error) || typeof error.errno !== 'number') return undefined;
  const name = names.get(Math.abs(error.errno));
  if (name !== undefined) return name;
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
