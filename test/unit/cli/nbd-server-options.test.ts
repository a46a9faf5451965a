import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { type NbdServerOptions, parseNbdServerOptions } from '../../../src/cli/nbd-server-options.js';
import { temporaryFolder } from '../../support/processes.js';

const required = ['--socket-path', './socket', '--nbd-name', 'heartbeat', '--urls', 'http://totor-a:8000'];
const withUrls = (urls: string, ...more: string[]) => [...required.slice(0, 4), '--urls', urls, ...more];

function accepted(args: readonly string[]): NbdServerOptions {
  const parsed = parseNbdServerOptions(args);
  assert.ok(parsed.at === 'run', parsed.at === 'ended' ? parsed.text : '');
  return parsed.options;
}

function complaint(args: readonly string[]): string {
  const parsed = parseNbdServerOptions(args);
  assert.ok(parsed.at === 'ended', `accepted: ${args.join(' ')}`);
  assert.deepEqual([parsed.exitCode, parsed.stream], [2, 'stderr']);
  assert.match(parsed.text, /^nbd-server: [^\n]+ \(see nbd-server --help\)\n$/);
  return parsed.text;
}

test('the example of the manual, as typed', () => {
  const options = accepted(withUrls('http://totor-a:8000,http://totor-b:8000'));
  assert.equal(options.socketPath, './socket');
  assert.equal(options.name, 'heartbeat');
  assert.deepEqual(
    options.servers.map(({ name }) => name),
    ['http://totor-a:8000', 'http://totor-b:8000'],
  );
  assert.deepEqual([options.requestTimeoutMs, options.ioTimeoutMs], [3000, 30_000]);
  assert.deepEqual([options.attach, options.readOnly, options.verbose], [true, false, false]);
  assert.deepEqual([options.deviceSizeBytes, options.listen, options.writeBack], [undefined, undefined, undefined]);
  assert.deepEqual(options.warnings, []);
});

test('each option is understood', () => {
  const more = '--device-size 4M --read-only --no-attach --listen [::1]:0 --request-timeout 500ms --io-timeout 10 -v';
  const options = accepted([...required, ...more.split(' '), '--cache', 'writeback']);
  assert.equal(options.deviceSizeBytes, 4 * 1024 * 1024);
  assert.deepEqual([options.readOnly, options.attach, options.verbose], [true, false, true]);
  assert.deepEqual(options.listen, { host: '::1', port: 0 });
  assert.deepEqual([options.requestTimeoutMs, options.ioTimeoutMs], [500, 10_000]);
  assert.deepEqual(options.writeBack, { budgetBytes: 32 * 1024 * 1024 });
});

test('an IPv6 address without brackets is understood, with one warning', () => {
  const options = accepted(withUrls('http://fe80::1:8076, http://[fe80::2]:8076 ,http://10.0.0.1:8076'));
  assert.deepEqual(
    options.servers.map(({ host, port }) => [host, port]),
    [
      ['fe80::1', 8076],
      ['fe80::2', 8076],
      ['10.0.0.1', 8076],
    ],
  );
  assert.equal(options.warnings.length, 1);
  assert.match(options.warnings[0] ?? '', /fe80::1:8076/);
});

test('a malformed URL in the list is told, without its password', () => {
  for (const url of ['totor-a:8000', 'ftp://a', 'http://', 'http://a:99999', 'http://::zz:1', '']) {
    complaint(withUrls(`http://totor-a:8000,${url}`));
  }
  const text = complaint(withUrls('http://admin:secret@:8000'));
  assert.ok(!text.includes('secret'), text);
});

test('times that contradict each other are told', () => {
  assert.match(complaint([...required, '--request-timeout', '30']), /--request-timeout.*--io-timeout/);
  assert.match(complaint([...required, '--io-timeout', '3s']), /--request-timeout.*--io-timeout/);
  assert.match(complaint([...required, '--io-timeout', 'never']), /'never' is invalid/);
});

test('a name is fit for a file name', () => {
  const named = (name: string) => [...required.slice(0, 2), '--nbd-name', name, ...required.slice(4)];
  for (const name of ['heartbeat', 'xcp-volume-0b1c.2', 'redo_log:1', 'x'.repeat(64)]) {
    assert.equal(accepted(named(name)).name, name);
  }
  for (const name of ['', '.', '..', 'a/b', 'a b', 'a\nb', 'ä', 'x'.repeat(65)]) complaint(named(name));
});

test('what is required is asked for', () => {
  assert.match(complaint(required.slice(2)), /--socket-path/);
  assert.match(complaint([...required.slice(0, 2), ...required.slice(4)]), /--nbd-name/);
  assert.match(complaint(required.slice(0, 4)), /--urls/);
  assert.match(complaint([...required, '--device-size', '0']), /Write a size/);
});

test('user, password and authorities are read from files, once', (t) => {
  const folder = temporaryFolder(t);
  const [password, authorities] = [join(folder, 'password'), join(folder, 'ca.pem')];
  writeFileSync(password, 'se cret\r\nsecond line\n');
  writeFileSync(authorities, '-----BEGIN CERTIFICATE-----\n');
  const options = accepted([...required, '--user', 'me', '--password-file', password, '--ca-file', authorities]);
  assert.equal(options.servers[0]?.authorization, `Basic ${Buffer.from('me:se cret').toString('base64')}`);
  assert.equal(options.ca, '-----BEGIN CERTIFICATE-----\n');
  assert.match(complaint([...required, '--user', 'me']), /--user and --password-file/);
  assert.match(complaint([...required, '--password-file', password]), /--user and --password-file/);
  assert.match(complaint([...required, '--ca-file', join(folder, 'missing')]), /missing.*ENOENT/);
  assert.match(complaint([...required, '--user', 'me', '--password-file', folder]), /EISDIR/);
});

test('the options of the device', () => {
  const options = accepted([...required, '--device', '/dev/nbd7', '--connections', '3', '--dead-timeout', '2m']);
  assert.deepEqual([options.deviceIndex, options.connections, options.deadTimeoutMs], [7, 3, 120_000]);
  const defaults = accepted(required);
  assert.deepEqual([defaults.deviceIndex, defaults.deadTimeoutMs], [undefined, 60_000]);
  assert.ok(defaults.connections >= 1 && defaults.connections <= 4);
  assert.match(complaint([...required, '--device', '/dev/sda']), /\/dev\/nbd0/);
  assert.match(complaint([...required, '--connections', '0']), /from 1 to 16/);
  assert.match(complaint([...required, '--dead-timeout', '10ms']), /whole seconds/);
});

test('a path that no client could connect to is refused', () => {
  const withPath = (path: string) => ['--socket-path', path, ...required.slice(2)];
  assert.equal(accepted(withPath('/'.padEnd(107, 'x'))).socketPath.length, 107);
  assert.match(complaint(withPath('/'.padEnd(108, 'x'))), /at most 107 bytes, this one 108/);
  assert.match(complaint(withPath(`/${'\u00e9'.repeat(54)}`)), /this one 109/);
});
