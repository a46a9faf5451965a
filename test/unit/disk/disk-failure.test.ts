import assert from 'node:assert/strict';
import test from 'node:test';
import { Failure } from '../../../src/base/failure.js';
import { type DiskKind, diskFailure } from '../../../src/disk/disk-failure.js';

const errnos = { EIO: 5, ENXIO: 6, ENODEV: 19, EINVAL: 22, EFBIG: 27, ENOSPC: 28, EROFS: 30, EDQUOT: 122 };
const more = { EPERM: 1, ENOMEDIUM: 123, EMEDIUMTYPE: 124, ESTALE: 116, EOPNOTSUPP: 95, EUCLEAN: 117, ELOOP: 40 };

/** As `fs` throws it. */
function codeOf(name: string, kind: DiskKind = 'file'): string {
  const errno = { ...errnos, ...more }[name] ?? 0;
  const failure = diskFailure(Object.assign(new Error(name), { errno: -errno }), kind, 'write');
  assert.ok(failure instanceof Failure);
  assert.equal(failure.message, `write: ${name}`);
  return failure.code;
}

test('what an error of the disk means for the request', () => {
  const table = Object.fromEntries(Object.keys({ ...errnos, ...more }).map((name) => [name, codeOf(name)]));
  assert.deepEqual(table, {
    EIO: 'disk-error',
    EINVAL: 'disk-error',
    EUCLEAN: 'disk-error',
    ELOOP: 'disk-error',
    ENOSPC: 'no-space',
    EDQUOT: 'no-space',
    EFBIG: 'no-space',
    EROFS: 'read-only',
    EPERM: 'read-only',
    ENXIO: 'unavailable',
    ENODEV: 'unavailable',
    ENOMEDIUM: 'unavailable',
    EMEDIUMTYPE: 'unavailable',
    ESTALE: 'unavailable',
    EOPNOTSUPP: 'unsupported',
  });
});

test('EROFS and EIO of a DRBD device say that the disk is not here', () => {
  assert.equal(codeOf('EROFS', 'drbd'), 'unavailable');
  assert.equal(codeOf('EIO', 'drbd'), 'unavailable');
  assert.equal(codeOf('ENOSPC', 'drbd'), 'no-space');
  assert.equal(codeOf('EROFS', 'device'), 'read-only');
});

test('what is no error of the system is not turned into one of the disk', () => {
  const bug = new TypeError('a bug');
  assert.equal(diskFailure(bug, 'file', 'write'), bug);
  const failure = new Failure('unavailable');
  assert.equal(diskFailure(failure, 'file', 'write'), failure);
});
