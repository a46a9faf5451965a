import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import { enlargeSendBuffer } from '../../../src/linux/socket.js';
import { descriptorOf } from '../../../src/sockets/receive-buffer.js';
import { temporaryFolder } from '../../support/processes.js';

test('a unix socket takes a whole large request at once, before anybody reads', {
  skip: process.getuid?.() === 0 ? false : 'needs root (CAP_NET_ADMIN)',
}, async (t) => {
  const path = join(temporaryFolder(t), 'socket');
  const server = createServer().listen(path);
  t.after(() => server.close());
  await once(server, 'listening');
  const client = connect(path);
  t.after(() => client.destroy());
  const [accepted] = (await once(server, 'connection')) as [Socket];
  t.after(() => accepted.destroy());
  const fd = descriptorOf(accepted);
  assert.ok(fd !== undefined);
  enlargeSendBuffer(fd);
  client.pause();
  accepted.write(Buffer.alloc(2 ** 20));
  assert.equal(accepted.writableLength, 0);
});
