import assert from 'node:assert/strict';
import test from 'node:test';
import { findProgram, needs } from '../../support/tools.js';

test('a program that is installed is found by its full path', () => {
  assert.match(findProgram('sh') ?? '', /^\/.*\/sh$/);
});

test('a program that is missing is not found', () => {
  assert.equal(findProgram('no-such-program'), undefined);
});

test('a test skips itself with the name of the missing package', () => {
  const reasons: (string | undefined)[] = [];
  const t = { skip: (reason?: string) => void reasons.push(reason) };
  assert.equal(needs(t, 'no-such-program', 'some-package'), false);
  assert.deepEqual(reasons, ['no-such-program is not installed (Debian package some-package)']);
});
