/** What the other suites take for granted of the virtual machine. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { machineCase } from './cases.js';

machineCase('the machine runs a kernel of its own, with a writable root', async (context) => {
  context.note(`kernel ${release()}, node ${process.version}`);
  assert.match(readFileSync('/proc/cmdline', 'utf8'), /console=ttyS0/);
  assert.ok(existsSync('/usr/lib/modules'));
  writeFileSync('/etc/written-in-the-machine', 'x');
  rmSync('/etc/written-in-the-machine');
});
