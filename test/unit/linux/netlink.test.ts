import assert from 'node:assert/strict';
import test from 'node:test';
import { SystemError } from '../../../src/linux/errno.js';
import { decodeConnected, encodeConnect, encodeReconfigure } from '../../../src/linux/nbd-netlink.js';
import { familyNumber, generic } from '../../../src/linux/netlink.js';
import {
  decodeAttributes,
  decodeMessages,
  encodeAttribute,
  encodeGenericRequest,
  encodeNested,
  encodeText,
  encodeU32,
} from '../../../src/linux/netlink-message.js';

/** As `strace -e raw=sendto` shows it of nl's own tools. */
test('a request on the wire, byte by byte', () => {
  const message = encodeGenericRequest({ family: 0x10, command: 3, sequence: 7, attributes: [encodeText(2, 'nbd')] });
  assert.equal(
    message.toString('hex'),
    [
      '1c000000', // length
      '1000', // type: the family
      '0500', // request, acknowledge
      '07000000', // sequence
      '00000000', // port
      '03010000', // command, version
      '08000200', // attribute: length, type
      '6e626400', // "nbd", NUL
    ].join(''),
  );
});

test('attributes are padded, and found again', () => {
  const encoded = Buffer.concat([
    encodeText(10, 'abcde'),
    encodeU32(1, 0x01020304),
    encodeNested(7, [encodeU32(1, 9)]),
  ]);
  const [text, number, nested, ...more] = decodeAttributes(encoded);
  assert.deepEqual(more, []);
  assert.deepEqual([text?.type, text?.value.toString()], [10, 'abcde\0']);
  assert.deepEqual([number?.type, number?.value.toString('hex')], [1, '04030201']);
  assert.equal(nested?.type, 7);
  assert.deepEqual(
    decodeAttributes(nested.value).map(({ type, value }) => [type, value.readUInt32LE(0)]),
    [[1, 9]],
  );
});

test('attributes and messages that end too early or lie about their length are not read beyond their end', () => {
  const whole = Buffer.concat([encodeU32(1, 5), encodeU32(2, 6)]);
  for (let length = 0; length < whole.length; length++) {
    assert.equal(decodeAttributes(whole.subarray(0, length)).length, length < 8 ? 0 : 1);
  }
  const lying = encodeAttribute(3, Buffer.alloc(4));
  for (const length of [0, 3, 9, 0xffff]) {
    lying.writeUInt16LE(length, 0);
    assert.deepEqual(decodeAttributes(lying), []);
  }
  const message = encodeGenericRequest({ family: 20, command: 1, sequence: 1, attributes: [] });
  assert.equal(decodeMessages(message).length, 1);
  for (const length of [0, 15, 21, 0xffffffff]) {
    message.writeUInt32LE(length, 0);
    assert.deepEqual(decodeMessages(message), []);
  }
});

test('several messages of one datagram: data, then the errno', () => {
  const data = encodeGenericRequest({ family: 20, command: 1, sequence: 4, attributes: [encodeU32(1, 12)] });
  const error = Buffer.alloc(36);
  error.writeUInt32LE(36, 0);
  error.writeUInt16LE(2, 4);
  error.writeUInt32LE(4, 8);
  error.writeInt32LE(-16, 16);
  const [first, second, ...more] = decodeMessages(Buffer.concat([data, error]));
  assert.deepEqual(more, []);
  assert.ok(first?.kind === 'data');
  assert.equal(decodeConnected(first.attributes), 12);
  assert.deepEqual(second, { kind: 'result', sequence: 4, errno: 16 });
});

test('what CONNECT and RECONFIGURE tell the kernel', () => {
  const device = {
    ...{ index: undefined, sizeBytes: 2 ** 40, blockBytes: 512, timeoutS: 38, deadTimeoutS: 60 },
    ...{ serverFlags: 0x16d, sockets: [20, 21], identifier: 'x' },
  };
  const types = (attributes: readonly Buffer[]) => decodeAttributes(Buffer.concat(attributes)).map(({ type }) => type);
  assert.deepEqual(types(encodeConnect(device)), [2, 3, 5, 6, 4, 8, 7, 10]);
  assert.deepEqual(types(encodeConnect({ ...device, index: 0 })), [1, 2, 3, 5, 6, 4, 8, 7, 10]);
  // A takeover must not touch the size, a resize not the sockets.
  assert.deepEqual(types(encodeReconfigure({ index: 1, identifier: 'x', sockets: [4] })), [1, 7, 10]);
  assert.deepEqual(types(encodeReconfigure({ index: 1, identifier: 'x', sockets: [], sizeBytes: 512 })), [1, 2, 10]);
  const size = decodeAttributes(Buffer.concat(encodeConnect(device))).find(({ type }) => type === 2);
  assert.equal(size?.value.readBigUInt64LE(0), 2n ** 40n);
});

test('the kernel of this machine is asked: a family that it has, one that it has not, a command that it refuses', async () => {
  assert.equal(await familyNumber('nlctrl'), 16);
  assert.equal(await familyNumber('no-such-family'), undefined);
  await assert.rejects(generic({ family: 16, command: 250, attributes: [] }), (error) => {
    assert.ok(error instanceof SystemError);
    return error.code === 'EOPNOTSUPP';
  });
});
