/** Error values of replies ("Error values" in the specification). */
import type { Errno } from '../base/failure.js';

export const errorValue = {
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const satisfies Record<Errno, number>;

/** The name of an error value as a client shows it. Unknown values count as EINVAL, as the specification asks. @public */
export function errnoOf(value: number): Errno {
  for (const [name, known] of Object.entries(errorValue)) if (known === value) return name as Errno;
  return 'EINVAL';
}
