import assert from 'node:assert/strict';
import test from 'node:test';
import { asFailure, Failure } from '../../../src/base/failure.js';
import {
  formatEndpoint,
  parseEndpoint,
  parseServerUrl,
  redirectTarget,
  type Target,
} from '../../../src/http-client/target.js';

function targetOf(url: string): Target {
  return parseServerUrl(url).target;
}

function basic(text: string): string {
  return `Basic ${Buffer.from(text).toString('base64')}`;
}

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    const failure = asFailure(error);
    assert.equal(failure.code, 'invalid-request');
    return failure.message;
  }
  return 'no failure';
}

test('a URL is read into what requests need', () => {
  assert.deepEqual(targetOf('http://totor-a:8000'), {
    secure: false,
    host: 'totor-a',
    port: 8000,
    origin: 'http://totor-a:8000',
    path: '/',
    authority: 'totor-a:8000',
    authorization: undefined,
    name: 'http://totor-a:8000',
  });
  const { secure, host, port, path, authority, name } = targetOf('https://[::1]/a%20b/disk.img?key=secret#part');
  assert.deepEqual(
    { secure, host, port, path, authority, name },
    {
      secure: true,
      host: '::1',
      port: 443,
      path: '/a%20b/disk.img?key=secret',
      authority: '[::1]',
      name: 'https://[::1]/a%20b/disk.img?…',
    },
  );
  assert.equal(targetOf('http://a/').name, 'http://a/');
});

test('credentials are decoded, and stand in no name', () => {
  const target = targetOf('http://us%40er:p%3Aw%C3%A4@host:81/x');
  assert.equal(target.authorization, basic('us@er:p:wä'));
  assert.equal(target.name, 'http://host:81/x');
  assert.equal(target.authority, 'host:81');
});

test('half of the credentials, cut off at a comma, stands in no message', () => {
  for (const half of ['http://bob:s3cret', 'http://bob:s3cret/x', 'bob:s3cret', 'https://:s3cret?x']) {
    const isSilent = (error: unknown) => error instanceof Failure && !error.message.includes('s3cret');
    assert.throws(() => parseServerUrl(half), isSilent, half);
  }
  assert.throws(() => parseServerUrl('http://ho st:80/x'), /`http:\/\/ho st:80\/x`/);
  assert.throws(() => parseServerUrl('ftp://host/x'), /`ftp:\/\/host\/x`/);
  assert.throws(() => parseServerUrl('http://fe80::zz:1:80'), /`http:\/\/fe80:…`/);
  assert.throws(() => parseServerUrl('http://fe80::1::1:80'), /`http:\/\/fe80::1::1:80`/);
});

test('credentials in the URL go before those that hold for all', () => {
  const common = { user: 'all', password: 'secret' };
  assert.equal(parseServerUrl('http://one:pw@h', common).target.authorization, basic('one:pw'));
  assert.equal(parseServerUrl('http://h', common).target.authorization, basic('all:secret'));
});

test('an IPv6 address without brackets is understood, with a warning', () => {
  const { target, warning } = parseServerUrl('http://fe80::1:8076');
  assert.equal(target.host, 'fe80::1');
  assert.equal(target.port, 8076);
  assert.match(warning ?? '', /`http:\/\/\[fe80::1\]:8076`.*`http:\/\/fe80::1:8076`/);
  assert.equal(targetOf('http://u:p@2001:db8::2:80/d').host, '2001:db8::2');
  assert.doesNotMatch(parseServerUrl('http://u:geheim@2001:db8::2:80/d').warning ?? '', /geheim/);
  assert.equal(parseServerUrl('http://[fe80::1]:8076').warning, undefined);
  assert.equal(parseServerUrl('http://127.0.0.1:8076').warning, undefined);
});

for (const url of [
  'totor-a:8000',
  'ftp://a/b',
  'http://',
  'http://a:99999',
  'http://user:geheim@a:port/',
  'http://user:ge/heim@host:x',
  'http://user:%zz-geheim@host',
  'nonsense user:geheim@host',
  'http://a b/?token=geheim',
  'http://1:2:3:4:5:6:7:8:9:80',
]) {
  test(`a malformed URL gets a message that repeats no password: ${url.replace('geheim', '…')}`, () => {
    const message = messageOf(() => parseServerUrl(url));
    assert.notEqual(message, 'no failure');
    assert.doesNotMatch(message, /geheim|heim/);
  });
}

test('credentials follow a redirect only to their own origin', () => {
  const configured = targetOf('http://user:pw@a:8000/disk');
  const own = redirectTarget(configured, '/other?x=1', configured);
  assert.equal(own.path, '/other?x=1');
  assert.equal(own.authorization, configured.authorization);
  for (const location of ['http://b:8000/', 'http://a:8001/', 'https://a:8000/', '//b/', 'http://x:y@b/']) {
    assert.equal(redirectTarget(configured, location, configured).authorization, undefined, location);
  }
  const there = redirectTarget(configured, 'http://b/', configured);
  assert.equal(redirectTarget(there, 'http://a:8000/back', configured).authorization, configured.authorization);
  for (const location of ['ftp://a/', 'http://a:x/', 'file:///etc/passwd']) {
    assert.throws(() => redirectTarget(configured, location, configured), { code: 'malformed-response' }, location);
  }
});

test('what makes the head of a request long is bounded', () => {
  const configured = targetOf('http://a');
  assert.equal(
    messageOf(() => targetOf(`http://a/${'x'.repeat(17_000)}`)),
    'a URL of more than 16384 bytes',
  );
  assert.match(
    messageOf(() => targetOf(`http://u:${'x'.repeat(7000)}@a/`)),
    /too long/,
  );
  for (const location of [`/${'x'.repeat(17_000)}`, `/?${'\xe4'.repeat(3000)}`]) {
    assert.throws(() => redirectTarget(configured, location, configured), { code: 'malformed-response' });
  }
});

test('endpoints are written as servers announce them, and read back', () => {
  assert.equal(formatEndpoint('::ffff:10.0.0.1', 80), '10.0.0.1:80');
  assert.equal(formatEndpoint('fe80::1', 80), '[fe80::1]:80');
  assert.deepEqual(parseEndpoint('[fe80::1]:80'), { address: 'fe80::1', port: 80 });
  assert.deepEqual(parseEndpoint('10.0.0.1:80'), { address: '10.0.0.1', port: 80 });
  for (const odd of ['10.0.0.1', '10.0.0.1:0', '10.0.0.1:65536', 'fe80::1:80', '']) {
    assert.equal(parseEndpoint(odd), undefined, odd);
  }
});
