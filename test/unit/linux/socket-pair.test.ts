import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, readSync, writeSync } from 'node:fs';
import test from 'node:test';
import { isAbandoned, socketPair } from '../../../src/linux/socket-pair.js';

test('what goes in at one end comes out at the other, and it is seen when the other end has gone', () => {
  const [a, b] = socketPair();
  assert.equal(isAbandoned(a), false);
  writeSync(b, 'x');
  assert.equal(isAbandoned(a), false, 'a byte is waiting');
  const into = Buffer.alloc(2);
  assert.equal(readSync(a, into), 1, 'and was not taken');
  closeSync(b);
  assert.equal(isAbandoned(a), true);
  closeSync(a);
});

test('a child process does not inherit them', () => {
  const pair = socketPair();
  const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' });
  // Its standard streams are sockets, too.
  assert.doesNotMatch(stdout, / (?:[3-9]|\d\d+) -> socket:/);
  assert.match(stdout, / 1 -> /);
  for (const fd of pair) closeSync(fd);
});
