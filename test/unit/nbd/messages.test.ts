/** Each message against its bytes, written out as the specification draws them: a codec pair that errs on both sides is noticed. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Errno } from '../../../src/base/failure.js';
import { info } from '../../../src/nbd/constants.js';
import { errnoOf, errorValue } from '../../../src/nbd/errno.js';
import {
  decodeClientFlags,
  decodeExportReply,
  decodeGreeting,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeExportReply,
  encodeGreeting,
  encodeOption,
  encodeOptionReply,
  isErrorReply,
} from '../../../src/nbd/handshake.js';
import {
  decodeInfo,
  decodeInfoQuery,
  decodeMetaContext,
  decodeMetaContextQuery,
  decodeServer,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoQuery,
  encodeInfoText,
  encodeMetaContext,
  encodeMetaContextQuery,
  encodeServer,
} from '../../../src/nbd/option-data.js';
import {
  decodeBlockStatus,
  decodeChunkHeader,
  decodeErrorChunk,
  decodeOffsetData,
  decodeSimpleReply,
  describeExtents,
  encodeBlockStatus,
  encodeErrorChunk,
  encodeNone,
  encodeOffsetDataHeader,
  encodeSimpleReply,
  errorChunkBytes,
} from '../../../src/nbd/reply.js';
import { decodeRequest, encodeRequest } from '../../../src/nbd/request.js';
import { readU64, writeU64 } from '../../../src/nbd/u64.js';

function bytes(...fields: readonly string[]): Buffer {
  return Buffer.from(fields.join('').replaceAll(' ', ''), 'hex');
}

function text(ascii: string): string {
  return Buffer.from(ascii).toString('hex');
}

/** What an encoder of replies writes, at an offset that is not 0. */
function written(encode: (into: Buffer, at: number) => number): Buffer {
  const into = Buffer.alloc(8192, 0xee);
  const end = encode(into, 5);
  assert.equal(into.readUInt8(4), 0xee);
  assert.equal(into.readUInt8(end), 0xee);
  return into.subarray(5, end);
}

const cookie = { cookieHigh: 0xf1f2f3f4, cookieLow: 0x01020304 };
const cookieHex = 'f1f2f3f4 01020304';

test('greeting', () => {
  const expected = bytes(text('NBDMAGIC'), text('IHAVEOPT'), '0003');
  assert.deepEqual(encodeGreeting(), expected);
  assert.equal(decodeGreeting(expected), 3);
  assert.equal(decodeGreeting(bytes(text('NBDMAGIK'), text('IHAVEOPT'), '0003')), null);
  assert.equal(decodeGreeting(bytes(text('NBDMAGIC'), text('IHAVENOT'), '0003')), null);
});

test('client flags', () => {
  assert.deepEqual(encodeClientFlags(0x80000003), bytes('80000003'));
  assert.equal(decodeClientFlags(bytes('80000003')), 0x80000003);
});

test('option', () => {
  const expected = bytes(text('IHAVEOPT'), '00000007', '00000003', text('abc'));
  assert.deepEqual(encodeOption(7, Buffer.from('abc')), expected);
  assert.deepEqual(decodeOptionHeader(expected), { option: 7, length: 3 });
  assert.equal(decodeOptionHeader(bytes(text('IHAVEOPS'), '00000007', '00000003')), null);
});

test('option reply', () => {
  const expected = bytes('0003e889045565a9', '00000003', '80000001', '00000002', text('no'));
  assert.deepEqual(encodeOptionReply(3, 2 ** 31 + 1, Buffer.from('no')), expected);
  assert.deepEqual(decodeOptionReplyHeader(expected), { option: 3, type: 2 ** 31 + 1, length: 2 });
  assert.equal(decodeOptionReplyHeader(bytes('0003e889045565a8', '00000003', '80000001', '00000002')), null);
  assert.equal(isErrorReply(2 ** 31 + 1), true);
  assert.equal(isErrorReply(4), false);
});

test('answer to EXPORT_NAME, with and without the zeroes', () => {
  const reply = { sizeBytes: 2 ** 53 - 1, transmissionFlags: 0x0d6d };
  const fields = bytes('001fffffffffffff', '0d6d');
  assert.deepEqual(encodeExportReply(reply, true), fields);
  assert.deepEqual(encodeExportReply(reply, false), Buffer.concat([fields, Buffer.alloc(124)]));
  assert.deepEqual(decodeExportReply(fields), reply);
});

test('query of INFO and GO', () => {
  const expected = bytes('00000004', text('disk'), '0002', '0003', 'ffff');
  assert.deepEqual(encodeInfoQuery({ exportName: 'disk', items: [3, 0xffff] }), expected);
  assert.deepEqual(decodeInfoQuery(expected), { exportName: 'disk', items: [3, 0xffff] });
  assert.deepEqual(decodeInfoQuery(bytes('00000000', '0000')), { exportName: '', items: [] });
});

test('a malformed query of INFO and GO is refused', () => {
  const name = '00000004 6469736b';
  for (const [what, data] of [
    ['nothing', ''],
    ['a name longer than the data', '00000005 6469736b 0000'],
    ['no count', name],
    ['half a count', `${name}00`],
    ['an item less than counted', `${name}0002 0003`],
    ['an item more than counted', `${name}0001 0003 0001`],
    ['half an item', `${name}0001 00`],
    ['a name of 4 GiB', 'ffffffff 6469736b 0000'],
  ] as const) {
    assert.equal(decodeInfoQuery(bytes(data)), null, what);
  }
  const name4096 = Buffer.alloc(4096, 'x').toString();
  assert.equal(decodeInfoQuery(encodeInfoQuery({ exportName: name4096, items: [] }))?.exportName, name4096);
  assert.equal(decodeInfoQuery(encodeInfoQuery({ exportName: `${name4096}x`, items: [] })), null);
});

test('query of LIST_META_CONTEXT and SET_META_CONTEXT', () => {
  const expected = bytes('00000001', text('d'), '00000002', '00000005', text('base:'), '00000000');
  assert.deepEqual(encodeMetaContextQuery({ exportName: 'd', queries: ['base:', ''] }), expected);
  assert.deepEqual(decodeMetaContextQuery(expected), { exportName: 'd', queries: ['base:', ''] });
});

test('a malformed query for metadata contexts is refused', () => {
  const name = '00000001 64';
  for (const [what, data] of [
    ['nothing', ''],
    ['no count', name],
    ['a query less than counted', `${name}00000002 00000001 61`],
    ['more queries than there can be', `${name}ffffffff 00000000`],
    ['a query that reads beyond the end', `${name}00000001 00000006 626173653a`],
    ['something after the last query', `${name}00000001 00000001 61 00`],
    ['half a length', `${name}00000001 0000`],
  ] as const) {
    assert.equal(decodeMetaContextQuery(bytes(data)), null, what);
  }
});

test('answer to LIST', () => {
  const expected = bytes('00000004', text('disk'), text('text'));
  assert.deepEqual(encodeServer('disk', 'text'), expected);
  assert.deepEqual(decodeServer(expected), { name: 'disk', description: 'text' });
  assert.equal(decodeServer(bytes('00000005', text('disk'))), null);
});

test('metadata context', () => {
  const expected = bytes('00000001', text('base:allocation'));
  assert.deepEqual(encodeMetaContext(1, 'base:allocation'), expected);
  assert.deepEqual(decodeMetaContext(expected), { id: 1, name: 'base:allocation' });
  assert.equal(decodeMetaContext(bytes('0000')), null);
});

test('items of information', () => {
  const exported = { sizeBytes: 0x1_0000_0002, transmissionFlags: 0x0d6d };
  assert.deepEqual(encodeInfoExport(exported), bytes('0000', '0000000100000002', '0d6d'));
  assert.deepEqual(decodeInfo(encodeInfoExport(exported)), { item: 0, ...exported });
  assert.deepEqual(encodeInfoText(info.name, 'disk'), bytes('0001', text('disk')));
  assert.deepEqual(decodeInfo(bytes('0002', text('a disk'))), { item: 2, text: 'a disk' });
  assert.deepEqual(encodeInfoBlockSize(), bytes('0003', '00000001', '00001000', '02000000'));
  assert.deepEqual(decodeInfo(encodeInfoBlockSize()), {
    item: 3,
    minimumBytes: 1,
    preferredBytes: 4096,
    payloadBytesMax: 33_554_432,
  });
  assert.equal(decodeInfo(bytes('0004', '00')), null);
  assert.equal(decodeInfo(bytes('00')), null);
  assert.equal(decodeInfo(bytes('0000', '00')), null);
});

test('request', () => {
  const request = { flags: 0x0011, type: 6, ...cookie, offset: 0x1_0000_0002, length: 0xffffffff };
  const expected = bytes('25609513', '0011', '0006', cookieHex, '00000001 00000002', 'ffffffff');
  assert.deepEqual(encodeRequest(request), expected);
  assert.deepEqual(decodeRequest(Buffer.concat([bytes('eeee'), expected]), 2), request);
  assert.equal(decodeRequest(bytes('25609514', '0011', '0006', cookieHex, '00000001 00000002', 'ffffffff'), 0), null);
});

test('an offset of 2^53 or more never comes out as a smaller one', () => {
  for (const [hex, least] of [
    ['001fffffffffffff', 2 ** 53 - 1],
    ['0020000000000000', 2 ** 53],
    ['0020000000000001', 2 ** 53],
    ['7fffffffffffffff', 2 ** 53],
    ['ffffffffffffffff', 2 ** 53],
  ] as const) {
    assert.ok(readU64(bytes(hex), 0) >= least, hex);
    assert.equal(Number.isSafeInteger(readU64(bytes(hex), 0)), least < 2 ** 53, hex);
  }
  const into = Buffer.alloc(9);
  assert.equal(writeU64(into, 2 ** 53 - 1, 1), 9);
  assert.deepEqual(into, bytes('00', '001fffffffffffff'));
});

test('simple reply', () => {
  const expected = bytes('67446698', '0000001c', cookieHex);
  assert.deepEqual(
    written((into, at) => encodeSimpleReply(into, at, cookie, 28)),
    expected,
  );
  assert.deepEqual(decodeSimpleReply(expected, 0), { error: 28, ...cookie });
  assert.equal(decodeSimpleReply(bytes('67446699', '0000001c', cookieHex), 0), null);
});

test('chunk without payload', () => {
  const expected = bytes('668e33ef', '0001', '0000', cookieHex, '00000000');
  assert.deepEqual(
    written((into, at) => encodeNone(into, at, cookie)),
    expected,
  );
  assert.deepEqual(decodeChunkHeader(expected, 0), { flags: 1, type: 0, ...cookie, length: 0 });
  assert.equal(decodeChunkHeader(bytes('668e33ee', '0001', '0000', cookieHex, '00000000'), 0), null);
});

test('chunk of data', () => {
  const header = written((into, at) => encodeOffsetDataHeader(into, at, cookie, 0x1_0000_0002, 3));
  assert.deepEqual(header, bytes('668e33ef', '0001', '0001', cookieHex, '0000000b', '0000000100000002'));
  const payload = Buffer.concat([header.subarray(20), Buffer.from('abc')]);
  assert.deepEqual(decodeOffsetData(payload), { offset: 0x1_0000_0002, data: Buffer.from('abc') });
  assert.equal(decodeOffsetData(payload.subarray(0, 8)), null);
});

test('chunk of block status', () => {
  const descriptors = [
    { length: 4096, kind: 'data' },
    { length: 512, kind: 'zero' },
    { length: 0xffffffff, kind: 'hole' },
  ] as const;
  const chunk = written((into, at) => encodeBlockStatus(into, at, cookie, descriptors));
  const payload = bytes('00000001', '00001000 00000000', '00000200 00000002', 'ffffffff 00000003');
  assert.deepEqual(chunk, Buffer.concat([bytes('668e33ef', '0001', '0005', cookieHex, '0000001c'), payload]));
  assert.deepEqual(decodeBlockStatus(payload), { contextId: 1, descriptors });
  assert.equal(decodeBlockStatus(payload.subarray(0, 4)), null);
  assert.equal(decodeBlockStatus(payload.subarray(0, 13)), null);
});

test('chunk of an error', () => {
  const message = Buffer.from('völlig');
  const chunk = written((into, at) => encodeErrorChunk(into, at, cookie, 22, message));
  const payload = bytes('00000016', '0007', message.toString('hex'));
  assert.deepEqual(chunk, Buffer.concat([bytes('668e33ef', '0001', '8001', cookieHex, '0000000d'), payload]));
  assert.equal(errorChunkBytes(message), chunk.length);
  assert.deepEqual(decodeErrorChunk(payload), { error: 22, message: 'völlig' });
  assert.equal(decodeErrorChunk(payload.subarray(0, 12)), null);
  assert.equal(decodeErrorChunk(payload.subarray(0, 5)), null);
});

test('extents of one kind are described together, and no more than asked for', () => {
  const extents = [
    { length: 10, kind: 'data' },
    { length: 20, kind: 'data' },
    { length: 5, kind: 'hole' },
    { length: 6, kind: 'zero' },
    { length: 7, kind: 'zero' },
  ] as const;
  const joined = [
    { length: 30, kind: 'data' },
    { length: 5, kind: 'hole' },
    { length: 13, kind: 'zero' },
  ];
  assert.deepEqual(describeExtents(extents, 3), joined);
  assert.deepEqual(describeExtents(extents, 2), joined.slice(0, 2));
  assert.deepEqual(describeExtents(extents, 1), joined.slice(0, 1));
});

test('error values are those of the specification', () => {
  const values: [Errno, number][] = [
    ['EPERM', 1],
    ['EIO', 5],
    ['EINVAL', 22],
    ['ENOSPC', 28],
    ['EOVERFLOW', 75],
    ['ENOTSUP', 95],
    ['ESHUTDOWN', 108],
  ];
  assert.deepEqual(new Map(Object.entries(errorValue)), new Map(values));
  for (const [name, value] of values) assert.equal(errnoOf(value), name);
  assert.equal(errnoOf(4711), 'EINVAL');
});
