/** What one client can take, and what is left for the others. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { command, payloadBytesMax } from '../../../src/nbd/constants.js';
import { contendedBytesMin, contendedSecondsMax, stallSecondsMax } from '../../../src/nbd-server/connection.js';
import { clientsMax } from '../../../src/nbd-server/nbd-server.js';
import { requestsMax } from '../../../src/nbd-server/transmission.js';
import { Gate } from '../../support/gate.js';
import type { MemoryVolume } from '../../support/memory-volume.js';
import type { NbdClient, Reply } from '../../support/nbd-client.js';
import { mebibyte, serve, until } from './harness.js';

interface Load {
  begun: number;
  beingServed: number;
  peak: number;
}

/** Counts the requests that `volume` is asked to serve. */
function watch(volume: MemoryVolume): Load {
  const load: Load = { begun: 0, beingServed: 0, peak: 0 };
  const counted = async (served: Promise<void>) => {
    load.begun += 1;
    load.beingServed += 1;
    load.peak = Math.max(load.peak, load.beingServed);
    await served;
    load.beingServed -= 1;
  };
  const [read, write, flush] = [volume.read.bind(volume), volume.write.bind(volume), volume.flush.bind(volume)];
  volume.read = (offset, into) => counted(read(offset, into));
  volume.write = (offset, bytes, fua) => counted(write(offset, bytes, fua));
  volume.flush = () => counted(flush());
  return load;
}

/** Proves that the server has had time: `client` gets an answer that needs nothing of anybody. */
async function answersStill(client: NbdClient): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    assert.equal((await client.request({ type: command.trim, offset: 2 ** 52, length: 1 })).error, 'EINVAL');
  }
}

function succeeded(replies: readonly Reply[]): void {
  for (const { error } of replies) assert.equal(error, null);
}

test('of 10,000 requests a bounded number is in flight, and all are answered', async (t) => {
  const { open, volume } = await serve(t, mebibyte);
  const load = watch(volume);
  const gate = new Gate();
  volume.gate = gate.passed;
  const client = await open();
  const other = await open();
  const replies = Array.from({ length: 10_000 }, (_, index) =>
    client.request(index % 2 === 0 ? { type: command.flush } : { type: command.write, payload: Buffer.from('abc') }),
  );
  await until(() => load.begun === requestsMax, 'as many requests as may be in flight');
  await answersStill(other);
  assert.equal(load.begun, requestsMax);
  volume.gate = undefined;
  gate.open();
  succeeded(await Promise.all(replies));
  assert.equal(load.begun, 10_000);
  assert.ok(load.peak <= requestsMax, `${load.peak}`);
});

test('a client that reads no replies is not read from, costs little, delays nobody, and gets them all in the end', async (t) => {
  const { open, volume, server } = await serve(t, mebibyte);
  const load = watch(volume);
  const deaf = await open();
  const other = await open();
  deaf.socket.pause();
  const replies = Array.from({ length: 10_000 }, () => deaf.request({ type: command.read, length: 4096 }));
  await until(() => load.begun > 1000, 'replies that fill the buffers');
  // No condition tells that nothing more comes: but the other one's requests get their turns meanwhile.
  for (let round = 0; round < 200; round += 1) await other.read(0, 4096);
  const begun = load.begun - 200;
  assert.ok(begun * 4096 < 8 * mebibyte, `${begun} replies of 4 KiB are waiting`);
  assert.equal(server.clients, 2);
  deaf.socket.resume();
  succeeded(await Promise.all(replies));
});

test('a client that reads no refusals is bounded, too', async (t) => {
  const { open } = await serve(t, mebibyte);
  const deaf = await open();
  const other = await open();
  deaf.socket.pause();
  const refused = deaf.encode({ type: 4711 });
  const batch = Buffer.concat(Array.from({ length: 1000 }, () => refused));
  for (let round = 0; round < 600; round += 1) deaf.send(batch); // 16 MiB of requests, 30 MiB of replies
  const takenBytes = () => deaf.socket.bytesWritten - deaf.socket.writableLength;
  let before = -1;
  while (takenBytes() !== before) {
    before = takenBytes();
    for (let round = 0; round < 50; round += 1) await answersStill(other);
  }
  assert.ok(takenBytes() < 8 * mebibyte, `${takenBytes()} bytes of requests were taken`);
});

test('payload bytes are bounded, for one client and for all together, and shared in the order of asking', async (t) => {
  const { open, volume } = await serve(t, 64 * mebibyte);
  const load = watch(volume);
  const gate = new Gate();
  volume.gate = gate.passed;
  const watcher = await open();
  const length = 8 * mebibyte;
  const replies: Promise<Reply>[] = [];
  // Each of the first three may hold 32 MiB; that makes the whole of 96 that large ones get.
  for (const expected of [4, 8, 12, 12]) {
    const client = await open();
    for (let index = 0; index < 10; index += 1) replies.push(client.request({ type: command.read, length }));
    await until(() => load.begun === expected, `${expected} reads`);
    await answersStill(watcher);
    assert.equal(load.begun, expected);
  }
  const late = await open();
  const written = late.write(0, Buffer.from('a small one'));
  await until(() => load.begun === 13, 'a small one is not shut out by large ones');
  await answersStill(watcher);
  volume.gate = undefined;
  gate.open();
  succeeded(await Promise.all(replies));
  await written;
});

test('a write larger than what a connection may hold is received to its end', async (t) => {
  const { open } = await serve(t, 64 * mebibyte);
  const client = await open();
  const payload = Buffer.alloc(payloadBytesMax, 'w');
  await Promise.all([
    client.write(0, payload),
    client.write(payloadBytesMax, payload),
    client.read(0, payloadBytesMax),
  ]);
  assert.ok((await client.read(payloadBytesMax, payloadBytesMax)).equals(payload));
});

test('whatever a client held when it vanished, others get', async (t) => {
  const { open, server } = await serve(t, 64 * mebibyte);
  const header = { type: command.write, length: payloadBytesMax };
  for (let round = 0; round < 4; round += 1) {
    const writing = await open();
    writing.send(writing.encode(header));
    writing.send(Buffer.alloc(1000));
    const reading = await open();
    reading.socket.pause();
    const unread = Array.from({ length: 8 }, () => reading.request({ type: command.read, length: payloadBytesMax }));
    const waiting = await open();
    const never = waiting.write(0, Buffer.alloc(payloadBytesMax));
    await answersStill(await open());
    for (const client of [waiting, reading, writing]) client.destroy();
    for (const request of [...unread, never]) await request.catch(() => {});
  }
  await until(() => server.clients <= 4, 'the end of the broken connections');
  // Three of the largest at once need the whole budget.
  const clients = await Promise.all([open(), open(), open()]);
  const reads = clients.map((client) => client.read(0, payloadBytesMax));
  for (const data of await Promise.all(reads)) assert.equal(data.length, payloadBytesMax);
});

test('a client that leaves its replies unread is disconnected when others have waited long enough for what it holds', async (t) => {
  const { open, clock, events, server } = await serve(t, 64 * mebibyte);
  const deaf = await Promise.all([open(), open(), open()]);
  for (const client of deaf) {
    client.socket.pause();
    for (let index = 0; index < 4; index += 1) {
      client.request({ type: command.read, length: payloadBytesMax }).catch(() => {});
    }
  }
  const other = await open();
  await answersStill(other);
  await clock.advance(10 * stallSecondsMax * 1000);
  assert.equal(server.clients, 4, 'nobody waits for anything, so nobody is blamed');
  const data = other.read(0, payloadBytesMax);
  await answersStillWhile(data, clock);
  assert.equal((await data).length, payloadBytesMax);
  const faults = events.flatMap((event) => (event.type === 'disconnected' ? [event.fault] : []));
  assert.ok(faults.length > 0);
  for (const fault of faults) assert.match(fault ?? '', /while others wait/);
  assert.equal(await other.read(0, 1).then(({ length }) => length), 1);
});

/** Lets seconds pass until `work` is done. */
async function answersStillWhile(
  work: Promise<unknown>,
  clock: { advance: (ms: number) => Promise<void> },
): Promise<void> {
  let done = false;
  void work.then(() => {
    done = true;
  });
  for (let seconds = 0; !done && seconds < 20 * stallSecondsMax; seconds += 1) {
    await clock.advance(1000);
    await new Promise((resolve) => void setImmediate(resolve));
  }
}

test('while others wait, a payload must come at some pace', async (t) => {
  const { open, clock, events, server } = await serve(t, 64 * mebibyte);
  const senders = await Promise.all([open(), open(), open()]);
  const [steady, trickling] = senders;
  assert.ok(steady !== undefined && trickling !== undefined);
  // The headers alone: the payloads follow, or not.
  const [received] = senders.map((client) =>
    client.request({ type: command.write, length: payloadBytesMax }).catch(() => null),
  );
  const watcher = await open();
  await answersStill(watcher);
  const waiting = await open();
  const written = waiting.write(0, Buffer.alloc(2 * mebibyte, 'at last'));
  await answersStill(watcher);
  for (let round = 0; round < 4; round += 1) {
    steady.send(Buffer.alloc(contendedBytesMin));
    trickling.send(Buffer.alloc(10));
    await until(() => steady.socket.writableLength === 0, 'the payload is on its way');
    await answersStill(watcher);
    await clock.advance((contendedSecondsMax / 2) * 1000);
  }
  await written;
  assert.equal(server.clients, 3);
  const faults = events.flatMap((event) => (event.type === 'disconnected' ? [event.fault?.slice(0, 9)] : []));
  assert.deepEqual(faults, ['less than', 'less than']);
  steady.send(Buffer.alloc(payloadBytesMax - 4 * contendedBytesMin));
  assert.equal((await received)?.error, null);
});

test('while others wait, replies must be read at some pace', async (t) => {
  const { open, clock, events, server } = await serve(t, 64 * mebibyte);
  const steady = await open();
  steady.socket.pause();
  const length = mebibyte;
  const replies = Array.from({ length: 60 }, () => steady.request({ type: command.read, length }));
  const deaf = await Promise.all([open(), open()]);
  for (const client of deaf) {
    client.socket.pause();
    client.request({ type: command.read, length: payloadBytesMax }).catch(() => {});
  }
  const waiting = await open();
  await answersStill(waiting);
  const data = waiting.read(0, payloadBytesMax);
  await answersStill(await open());
  for (let round = 0; round < 4; round += 1) {
    const before = steady.answered.length;
    steady.socket.resume();
    await until(() => steady.answered.length >= before + 4, 'some replies');
    steady.socket.pause();
    await answersStill(await open());
    await clock.advance((contendedSecondsMax / 2) * 1000);
  }
  assert.equal((await data).length, payloadBytesMax);
  const faults = events.flatMap((event) => (event.type === 'disconnected' ? [event.fault?.slice(0, 9)] : []));
  assert.deepEqual(faults, ['less than', 'less than']);
  assert.ok(server.clients > 0);
  steady.socket.resume();
  succeeded(await Promise.all(replies));
});

test('while others wait, nobody is blamed for what the volume takes its time for', async (t) => {
  const { open, volume, clock, server } = await serve(t, 64 * mebibyte);
  const load = watch(volume);
  const gate = new Gate();
  volume.gate = gate.passed;
  const clients = await Promise.all([open(), open(), open(), open()]);
  const reads = clients.map((client) => client.read(0, payloadBytesMax));
  await until(() => load.begun === 3, 'as many as there is memory for');
  await answersStill(await open());
  await clock.advance(20 * stallSecondsMax * 1000);
  assert.equal(server.clients, 5);
  volume.gate = undefined;
  gate.open();
  for (const data of await Promise.all(reads)) assert.equal(data.length, payloadBytesMax);
});

test('there is room for a bounded number of clients, and again when one leaves', async (t) => {
  const { open, connect, events, server } = await serve(t, mebibyte);
  const clients: NbdClient[] = [];
  for (let index = 0; index < clientsMax; index += 1) clients.push(await connect());
  await until(() => server.clients === clientsMax, 'all clients');
  const refused = await connect();
  await assert.rejects(refused.greet(), /closed the connection/);
  assert.deepEqual(events.at(-1), {
    type: 'refused',
    client: 'unix socket',
    reason: `${clientsMax} clients are connected`,
  });
  clients[7]?.destroy();
  await until(() => server.clients < clientsMax, 'room');
  assert.equal((await (await open()).read(0, 1)).length, 1);
});
