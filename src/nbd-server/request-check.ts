/**
 * What a request must satisfy before the volume sees it. Promise: whatever passes has a known type and flags, and a range inside the
 * volume of at most the largest payload.
 */
import type { Errno } from '../base/failure.js';
import { isInside } from '../base/range.js';
import type { Volume } from '../base/volume.js';
import { command, commandFlag, payloadBytesMax } from '../nbd/constants.js';
import type { Agreement } from '../nbd/negotiation.js';
import type { Request } from '../nbd/request.js';

export interface Refusal {
  readonly errno: Errno;
  readonly message: string;
}

const { fua, noHole, df, reqOne, fastZero } = commandFlag;

/** FUA is valid with all commands, and means something for those that write ("Command flags"). DF needs structured replies. */
const flagsOfCommand: ReadonlyMap<number, number> = new Map([
  [command.read, fua | df],
  [command.write, fua],
  [command.flush, fua],
  [command.trim, fua],
  [command.cache, fua],
  [command.writeZeroes, fua | noHole | fastZero],
  [command.blockStatus, fua | reqOne],
]);

/** Undefined: the request may be served. The errors are those of "Error values" and of each command's text. */
export function refuse(request: Request, volume: Volume, agreement: Agreement): Refusal | undefined {
  const { type, flags, length, offset } = request;
  const known = flagsOfCommand.get(type);
  if (known === undefined) return { errno: 'EINVAL', message: `command ${type} is not supported` };
  const allowed = agreement.structuredReplies ? known : known & ~df;
  if ((flags & ~allowed) !== 0) return { errno: 'EINVAL', message: 'these flags do not go with this command' };
  if (type === command.flush) return undefined;
  const writes = type === command.write || type === command.trim || type === command.writeZeroes;
  if (writes && volume.readOnly) return { errno: 'EPERM', message: 'the export is read-only' };
  if ((type === command.read || type === command.write) && length > payloadBytesMax) {
    // A READ with structured replies alone may be refused so that the client tries smaller ones ("Error values").
    const errno = type === command.read && agreement.structuredReplies ? 'EOVERFLOW' : 'EINVAL';
    return { errno, message: `more than ${payloadBytesMax} bytes in one request` };
  }
  if (!isInside(offset, length, volume.sizeBytes)) {
    const errno = type === command.write || type === command.writeZeroes ? 'ENOSPC' : 'EINVAL';
    return { errno, message: `the range ends behind the export's ${volume.sizeBytes} bytes` };
  }
  if (type !== command.blockStatus) return undefined;
  if (!agreement.allocation) return { errno: 'EINVAL', message: 'base:allocation was not negotiated' };
  return length === 0 ? { errno: 'EINVAL', message: 'an empty range has no status' } : undefined;
}
