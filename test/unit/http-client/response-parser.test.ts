import assert from 'node:assert/strict';
import test from 'node:test';
import { type Expected, parse } from './recording-handler.js';

const get: Expected = { method: 'GET', destination: 100 };

function bytes(...lines: string[]): Buffer[] {
  return [Buffer.from(lines.join('\r\n'), 'latin1')];
}

function outcome(expected: Expected, ...lines: string[]): string | undefined {
  return parse([expected], bytes(...lines)).at(-1);
}

test('each answer says its own instance, however much it looks like the one before', () => {
  const names = ['abc', 'abc', 'abd', 'ab', 'abd'];
  const answers = names.map((name) => `HTTP/1.1 200 OK\r\nDisk-Instance: ${name}\r\nContent-Length: 0\r\n\r\n`);
  const log = parse(
    names.map(() => get),
    bytes(answers.join('')),
  );
  const heads = log.map((line) => /"instance":"(\w+)"/.exec(line)?.[1]).filter((name) => name !== undefined);
  assert.deepEqual(heads, names);
});

test('the fields of a head that a reader needs are attributes, whatever their case and blanks', () => {
  const [head] = parse(
    [{ method: 'GET', destination: { fill: 4 } }],
    bytes(
      'HTTP/1.1 206 Partial Content',
      'content-LENGTH:4',
      'Content-Range: \t bytes 8-11/4096 ',
      'Connection: Keep-Alive',
      'Keep-Alive: timeout=75',
      'Disk-Instance: a_-9',
      'Disk-Clock: 17',
      'ETag: "x"',
      'Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT',
      'X-Empty:',
      'X-Twice: 1',
      'x-twice: 2',
      '',
      'data',
    ),
  );
  assert.deepEqual(JSON.parse(head ?? ''), {
    status: 206,
    minorVersion: 1,
    contentLength: 4,
    chunked: false,
    close: false,
    keepAliveSeconds: 75,
    encoded: false,
    instance: 'a_-9',
    clockMs: 17,
    rangeFirst: 8,
    rangeLast: 11,
    rangeTotal: 4096,
    etag: '"x"',
    lastModified: 'Mon, 01 Jan 2024 00:00:00 GMT',
    oddDiskField: false,
    fields: {
      'content-length': '4',
      'content-range': 'bytes 8-11/4096',
      connection: 'Keep-Alive',
      'keep-alive': 'timeout=75',
      'disk-instance': 'a_-9',
      'disk-clock': '17',
      etag: '"x"',
      'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT',
      'x-empty': '',
      'x-twice': '1, 2',
    },
  });
});

test('attributes of one response are gone in the next', () => {
  const log = parse(
    [get, get],
    bytes(
      'HTTP/1.0 200 OK',
      'Content-Length: 0',
      'Content-Encoding: gzip',
      'Connection: close',
      'Keep-Alive: timeout=3, max=7',
      'Content-Range: bytes 1-2/3',
      'Disk-Instance: i',
      'Disk-Clock: 5',
      'ETag: e',
      'Last-Modified: l',
      '',
      'HTTP/1.1 204 No Content',
      '',
      '',
    ),
  );
  const { fields: _, ...second } = JSON.parse(log[2] ?? '') as Record<string, unknown>;
  assert.deepEqual(second, {
    status: 204,
    minorVersion: 1,
    contentLength: -1,
    chunked: false,
    close: false,
    keepAliveSeconds: -1,
    encoded: false,
    clockMs: -1,
    rangeFirst: -1,
    rangeLast: -1,
    rangeTotal: -1,
    oddDiskField: false,
  });
});

for (const [what, field, attribute, value] of [
  ['close among others', 'Connection: TE, close', 'close', true],
  ['no close in another word', 'Connection: closed', 'close', false],
  ['a keep-alive time among others', 'Keep-Alive: max=5, timeout=30', 'keepAliveSeconds', 30],
  ['an encoding', 'Content-Encoding: br', 'encoded', true],
  ['identity, which is none', 'Content-Encoding: Identity', 'encoded', false],
  ['an instance that is no id', 'Disk-Instance: a b', 'oddDiskField', true],
  ['a clock that is no number', 'Disk-Clock: 1.5', 'oddDiskField', true],
  ['a clock above 2^53 - 1', 'Disk-Clock: 9007199254740992', 'oddDiskField', true],
  ['a range of unknown total', 'Content-Range: bytes 0-9/*', 'rangeLast', 9],
  ['a range in another unit', 'Content-Range: lines 0-9/10', 'rangeLast', -1],
  ['an unsatisfied range', 'Content-Range: bytes */10', 'rangeLast', -1],
] as const) {
  test(`a head tells ${what}`, () => {
    const [head] = parse([get], bytes('HTTP/1.1 200 OK', 'Content-Length: 0', field, '', ''));
    assert.equal((JSON.parse(head ?? '') as Record<string, unknown>)[attribute], value);
  });
}

test('bodies end as RFC 9112 has it', () => {
  const ok = 'body 64617461';
  assert.equal(parse([get], bytes('HTTP/1.1 200 OK', 'Content-Length: 4', '', 'data'))[1], ok);
  const chunks = ['3;x=y', 'dat', '01', 'a', '0', 'X-Trailer: 1', '', ''];
  assert.equal(parse([get], bytes('HTTP/1.1 200 OK', 'Transfer-Encoding: chunked', '', ...chunks))[1], ok);
  assert.deepEqual(parse([get], bytes('HTTP/1.0 200 OK', '', 'data')).slice(1), ['inside or over']);
  assert.equal(parse([get], bytes('HTTP/1.0 200 OK', '', 'data'), true)[1], ok);
  const head: Expected = { method: 'HEAD', destination: 0 };
  assert.deepEqual(parse([head], bytes('HTTP/1.1 200 OK', 'Content-Length: 4', '', '')).slice(1), ['body ', 'between']);
  for (const status of ['204 No Content', '304 Not Modified']) {
    assert.deepEqual(parse([get], bytes(`HTTP/1.1 ${status}`, '', '')).slice(1), ['body ', 'between']);
  }
  const connect: Expected = { method: 'CONNECT', destination: 0 };
  assert.deepEqual(parse([connect], bytes('HTTP/1.1 200 Connected', '', '')).slice(1), ['body ', 'between']);
});

test('interim responses are skipped', () => {
  const interim = ['HTTP/1.1 100 Continue', '', 'HTTP/1.1 103 Early Hints', 'Link: x', ''];
  const log = parse([get], bytes(...interim, 'HTTP/1.1 200 OK', 'Content-Length: 1', '', 'x'));
  assert.deepEqual(log.slice(1), ['body 78', 'between']);
  const many = Array.from({ length: 17 }, () => 'HTTP/1.1 100 Continue\r\n\r\n').join('');
  assert.deepEqual(parse([get], bytes(many)), ['malformed-response']);
});

test('pipelined responses are told apart', () => {
  const one = ['HTTP/1.1 200 OK', 'Content-Length: 1', '', 'a'].join('\r\n');
  const two = ['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked', '', '1', 'b', '0', '', ''].join('\r\n');
  const log = parse([get, get, get], bytes(`${one}${two}${one}`));
  assert.deepEqual(
    log.filter((line) => !line.startsWith('{')),
    ['body 61', 'body 62', 'body 61', 'between'],
  );
});

const fill4: Expected = { method: 'GET', destination: { fill: 4 } };
const ok = 'HTTP/1.1 200 OK';
for (const [what, expected, ...lines] of [
  ['no HTTP at all', get, 'SSH-2.0-OpenSSH'],
  ['another version', get, 'HTTP/2.0 200 OK', '', ''],
  ['HTTP/1.2', get, 'HTTP/1.2 200 OK', '', ''],
  ['a status of two digits', get, 'HTTP/1.1 20 OK', '', ''],
  ['a status of four digits', get, 'HTTP/1.1 2000 OK', '', ''],
  ['a status out of range', get, 'HTTP/1.1 600 Odd', '', ''],
  ['a switch of protocols', get, 'HTTP/1.1 101 Switching Protocols', '', ''],
  ['a status line ended by a bare line feed', get, 'HTTP/1.1 200 OK\nContent-Length: 0', '', ''],
  ['a field ended by a bare line feed', get, ok, 'Content-Length: 0\n', ''],
  ['a bare carriage return', get, ok, 'X: a\rb', '', ''],
  ['a NUL in a field', get, ok, 'X: a\0b', '', ''],
  ['a folded field', get, ok, 'X: a', ' b', '', ''],
  ['a blank before the colon', get, ok, 'Content-Length : 4', '', 'data'],
  ['a field without a name', get, ok, ': x', '', ''],
  ['a field without a colon', get, ok, 'nonsense', '', ''],
  ['a negative length', get, ok, 'Content-Length: -1', '', ''],
  ['a length with a sign', get, ok, 'Content-Length: +4', '', 'data'],
  ['a length above 2^53 - 1', get, ok, 'Content-Length: 9007199254740992', '', ''],
  ['a list of lengths', get, ok, 'Content-Length: 4, 4', '', 'data'],
  ['two lengths', get, ok, 'Content-Length: 4', 'Content-Length: 4', '', 'data'],
  ['a length and chunks', get, ok, 'Content-Length: 4', 'Transfer-Encoding: chunked', '', ''],
  ['chunks in HTTP/1.0', get, 'HTTP/1.0 200 OK', 'Transfer-Encoding: chunked', '', ''],
  ['an unknown transfer coding', get, ok, 'Transfer-Encoding: gzip, chunked', '', ''],
  ['two ranges', get, ok, 'Content-Range: bytes 0-3/4', 'Content-Range: bytes 0-3/4', '', ''],
  ['a body longer than the bound', get, ok, 'Content-Length: 101', '', ''],
  ['a body shorter than the buffer', fill4, ok, 'Content-Length: 3', '', 'dat'],
  ['a body longer than the buffer', fill4, ok, 'Content-Length: 5', '', 'datas'],
  ['no body for a buffer', fill4, 'HTTP/1.1 204 No Content', '', ''],
  ['chunks shorter than the buffer', fill4, ok, 'Transfer-Encoding: chunked', '', '3', 'dat', '0', '', ''],
  ['chunks longer than the buffer', fill4, ok, 'Transfer-Encoding: chunked', '', '5', 'datas', '0', '', ''],
  ['a chunk size that is none', get, ok, 'Transfer-Encoding: chunked', '', 'g', ''],
  ['a chunk size that is empty', get, ok, 'Transfer-Encoding: chunked', '', '', ''],
  ['a chunk size that is endless', get, ok, 'Transfer-Encoding: chunked', '', '0000000000001', ''],
  ['chunks longer than the bound', get, ok, 'Transfer-Encoding: chunked', '', '65', 'y'.repeat(101)],
  ['a body until the close that is longer than the bound', get, ok, '', 'y'.repeat(101)],
  ['a body until the close that is longer than the buffer', fill4, ok, '', 'datas'],
  ['a chunk longer than its size', get, ok, 'Transfer-Encoding: chunked', '', '3', 'data', ''],
  ['bytes that answer nothing', get, 'HTTP/1.1 204 No Content', '', 'x'],
] as const) {
  test(`malformed: ${what}`, () => assert.equal(outcome(expected, ...lines), 'malformed-response'));
}

test('the head of a response is bounded in bytes and lines, its trailers too', () => {
  const long = `X: ${'y'.repeat(16 * 1024 - 40)}`;
  assert.equal(outcome(get, ok, long, 'Content-Length: 0', '', ''), 'malformed-response');
  const fits = `X: ${'y'.repeat(16 * 1024 - 60)}`;
  assert.equal(outcome(get, ok, fits, 'Content-Length: 0', '', ''), 'between');
  assert.equal(outcome(get, ok, `X: ${'y'.repeat(17 * 1024)}`), 'malformed-response');
  for (const [length, expected] of [
    [16 * 1024, 'between'],
    [16 * 1024 + 1, 'malformed-response'],
    [16 * 1024 + 2, 'malformed-response'],
  ] as const) {
    const rest = [ok, 'Content-Length: 0', 'X: ', '', ''].join('\r\n').length;
    const head = [ok, 'Content-Length: 0', `X: ${'y'.repeat(length - rest)}`, '', ''].join('\r\n');
    const pieces = head.match(/.{1,100}/gs) ?? [];
    assert.equal(outcome(get, head), expected, String(length));
    assert.equal(
      parse(
        [get],
        pieces.map((piece) => Buffer.from(piece)),
      ).at(-1),
      expected,
      `${length} in pieces`,
    );
  }
  const lines = Array.from({ length: 129 }, () => 'X: y');
  assert.equal(outcome(get, ok, ...lines, '', ''), 'malformed-response');
  const trailers = Array.from({ length: 3 }, () => `X: ${'y'.repeat(6000)}`);
  assert.equal(outcome(get, ok, 'Transfer-Encoding: chunked', '', '0', ...trailers, '', ''), 'malformed-response');
});

test('a close in the middle of a response is told from one between responses', () => {
  const close = (expected: Expected, ...lines: string[]) => parse([expected], bytes(...lines), true).at(-1);
  assert.equal(close(get, ''), 'inside or over');
  assert.equal(close(get, 'HTTP/1.1 200'), 'connection-lost');
  assert.equal(close(get, ok, 'Content-Length: 4', '', 'dat'), 'connection-lost');
  assert.equal(close(get, ok, 'Transfer-Encoding: chunked', '', '4', 'data'), 'connection-lost');
  assert.equal(close(fill4, 'HTTP/1.0 200 OK', '', 'dat'), 'malformed-response');
  assert.equal(close(fill4, 'HTTP/1.0 200 OK', '', 'data'), 'inside or over');
});

test('a familiar head has no numbers but those of its only field', () => {
  const expected: Expected = { method: 'GET', destination: 4 };
  const head = (...ranges: string[]) => {
    const lines = ranges.map((range) => `Content-Range: ${range}`);
    return Buffer.from(['HTTP/1.1 206 Partial', 'Content-Length: 4', ...lines, '', 'data'].join('\r\n'));
  };
  const unreadable = 'bytes 0-99999999999999999/100';
  const twice = [head(unreadable, 'bytes 0-3/100'), head('bytes 5-8/100', 'bytes 0-3/100')];
  assert.equal(parse([expected, expected], twice).at(-1), 'malformed-response');
  const log = parse([expected, expected], [head('bytes 0-3'), head('bytes 0-3')]);
  assert.equal(log[2], log[0]);
});
