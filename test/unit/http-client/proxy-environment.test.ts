import assert from 'node:assert/strict';
import test from 'node:test';
import { type Environment, proxyFor } from '../../../src/http-client/proxy-environment.js';
import { parseServerUrl } from '../../../src/http-client/target.js';

function proxyOf(url: string, environment: Environment): string | undefined {
  const proxy = proxyFor(parseServerUrl(url).target, environment);
  return proxy === undefined ? undefined : `${proxy.host}:${proxy.port}`;
}

test('each scheme has its variable, and all_proxy is for both', () => {
  const environment = { http_proxy: 'http://p:1', https_proxy: 'http://q:2' };
  assert.equal(proxyOf('http://a', environment), 'p:1');
  assert.equal(proxyOf('https://a', environment), 'q:2');
  assert.equal(proxyOf('http://a', { all_proxy: 'http://r:3' }), 'r:3');
  assert.equal(proxyOf('https://a', { ALL_PROXY: 'http://r:3', HTTPS_PROXY: 'http://s:4' }), 's:4');
  assert.equal(proxyOf('http://a', { https_proxy: 'http://q:2' }), undefined);
  assert.equal(proxyOf('http://a', {}), undefined);
});

test('HTTP_PROXY in upper case is not believed; an empty variable is none', () => {
  assert.equal(proxyOf('http://a', { HTTP_PROXY: 'http://p:1' }), undefined);
  assert.equal(proxyOf('http://a', { http_proxy: '', all_proxy: 'http://r:3' }), 'r:3');
});

test('a proxy without scheme or port is read as curl reads it', () => {
  assert.equal(proxyOf('http://a', { http_proxy: 'p' }), 'p:1080');
  assert.equal(proxyOf('http://a', { http_proxy: 'p:8080' }), 'p:8080');
  assert.equal(proxyOf('http://a', { http_proxy: 'http://p:80/' }), 'p:80');
  assert.equal(proxyOf('http://a', { http_proxy: 'http://u:80@p' }), 'p:1080');
  assert.equal(proxyOf('http://a', { http_proxy: 'http://[::1]:80' }), '::1:80');
});

test('credentials of a proxy are decoded; a proxy that cannot be used is named without them', () => {
  const proxy = proxyFor(parseServerUrl('http://a').target, { http_proxy: 'http://u%3A:ge%20heim@p:1' });
  assert.equal(proxy?.authorization, `Basic ${Buffer.from('u::ge heim').toString('base64')}`);
  for (const odd of ['socks5://u:geheim@p:1', 'https://u:geheim@p', 'http://u:geheim@p:x', 'http://u:%zzgeheim@p']) {
    assert.throws(
      () => proxyOf('http://a', { http_proxy: odd }),
      (error: Error & { code?: string }) => error.code === 'invalid-request' && !error.message.includes('geheim'),
      odd,
    );
  }
});

for (const [list, url, isException] of [
  ['*', 'http://a', true],
  ['example.org', 'http://example.org', true],
  ['example.org', 'http://www.example.org', true],
  ['example.org', 'http://badexample.org', false],
  ['.example.org', 'http://www.example.org', true],
  ['.example.org', 'http://example.org', true],
  ['EXAMPLE.org.', 'http://www.example.ORG', true],
  ['other, example.org', 'http://example.org:8000', true],
  ['other example.org', 'http://example.org', true],
  ['127.0.0.1', 'http://127.0.0.1:80', true],
  ['127.0.0.1', 'http://127.0.0.11', false],
  ['10.0.0.0/8', 'http://10.1.2.3', true],
  ['10.0.0.0/8', 'http://11.1.2.3', false],
  ['10.0.0.0/99', 'http://10.1.2.3', false],
  ['::1', 'http://[::1]', true],
  ['[::1]', 'http://[::1]', true],
  ['fe80::/10', 'http://[fe81::1]', true],
  ['0.0.1', 'http://127.0.0.1', false],
] as const) {
  test(`no_proxy ${list} ${isException ? 'covers' : 'does not cover'} ${url}`, () => {
    const expected = isException ? undefined : 'p:1';
    assert.equal(proxyOf(url, { http_proxy: 'http://p:1', no_proxy: list }), expected);
    assert.equal(proxyOf(url, { http_proxy: 'http://p:1', NO_PROXY: list }), expected);
  });
}
