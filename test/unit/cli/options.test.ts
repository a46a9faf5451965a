import assert from 'node:assert/strict';
import test from 'node:test';
import { parseHttpDiskServerOptions } from '../../../src/cli/http-disk-server-options.js';
import { parseCount, parseDuration, parseListenAddress, parsePort, parseSize } from '../../../src/cli/options.js';

/** What a wrong command line says; asserts that it is one line on stderr with exit code 2. */
function complaint(args: readonly string[]): string {
  const parsed = parseHttpDiskServerOptions(args);
  assert.ok(parsed.at === 'ended', 'accepted');
  assert.equal(parsed.exitCode, 2);
  assert.equal(parsed.stream, 'stderr');
  assert.match(parsed.text, /^http-disk-server: [^\n]+ \(see http-disk-server --help\)\n$/);
  return parsed.text;
}

test('times', () => {
  assert.deepEqual(
    ['3', '3s', '500ms', '1.5s', '2m', '24m', '1ms'].map(parseDuration),
    [3000, 3000, 500, 1500, 120_000, 1_440_000, 1],
  );
  for (const wrong of ['', '0', '0ms', '-1', '3 s', '3h', '1e3', 'NaN', '1441m', '0.0001s', '.5', '3s3']) {
    assert.throws(() => parseDuration(wrong), /Write a time as 3 or 3s/, wrong);
  }
});

test('sizes', () => {
  assert.deepEqual(
    ['1', '4194304', '4M', '4MiB', '4m', '512B', '1K', '2G', '3T', '1P', '9007199254740991'].map(parseSize),
    [1, 4_194_304, 4_194_304, 4_194_304, 4_194_304, 512, 1024, 2 ** 31, 3 * 2 ** 40, 2 ** 50, Number.MAX_SAFE_INTEGER],
  );
  for (const wrong of ['', '0', '0M', '-4', '4MB', '4.5M', '9007199254740992', '8P9', '9000000P', '0x10', ' 4']) {
    assert.throws(() => parseSize(wrong), /Write a size as/, wrong);
  }
});

test('ports, counts and addresses to listen on', () => {
  assert.deepEqual(['0', '8000', '65535'].map(parsePort), [0, 8000, 65_535]);
  for (const wrong of ['', '65536', '-1', '80.5', '8000/tcp', 'http', '0x50']) {
    assert.throws(() => parsePort(wrong), /A port is/, wrong);
  }
  assert.equal(parseCount(1, 16)('16'), 16);
  for (const wrong of ['0', '17', 'x', '1.5', '']) assert.throws(() => parseCount(1, 16)(wrong), /from 1 to 16/, wrong);
  assert.deepEqual(parseListenAddress('10809'), { port: 10_809 });
  assert.deepEqual(parseListenAddress('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(parseListenAddress('[::1]:10809'), { host: '::1', port: 10_809 });
  assert.deepEqual(parseListenAddress('localhost:1'), { host: 'localhost', port: 1 });
  for (const wrong of ['', ':1', '::1:10809', 'a:b', '1:65536', '[::1]', '[]:1', 'a b:1']) {
    assert.throws(() => parseListenAddress(wrong), /Write where to listen/, wrong);
  }
});

test('the options of http-disk-server, and what they are without', () => {
  assert.deepEqual(parseHttpDiskServerOptions(['--disk', '/dev/sda']), {
    at: 'run',
    options: { disk: '/dev/sda', port: 8000, readOnly: false, direct: false, verbose: false },
  });
  const all = ['--disk=d', '--ip', '[::1]', '--port=0', '-v', '--read-only', '--direct'];
  assert.deepEqual(parseHttpDiskServerOptions(all), {
    at: 'run',
    options: { disk: 'd', ip: '::1', port: 0, readOnly: true, direct: true, verbose: true },
  });
});

test('a wrong option is told in one line that says how it is written right', () => {
  assert.match(complaint([]), /required option '--disk <path>' not specified/);
  assert.match(complaint(['--disk', 'd', '--prot', '1']), /unknown option '--prot'.*Did you mean --port\?/);
  assert.match(complaint(['--disk', 'd', '--port', '65536']), /'65536' is invalid.*0 to 65535/);
  assert.match(complaint(['--disk', 'd', '--ip', '1.2.3']), /'1\.2\.3' is invalid.*IP address/);
  assert.match(complaint(['--disk', 'd', '--port']), /'--port <number>' argument missing/);
  assert.match(complaint(['--disk', '']), /must not be empty/);
  assert.match(complaint(['--disk', 'd', 'extra']), /too many arguments/);
  assert.match(complaint(['--disk', 'd', '--ip', 'a\nb']), /is invalid/);
});

test('help and version go to stdout with exit code 0', () => {
  for (const [args, pattern] of [
    [['--help'], /^Usage: http-disk-server [^]*--read-only/],
    [['-h'], /^Usage/],
    [['--version'], /^\d+\.\d+\.\d+\n$/],
    [['-V'], /^\d+\.\d+\.\d+\n$/],
  ] as const) {
    const parsed = parseHttpDiskServerOptions(args);
    assert.ok(parsed.at === 'ended');
    assert.deepEqual([parsed.exitCode, parsed.stream], [0, 'stdout']);
    assert.match(parsed.text, pattern);
  }
});
