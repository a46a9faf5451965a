/**
 * From errno to Failure: what a failed system call means for the disk. The one place that decides it.
 */
import { Failure, type FailureCode } from '../base/failure.js';
import { errnoOf } from '../linux/errno.js';

export type DiskKind = 'file' | 'device' | 'drbd';

/**
 * EROFS of DRBD: the device has become Secondary. EIO: neither this host's disk nor any peer's can be reached. Either way the
 * disk is not here any more; it is to be closed, so that another host can have it.
 */
const drbdCodes: Readonly<Record<string, FailureCode>> = { EROFS: 'unavailable', EIO: 'unavailable' };

/** Of an open disk. */
const codes: Readonly<Record<string, FailureCode>> = {
  EIO: 'disk-error',
  EBADMSG: 'disk-error',
  EUCLEAN: 'disk-error',
  EILSEQ: 'disk-error',
  EREMOTEIO: 'disk-error',
  EINVAL: 'disk-error',
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EFBIG: 'no-space',
  EROFS: 'read-only',
  EPERM: 'read-only',
  EACCES: 'read-only',
  EOPNOTSUPP: 'unsupported',
  ENOSYS: 'unsupported',
  ENOTTY: 'unsupported',
  ENODEV: 'unavailable',
  ENXIO: 'unavailable',
  ENOMEDIUM: 'unavailable',
  EMEDIUMTYPE: 'unavailable',
  ESTALE: 'unavailable',
  ESHUTDOWN: 'unavailable',
  ENOTCONN: 'unavailable',
  ENOMEM: 'unavailable',
};

/** The Failure for an error of `fs` or of an FFI call on an open disk; any other error is a bug and comes back as it is. */
export function diskFailure(error: unknown, kind: DiskKind, doing: string): unknown {
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  const code = (kind === 'drbd' ? drbdCodes[errno] : undefined) ?? codes[errno] ?? 'disk-error';
  return new Failure(code, `${doing}: ${errno}`, { cause: error });
}
