import assert from 'node:assert/strict';
import test from 'node:test';
import { handshakeFlag, info, option, optionReply, transmissionFlag } from '../../../src/nbd/constants.js';
import { decodeExportReply, decodeOptionReplyHeader } from '../../../src/nbd/handshake.js';
import type { ClientMessage } from '../../../src/nbd/handshake-reader.js';
import {
  type ExportOffer,
  negotiate,
  type NegotiationState,
  optionsMax,
  plainAgreement,
  type Step,
} from '../../../src/nbd/negotiation.js';
import {
  decodeInfo,
  decodeMetaContext,
  decodeServer,
  encodeInfoQuery,
  encodeMetaContextQuery,
} from '../../../src/nbd/option-data.js';

const offer: ExportOffer = { name: 'disk', description: 'a disk', sizeBytes: 2 ** 40, readOnly: false };
const readOnlyOffer: ExportOffer = { ...offer, readOnly: true };
const some = Buffer.from('x');
const none = Buffer.alloc(0);

const always =
  transmissionFlag.hasFlags |
  transmissionFlag.sendFlush |
  transmissionFlag.sendFua |
  transmissionFlag.canMultiConn |
  transmissionFlag.sendCache;
const writable = always | transmissionFlag.sendTrim | transmissionFlag.sendWriteZeroes | transmissionFlag.sendFastZero;

function greeted(flags: number): Step {
  return negotiate({ at: 'greeted' }, { kind: 'client-flags', flags }, offer);
}

/** Goes through `messages`; returns the last step. */
function talk(
  messages: readonly (ClientMessage | readonly [number, Buffer])[],
  flags: number = handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes,
  what: ExportOffer = offer,
): Step {
  let step = greeted(flags);
  for (const message of messages) {
    const next: ClientMessage = 'kind' in message ? message : { kind: 'option', option: message[0], data: message[1] };
    step = negotiate(step.state, next, what);
  }
  return step;
}

interface Replied {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

function replies(step: Step): Replied[] {
  return step.send.map((bytes) => {
    const header = decodeOptionReplyHeader(bytes);
    assert.ok(header !== null);
    assert.equal(bytes.length, 20 + header.length);
    return { option: header.option, type: header.type, data: bytes.subarray(20) };
  });
}

function types(step: Step): number[] {
  return replies(step).map(({ type }) => type);
}

function haggling(state: NegotiationState): void {
  assert.equal(state.at, 'haggling');
}

const go = (exportName = '', items: number[] = []) => [option.go, encodeInfoQuery({ exportName, items })] as const;
const structured = [option.structuredReply, none] as const;
const set = (exportName: string, ...queries: string[]) =>
  [option.setMetaContext, encodeMetaContextQuery({ exportName, queries })] as const;
const list = (exportName: string, ...queries: string[]) =>
  [option.listMetaContext, encodeMetaContextQuery({ exportName, queries })] as const;

test('every combination of the known client flags is accepted, and nothing is answered to them', () => {
  for (const flags of [0, 1, 2, 3]) {
    const { state, send } = greeted(flags);
    haggling(state);
    assert.deepEqual(send, []);
  }
});

test('an unknown client flag ends the connection', () => {
  for (const flags of [4, 0x80000000, 0x80000003]) {
    const { state, send } = greeted(flags);
    assert.equal(state.at, 'ended');
    assert.ok(state.fault?.includes('0x'));
    assert.ok(!state.fault?.includes('-'), state.fault ?? '');
    assert.deepEqual(send, []);
  }
});

test('a wrong magic number ends the connection', () => {
  const { state, send } = talk([{ kind: 'bad-magic' }]);
  assert.deepEqual(state, { at: 'ended', fault: 'not an NBD option: the magic number is wrong' });
  assert.deepEqual(send, []);
});

test('EXPORT_NAME answers with size and flags, padded unless both sides agreed not to', () => {
  for (const [flags, bytes] of [
    [handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 10],
    [handshakeFlag.fixedNewstyle, 134],
    [0, 134],
  ] as const) {
    const { state, send } = talk([[option.exportName, Buffer.from('any name')]], flags);
    assert.deepEqual(state, { at: 'transmission', agreement: plainAgreement });
    const [reply] = send;
    assert.equal(reply?.length, bytes);
    assert.deepEqual(decodeExportReply(reply), { sizeBytes: 2 ** 40, transmissionFlags: writable });
    assert.ok(reply.subarray(10).equals(Buffer.alloc(bytes - 10)));
  }
});

test('EXPORT_NAME takes part in what was negotiated before', () => {
  const { state } = talk([structured, set('d', 'base:allocation'), [option.exportName, Buffer.from('d')]]);
  assert.deepEqual(state, { at: 'transmission', agreement: { structuredReplies: true, allocation: true } });
});

test('EXPORT_NAME with a name that no string may have ends the connection', () => {
  assert.equal(talk([[option.exportName, Buffer.alloc(4096, 'x')]]).state.at, 'transmission');
  for (const message of [
    [option.exportName, Buffer.alloc(4097, 'x')] as const,
    { kind: 'oversized-option', option: option.exportName, length: 2 ** 31 } as const,
  ]) {
    const { state, send } = talk([message]);
    assert.equal(state.at, 'ended');
    assert.deepEqual(send, []);
  }
});

test('ABORT is acknowledged, whatever data comes with it', () => {
  for (const message of [
    [option.abort, none] as const,
    [option.abort, some] as const,
    { kind: 'oversized-option', option: option.abort, length: 2 ** 31 } as const,
  ]) {
    const step = talk([message]);
    assert.deepEqual(step.state, { at: 'ended', fault: null });
    assert.deepEqual(types(step), [optionReply.ack]);
  }
});

test('LIST names the one export', () => {
  const step = talk([[option.list, none]]);
  haggling(step.state);
  assert.deepEqual(types(step), [optionReply.server, optionReply.ack]);
  assert.deepEqual(decodeServer(replies(step)[0]?.data ?? none), { name: 'disk', description: 'a disk' });
});

test('LIST and STRUCTURED_REPLY with data are invalid, however much it is', () => {
  for (const type of [option.list, option.structuredReply]) {
    for (const message of [
      [type, some] as const,
      { kind: 'oversized-option', option: type, length: 2 ** 20 } as const,
    ]) {
      const step = talk([message]);
      haggling(step.state);
      assert.deepEqual(types(step), [optionReply.errInvalid]);
    }
  }
  const { state } = talk([[option.structuredReply, some], go()]);
  assert.deepEqual(state, { at: 'transmission', agreement: plainAgreement });
});

test('an unknown option is unsupported, however long it is, and the negotiation goes on', () => {
  for (const type of [0, 4, 5, 11, 4711, 2 ** 32 - 1]) {
    for (const message of [
      [type, some] as const,
      { kind: 'oversized-option', option: type, length: 2 ** 20 } as const,
    ]) {
      const step = talk([message]);
      haggling(step.state);
      assert.deepEqual(types(step), [optionReply.errUnsupported]);
      assert.equal(replies(step)[0]?.option, type);
    }
  }
});

test('INFO and GO always tell size and flags, and of the rest what was asked for', () => {
  const asked: [number[], number[]][] = [
    [[], [info.export]],
    [[info.blockSize], [info.export, info.blockSize]],
    [
      [info.name, info.description, info.blockSize, info.export],
      [info.export, info.name, info.description, info.blockSize],
    ],
    [[4711], [info.export]],
  ];
  for (const type of [option.info, option.go]) {
    for (const [items, expected] of asked) {
      const step = talk([[type, encodeInfoQuery({ exportName: 'whatever', items })]]);
      const told = replies(step);
      assert.deepEqual(told.pop(), { option: type, type: optionReply.ack, data: none });
      assert.ok(told.every((reply) => reply.option === type && reply.type === optionReply.info));
      const decoded = told.map(({ data }) => decodeInfo(data));
      assert.deepEqual(
        decoded.map((item) => item?.item),
        expected,
      );
      assert.deepEqual(decoded[0], { item: info.export, sizeBytes: 2 ** 40, transmissionFlags: writable });
      assert.equal(step.state.at, type === option.go ? 'transmission' : 'haggling');
    }
  }
});

test('INFO tells name and description of the export, not those that were asked for', () => {
  const step = talk([[option.info, encodeInfoQuery({ exportName: 'x', items: [info.name, info.description] })]]);
  const texts = replies(step).map(({ data }) => decodeInfo(data));
  assert.deepEqual(texts.slice(1, 3), [
    { item: info.name, text: 'disk' },
    { item: info.description, text: 'a disk' },
  ]);
});

test('GO that cannot be read is refused, and the negotiation goes on', () => {
  for (const type of [option.info, option.go]) {
    const malformed = talk([[type, some]]);
    haggling(malformed.state);
    assert.deepEqual(types(malformed), [optionReply.errInvalid]);
    const oversized = talk([{ kind: 'oversized-option', option: type, length: 2 ** 20 }]);
    haggling(oversized.state);
    assert.deepEqual(types(oversized), [optionReply.errTooBig]);
  }
});

test('the flags: DF only with structured replies, nothing that writes on a read-only export', () => {
  const flagsOf = (step: Step) => decodeInfo(replies(step)[0]?.data ?? none);
  const told = (transmissionFlags: number) => ({ item: info.export, sizeBytes: 2 ** 40, transmissionFlags });
  assert.deepEqual(flagsOf(talk([go()])), told(writable));
  assert.deepEqual(flagsOf(talk([structured, go()])), told(writable | transmissionFlag.sendDf));
  assert.deepEqual(flagsOf(talk([go()], 3, readOnlyOffer)), told(always | transmissionFlag.readOnly));
});

test('metadata contexts need structured replies', () => {
  for (const message of [set('', 'base:allocation'), list('', 'base:allocation')]) {
    const step = talk([message]);
    haggling(step.state);
    assert.deepEqual(types(step), [optionReply.errInvalid]);
  }
});

test('LIST_META_CONTEXT shows base:allocation to whom it concerns', () => {
  for (const [queries, found] of [
    [[], true],
    [['base:'], true],
    [['base:allocation'], true],
    [['x-other:', 'base:allocation'], true],
    [['base:other'], false],
    [['x-other:'], false],
    [['base'], false],
    [[''], false],
  ] as const) {
    const step = talk([structured, list('', ...queries)]);
    haggling(step.state);
    assert.deepEqual(
      types(step),
      found ? [optionReply.metaContext, optionReply.ack] : [optionReply.ack],
      queries.join(),
    );
    if (!found) continue;
    assert.deepEqual(decodeMetaContext(replies(step)[0]?.data ?? none), { id: 0, name: 'base:allocation' });
  }
});

test('LIST_META_CONTEXT selects nothing', () => {
  const { state } = talk([structured, list('', 'base:allocation'), go()]);
  assert.deepEqual(state, { at: 'transmission', agreement: { structuredReplies: true, allocation: false } });
});

test('SET_META_CONTEXT selects base:allocation by its whole name only', () => {
  for (const [queries, found] of [
    [[], false],
    [['base:'], false],
    [['base:allocation'], true],
    [['base:allocation', 'base:allocation', 'x-y:z'], true],
    [['x-other:', 'base:other'], false],
  ] as const) {
    const step = talk([structured, set('', ...queries)]);
    assert.deepEqual(
      types(step),
      found ? [optionReply.metaContext, optionReply.ack] : [optionReply.ack],
      queries.join(),
    );
    if (found) assert.deepEqual(decodeMetaContext(replies(step)[0]?.data ?? none), { id: 1, name: 'base:allocation' });
    const { state } = talk([structured, set('', ...queries), go()]);
    assert.deepEqual(state, { at: 'transmission', agreement: { structuredReplies: true, allocation: found } });
  }
});

test('the selection holds for the export name that it was made for', () => {
  const allocation = (...messages: Parameters<typeof talk>[0]) => {
    const { state } = talk([structured, ...messages]);
    assert.equal(state.at, 'transmission');
    return state.agreement.allocation;
  };
  assert.equal(allocation(set('a', 'base:allocation'), go('a')), true);
  assert.equal(allocation(set('a', 'base:allocation'), go('b')), false);
  assert.equal(allocation(set('a', 'base:allocation'), [option.exportName, Buffer.from('b')]), false);
});

test('SET_META_CONTEXT replaces what was selected before, also when it fails', () => {
  const selected = set('', 'base:allocation');
  for (const message of [
    set(''),
    set('', 'base:'),
    set('b', 'base:allocation'),
    [option.setMetaContext, some] as const,
    { kind: 'oversized-option', option: option.setMetaContext, length: 2 ** 20 } as const,
  ]) {
    const { state } = talk([structured, selected, message, go()]);
    assert.deepEqual(state, { at: 'transmission', agreement: { structuredReplies: true, allocation: false } });
  }
  const { state } = talk([structured, selected, list('', 'x:'), go()]);
  assert.deepEqual(state, { at: 'transmission', agreement: { structuredReplies: true, allocation: true } });
});

test('a malformed or oversized query for metadata contexts is refused', () => {
  for (const type of [option.listMetaContext, option.setMetaContext]) {
    assert.deepEqual(types(talk([structured, [type, some]])), [optionReply.errInvalid]);
    const oversized: ClientMessage = { kind: 'oversized-option', option: type, length: 2 ** 20 };
    assert.deepEqual(types(talk([structured, oversized])), [optionReply.errTooBig]);
  }
});

test('a client that asks for ever is disconnected', () => {
  const options = Array.from({ length: optionsMax }, () => [option.list, none] as const);
  haggling(talk(options).state);
  const { state, send } = talk([...options, [option.list, none]]);
  assert.equal(state.at, 'ended');
  assert.deepEqual(send, []);
});
