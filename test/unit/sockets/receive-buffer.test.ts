import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import test from 'node:test';
import { receiveInto } from '../../../src/sockets/receive-buffer.js';
import { temporaryFolder } from '../../support/processes.js';
import { until } from '../nbd-server/harness.js';

test('chunks of an accepted socket come in one buffer, in order and whole, and stop when they are not wanted', async (t) => {
  const path = join(temporaryFolder(t), 'socket');
  const sent = Buffer.alloc(1_000_000, 'abcdefg');
  const received: Buffer[] = [];
  const memory = new Set<ArrayBufferLike>();
  let receivedBytes = 0;
  let stopAtBytes = 300_000;
  let socket: Socket | undefined;
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (accepted) => {
    socket = receiveInto(accepted, Buffer.alloc(65_536), (chunk) => {
      received.push(Buffer.from(chunk));
      memory.add(chunk.buffer);
      receivedBytes += chunk.length;
      if (receivedBytes >= stopAtBytes) socket?.pause();
    });
    socket.on('end', () => socket?.end('bye'));
  });
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  const client = connect(path);
  t.after(() => void client.destroy());
  client.end(sent);
  await until(() => receivedBytes >= stopAtBytes, 'the first part');
  const paused = receivedBytes;
  for (let round = 0; round < 20; round += 1) await new Promise((resolve) => void setImmediate(resolve));
  assert.equal(receivedBytes, paused);
  stopAtBytes = 2 * sent.length;
  socket?.resume();
  const answer: Buffer[] = [];
  for await (const chunk of client) answer.push(chunk as Buffer);
  assert.equal(Buffer.concat(answer).toString(), 'bye');
  assert.ok(Buffer.concat(received).equals(sent));
  assert.equal(memory.size, 1);
  // The server counts the connection until it is closed, and no longer.
  await new Promise<void>((resolve) => void server.close(() => resolve()));
});

test('a socket that has nothing inside to move is received from the ordinary way', async () => {
  const stream = new PassThrough();
  stream.pause();
  const received: Buffer[] = [];
  const socket = receiveInto(stream as unknown as Socket, Buffer.alloc(16), (chunk) => void received.push(chunk));
  assert.equal(socket, stream);
  stream.write('abc');
  await until(() => received.length > 0, 'a chunk');
  assert.equal(Buffer.concat(received).toString(), 'abc');
});
