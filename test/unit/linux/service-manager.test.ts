import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { LibcFunction } from '../../../src/linux/libc.js';
import { notifyServiceManager, unixAddress } from '../../../src/linux/service-manager.js';
import { temporaryFolder } from '../../support/processes.js';

const socket = new LibcFunction('int socket(int domain, int type, int protocol)');
const bind = new LibcFunction('int bind(int fd, const void *address, uint32_t length)');
const receive = new LibcFunction('intptr_t recv(int fd, void *bytes, size_t length, int flags)');

test('the service manager gets what it is told, at a path and at an abstract address', (t) => {
  for (const place of [join(temporaryFolder(t), 'notify'), `@nbd-test-${process.pid}`]) {
    const fd = socket.callOrThrow(1, 2, 0);
    const address = unixAddress(place);
    bind.callOrThrow(fd, address, address.length);
    notifyServiceManager('READY=1\n', place);
    const into = Buffer.alloc(100);
    const length = receive.callOrThrow(fd, into, into.length, 0x40);
    assert.equal(into.toString('utf8', 0, length), 'READY=1\n');
    closeSync(fd);
  }
});

test('no service manager, one that is gone, and an address that makes no sense are no errors', (t) => {
  const gone = join(temporaryFolder(t), 'gone');
  for (const place of [undefined, '', gone, 'relative', `/${'x'.repeat(200)}`])
    notifyServiceManager('READY=1\n', place);
});
