/** https with an authority of one's own, and proxies as curl uses them. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { TLSSocket } from 'node:tls';
import { systemClock } from '../../../src/base/clock.js';
import { Resolver } from '../../../src/http-client/addresses.js';
import type { HttpBackend } from '../../../src/http-client/http-backend.js';
import { needs } from '../../support/tools.js';
import { backendFor, codeOf, diskAnswer, RawServer, read, testDisk, write } from './raw-server.js';

const disk = testDisk(1 << 22);
const resolver = new Resolver(() => Promise.resolve(['127.0.0.1']), systemClock);

interface Certificates {
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
}

/** An authority, and a certificate of it for disk.test and 127.0.0.1. */
function makeCertificates(t: TestContext): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'http-client-tls-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=Test CA');
  openssl('req', ...newKey, '-keyout', 'disk.key', '-out', 'disk.csr', '-subj', '/CN=disk.test');
  writeFileSync(join(folder, 'names'), 'subjectAltName=DNS:disk.test,IP:127.0.0.1\n');
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', 'disk.csr', '-out', 'disk.pem', ...signing);
  const file = (name: string): string => readFileSync(join(folder, name), 'utf8');
  return { ca: file('ca.pem'), key: file('disk.key'), cert: file('disk.pem') };
}

/** A server that speaks TLS, and its URL by name. */
async function startSecure(t: TestContext, { key, cert }: Certificates): Promise<{ server: RawServer; port: number }> {
  const server = await RawServer.start(t, diskAnswer(disk));
  const entrance = await RawServer.start(t, () => undefined);
  entrance.accept = (socket) => {
    entrance.sockets.push(socket);
    server.accept(new TLSSocket(socket, { isServer: true, key, cert, ALPNProtocols: ['http/1.1'] }));
  };
  return { server, port: entrance.port };
}

async function readsAndWrites(backend: HttpBackend): Promise<void> {
  await backend.probe();
  const bytes = testDisk(3 << 20).reverse();
  await write(backend, 1 << 20, bytes);
  const offsets = Array.from({ length: 20 }, (_, index) => index * 4096);
  const small = await Promise.all(offsets.map((offset) => read(backend, offset, 4096)));
  small.forEach(({ data }, index) => assert.ok(data.equals(disk.subarray(index * 4096, index * 4096 + 4096))));
  assert.ok((await read(backend, 1 << 20, bytes.length)).data.equals(bytes));
}

test('https works with the given authority, by name and by address', async (t) => {
  if (!needs(t, 'openssl', 'openssl')) return;
  const certificates = makeCertificates(t);
  const { port } = await startSecure(t, certificates);
  const options = { ca: certificates.ca, resolver };
  await readsAndWrites(backendFor(t, `https://disk.test:${port}`, options));
  await readsAndWrites(backendFor(t, `https://127.0.0.1:${port}`, options));
});

test('https is refused without the authority, and for another name; nothing is sent', async (t) => {
  if (!needs(t, 'openssl', 'openssl')) return;
  const certificates = makeCertificates(t);
  const { server, port } = await startSecure(t, certificates);
  const unknown = backendFor(t, `https://u:geheim@disk.test:${port}`, { resolver });
  await assert.rejects(unknown.probe(), { code: 'connection-lost', message: /TLS with disk\.test: .*certificate/ });
  const other = backendFor(t, `https://u:geheim@other.test:${port}`, { resolver, ca: certificates.ca });
  await assert.rejects(other.probe(), { code: 'connection-lost', message: /other\.test/ });
  assert.equal(await codeOf(read(other, 0, 512)), 'unavailable');
  assert.equal(server.heads.length, 0);
  await server.until(() => server.open === 0);
});

test('https over a server that does not speak TLS fails', async (t) => {
  const server = await RawServer.start(t, diskAnswer(disk));
  server.accept = (socket) => {
    server.sockets.push(socket);
    socket.on('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    socket.on('error', () => socket.destroy());
  };
  assert.equal(await codeOf(backendFor(t, `https://127.0.0.1:${server.port}`).probe()), 'connection-lost');
});

test('http through a proxy has the absolute form and the credentials of both', async (t) => {
  const proxy = await RawServer.start(t, diskAnswer(disk));
  const environment = { http_proxy: `http://pu:pp@127.0.0.1:${proxy.port}` };
  const backend = backendFor(t, 'http://u:p@disk.test:8000/x?y', { environment });
  const probe = await backend.probe();
  assert.equal(probe.endpoint, undefined);
  await read(backend, 0, 512);
  for (const { path, fields } of proxy.requests) {
    assert.equal(path, 'http://disk.test:8000/x?y');
    assert.equal(fields['host'], 'disk.test:8000');
    assert.equal(fields['authorization'], `Basic ${Buffer.from('u:p').toString('base64')}`);
    assert.equal(fields['proxy-authorization'], `Basic ${Buffer.from('pu:pp').toString('base64')}`);
  }
});

test('https through a proxy goes through a tunnel, which learns nothing but where it leads', async (t) => {
  if (!needs(t, 'openssl', 'openssl')) return;
  const certificates = makeCertificates(t);
  const { server, port } = await startSecure(t, certificates);
  const proxy = await RawServer.start(t, ({ socket, reply }) => {
    const far = connect({ host: '127.0.0.1', port });
    socket.removeAllListeners('data');
    far.on('error', () => socket.destroy());
    reply('HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n');
    socket.pipe(far).pipe(socket);
  });
  const environment = { https_proxy: `pu:pp@127.0.0.1:${proxy.port}` };
  const backend = backendFor(t, 'https://u:p@disk.test/x', { environment, ca: certificates.ca });
  await readsAndWrites(backend);
  assert.equal((await backend.probe()).endpoint, undefined);
  for (const { method, path, fields } of proxy.requests) {
    assert.equal(`${method} ${path}`, 'CONNECT disk.test:443');
    assert.equal(fields['authorization'], undefined);
    assert.equal(fields['proxy-authorization'], `Basic ${Buffer.from('pu:pp').toString('base64')}`);
  }
  assert.equal(server.requests[0]?.fields['proxy-authorization'], undefined);
  assert.equal(server.requests[0]?.path, '/x');
});

for (const [answer, code] of [
  ['HTTP/1.1 407 Proxy Authentication Required\r\n\r\n', 'access-denied'],
  ['HTTP/1.1 502 Bad Gateway\r\n\r\n', 'server-error'],
  ['SSH-2.0-OpenSSH\r\n', 'malformed-response'],
] as const) {
  test(`a tunnel that is answered with ${answer.split('\r')[0]} fails`, async (t) => {
    const proxy = await RawServer.start(t, ({ reply }) => reply(answer));
    const environment = { https_proxy: `http://127.0.0.1:${proxy.port}` };
    const backend = backendFor(t, 'https://disk.test', { environment });
    assert.equal(await codeOf(backend.probe()), code);
    await proxy.until(() => proxy.open === 0);
  });
}

test('a tunnel is bounded in time', async (t) => {
  const proxy = await RawServer.start(t, () => undefined);
  const environment = { https_proxy: `http://127.0.0.1:${proxy.port}` };
  const backend = backendFor(t, 'https://disk.test', { environment, connectTimeoutMs: 50 });
  assert.equal(await codeOf(backend.probe()), 'connection-lost');
  await proxy.until(() => proxy.open === 0);
});

test('a proxy that cannot be used is an error at the start', () => {
  assert.throws(
    () =>
      backendFor({ after: () => undefined } as unknown as TestContext, 'http://a', {
        environment: { http_proxy: 'socks5://p' },
      }),
    { code: 'invalid-request' },
  );
});
