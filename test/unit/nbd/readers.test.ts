import assert from 'node:assert/strict';
import test from 'node:test';
import { command } from '../../../src/nbd/constants.js';
import { encodeClientFlags, encodeOption } from '../../../src/nbd/handshake.js';
import { type ClientMessage, HandshakeReader, optionDataBytesMax } from '../../../src/nbd/handshake-reader.js';
import { encodeRequest, type Request } from '../../../src/nbd/request.js';
import { RequestReader } from '../../../src/nbd/request-reader.js';

const flags = encodeClientFlags(3);

/** The messages of `bytes` and what the reader had left, with every chunk overwritten after it was pushed. */
function readAll(reader: HandshakeReader, ...chunks: readonly Buffer[]): ClientMessage[] {
  const messages: ClientMessage[] = [];
  for (const bytes of chunks) {
    const chunk = Buffer.from(bytes);
    for (const message of reader.push(chunk)) {
      messages.push(message.kind === 'option' ? { ...message, data: Buffer.from(message.data) } : message);
    }
    chunk.fill(0xee);
  }
  return messages;
}

function request(fields: Partial<Request>): Request {
  return { flags: 0, type: command.read, cookieHigh: 1, cookieLow: 2, offset: 0, length: 0, ...fields };
}

test('an option of the largest size is kept, a longer one is skipped to its end', () => {
  const largest = Buffer.alloc(optionDataBytesMax, 'a');
  const tooLong = Buffer.alloc(optionDataBytesMax + 1, 'b');
  const reader = new HandshakeReader();
  const bytes = Buffer.concat([flags, encodeOption(7, largest), encodeOption(8, tooLong), encodeOption(9, flags)]);
  assert.deepEqual(readAll(reader, bytes), [
    { kind: 'client-flags', flags: 3 },
    { kind: 'option', option: 7, data: largest },
    { kind: 'oversized-option', option: 8, length: tooLong.length },
    { kind: 'option', option: 9, data: flags },
  ]);
});

test('nothing of a skipped option is kept', () => {
  const reader = new HandshakeReader();
  const header = encodeOption(8, Buffer.alloc(0));
  header.writeUInt32BE(2 ** 32 - 1, 12);
  readAll(reader, flags, header, Buffer.alloc(2 ** 20));
  assert.equal(reader.rest().length, 0);
});

test('after a wrong magic number nothing more comes', () => {
  const reader = new HandshakeReader();
  const wrong = Buffer.alloc(16, 'x');
  assert.deepEqual(readAll(reader, flags, wrong, encodeOption(1, flags)), [
    { kind: 'client-flags', flags: 3 },
    { kind: 'bad-magic' },
  ]);
});

test('what follows the option at which the consumer stops is left over', () => {
  const reader = new HandshakeReader();
  for (const message of reader.push(Buffer.concat([flags, encodeOption(7, flags), Buffer.from('requests')]))) {
    if (message.kind === 'option') break;
  }
  assert.equal(reader.rest().toString(), 'requests');
});

test('a reader of requests asks what to do with a payload before it goes on', () => {
  const reader = new RequestReader();
  reader.push(encodeRequest(request({ type: command.write, length: 3 })));
  assert.equal(reader.next().value?.kind, 'request');
  assert.throws(() => reader.next(), /before the next item/);
});

test('a payload has the length that its request says', () => {
  const reader = new RequestReader();
  reader.push(encodeRequest(request({ type: command.write, length: 3 })));
  reader.next();
  assert.throws(() => reader.collect(Buffer.alloc(4)), { name: 'AssertionFailure' });
});

test('payloads are counted down while they come, wanted or not', () => {
  for (const wanted of [true, false]) {
    const reader = new RequestReader();
    assert.equal(reader.payloadBytesToCome, 0);
    reader.push(encodeRequest(request({ type: command.write, length: 3 })));
    reader.next();
    if (wanted) reader.collect(Buffer.alloc(3));
    else reader.skip();
    assert.equal(reader.isSkipping, !wanted);
    assert.equal(reader.payloadBytesToCome, 3);
    assert.equal(reader.next().done, true);
    assert.equal(reader.push(Buffer.from('ab')).next().done, true);
    assert.equal(reader.payloadBytesToCome, 1);
    assert.equal(reader.push(Buffer.from('c')).next().value?.kind, 'payload');
    assert.equal(reader.payloadBytesToCome, 0);
    assert.equal(reader.isSkipping, false);
  }
});

test('chunks are consumed in their order', () => {
  const reader = new RequestReader();
  reader.push(encodeRequest(request({})));
  assert.throws(() => reader.push(Buffer.from('x')), { name: 'AssertionFailure' });
});

test('after a wrong magic number no request comes', () => {
  const reader = new RequestReader();
  const good = encodeRequest(request({}));
  const bad = Buffer.from(good);
  bad.writeUInt32BE(0x25609514, 0);
  const items = [...reader.push(Buffer.concat([bad, good]))];
  assert.deepEqual(items, [{ kind: 'bad-magic' }]);
  assert.deepEqual([...reader.push(good)], []);
});

test('what was not yielded can be handed over, at any point of a message', () => {
  const first = encodeRequest(request({ cookieLow: 1 }));
  const write = Buffer.concat([encodeRequest(request({ type: command.write, length: 5 })), Buffer.from('hello')]);
  for (let cut = 0; cut <= write.length; cut += 1) {
    const reader = new RequestReader();
    reader.push(Buffer.concat([first, write.subarray(0, cut)]));
    reader.next();
    const next = cut >= first.length ? reader.next().value : undefined;
    if (next?.kind === 'request' && cut > first.length) {
      reader.collect(Buffer.alloc(5));
      if (cut < write.length) reader.next();
    }
    assert.deepEqual(reader.unparsed(), write.subarray(0, cut), `${cut}`);
  }
});

test('a message that is being skipped is not handed over', () => {
  const reader = new RequestReader();
  reader.push(encodeRequest(request({ type: command.write, length: 5 })));
  reader.next();
  reader.skip();
  assert.throws(() => reader.unparsed(), { name: 'AssertionFailure' });
});
