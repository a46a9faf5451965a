/**
 * The failure table: everything that can go wrong with one disk operation, in one place.
 * It alone decides whether an operation is tried again, and which errno the NBD client sees.
 *
 * outcome  what is known of a write that failed so: certainly `not-applied`, or `unknown` (it may still land)
 * retry    `never`: the answer is final · `again`: at once, same server · `elsewhere`: find a server that works
 * errno    what the client gets when there is nothing more to try
 */

export type Errno = 'EPERM' | 'EIO' | 'EINVAL' | 'ENOSPC' | 'EOVERFLOW' | 'ENOTSUP' | 'ESHUTDOWN';

interface Row {
  readonly outcome: 'not-applied' | 'unknown';
  readonly retry: 'never' | 'again' | 'elsewhere';
  readonly errno: Errno;
}

export const failureTable = {
  // The request itself.
  'invalid-request': { outcome: 'not-applied', retry: 'never', errno: 'EINVAL' },
  'out-of-range': { outcome: 'not-applied', retry: 'never', errno: 'EINVAL' },
  'too-large': { outcome: 'not-applied', retry: 'never', errno: 'EOVERFLOW' },
  unsupported: { outcome: 'not-applied', retry: 'never', errno: 'ENOTSUP' },
  'read-only': { outcome: 'not-applied', retry: 'never', errno: 'EPERM' },
  // The disk behind the server: final, another server's answer would hide it.
  'no-space': { outcome: 'unknown', retry: 'never', errno: 'ENOSPC' },
  'disk-error': { outcome: 'unknown', retry: 'never', errno: 'EIO' },
  // Refusals of the failover protocol: certainly not applied. A probe brings a new instance or a fresh sample of the clock.
  'stale-epoch': { outcome: 'not-applied', retry: 'again', errno: 'EIO' },
  'other-instance': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  'deadline-passed': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  // The server: it has no disk at the moment, is stopping, is full, or is not what it was.
  unavailable: { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  'access-denied': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  'not-found': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  'wrong-disk': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  // The way there. `connection-refused` means that nothing was sent.
  'connection-refused': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  'name-not-resolved': { outcome: 'not-applied', retry: 'elsewhere', errno: 'EIO' },
  'connection-lost': { outcome: 'unknown', retry: 'elsewhere', errno: 'EIO' },
  'timed-out': { outcome: 'unknown', retry: 'elsewhere', errno: 'EIO' },
  'malformed-response': { outcome: 'unknown', retry: 'elsewhere', errno: 'EIO' },
  'server-error': { outcome: 'unknown', retry: 'elsewhere', errno: 'EIO' },
  // The gateway itself.
  'gave-up': { outcome: 'unknown', retry: 'never', errno: 'EIO' },
  'shutting-down': { outcome: 'unknown', retry: 'never', errno: 'ESHUTDOWN' },
} as const satisfies Record<string, Row>;

export type FailureCode = keyof typeof failureTable;

/** One operation that failed. `message` is one line, fit for a log: no credentials, no newline. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly code: FailureCode;

  constructor(code: FailureCode, message: string = code, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  get row(): Row {
    return failureTable[this.code];
  }
}

/** The failure in `error`; whatever is not a {@link Failure} is a bug and is thrown again. */
export function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error;
  throw error;
}
