/** A network that cuts, delays, truncates and corrupts between nbd-server and http-disk-server: the data is always right. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { NbdClient } from '../../demo/nbd-client.js';
import { CheckedLoad } from '../support/checked-load.js';
import { seededBytes, seededFile, startDiskServer, startGateway } from '../support/stack.js';
import { TcpProxy } from '../support/tcp-proxy.js';

const sizeBytes = 2 * 2 ** 20;

interface Wired {
  readonly disk: string;
  /** Two ways to the disk, each to a server of its own. */
  readonly proxies: readonly [TcpProxy, TcpProxy];
  readonly running: CheckedLoad;
}

async function wire(t: TestContext, seed: number, options: readonly string[] = []): Promise<Wired> {
  const disk = seededFile(t, seed, sizeBytes);
  const proxies = [await proxyTo(t, disk), await proxyTo(t, disk)] as const;
  const urls = proxies.map(({ url }) => url);
  const gateway = await startGateway(t, urls, ['--request-timeout', '500ms', '--io-timeout', '60s', ...options]);
  const client = await NbdClient.connect(gateway.socketPath);
  t.after(() => client.close());
  const running = new CheckedLoad(client, seededBytes(seed, sizeBytes), { sizeBytes });
  return { disk, proxies, running };
}

async function proxyTo(t: TestContext, disk: string): Promise<TcpProxy> {
  const server = await startDiskServer(t, disk);
  const proxy = await TcpProxy.start(server.port);
  t.after(() => proxy.close());
  return proxy;
}

async function assertStored({ running, disk, proxies }: Wired): Promise<void> {
  for (const proxy of proxies) proxy.change({});
  const expected = await running.finish();
  assert.ok(readFileSync(disk).equals(expected), 'the disk holds what was acknowledged');
}

for (const mode of ['writethrough', 'writeback']) {
  test(`connections that are reset under load: ${mode}`, async (t) => {
    const wired = await wire(t, 1, ['--cache', mode]);
    for (let round = 0; round < 20; round++) {
      await wired.running.progress(50);
      for (const proxy of wired.proxies) proxy.cut();
    }
    await wired.running.progress(100);
    await assertStored(wired);
  });

  test(`requests that are held back until long after they were given up, and then delivered: ${mode}`, async (t) => {
    const wired = await wire(t, 3, ['--cache', mode]);
    await wired.running.progress(100);
    for (let round = 0; round < 4; round++) {
      const [one, other] = wired.proxies;
      const held = round % 2 === 0 ? one : other;
      held.change({ toServer: { held: true } });
      await wired.running.progress(300);
      held.change({});
      await wired.running.progress(100);
    }
    await assertStored(wired);
  });
}

test('a slow network', async (t) => {
  const wired = await wire(t, 2);
  for (const proxy of wired.proxies) proxy.change({ toServer: { delayMs: 20 }, toClient: { delayMs: 20 } });
  await wired.running.progress(300);
  await assertStored(wired);
});

test('answers that are cut off after any number of bytes', async (t) => {
  const wired = await wire(t, 4);
  for (const bytes of [1, 40, 150, 300, 1000, 4200, 5000, 20_000]) {
    for (const proxy of wired.proxies) {
      proxy.cut();
      proxy.change({ toClient: { truncateAfterBytes: bytes } });
    }
    // Nothing may come through at all, with some of the limits; then there is nothing to wait for.
    await untilConnections(wired.proxies, 6);
    for (const proxy of wired.proxies) {
      proxy.cut();
      proxy.change({});
    }
    await wired.running.progress(50);
  }
  await assertStored(wired);
});

test('requests that are cut off after any number of bytes', async (t) => {
  const wired = await wire(t, 5);
  for (const bytes of [1, 40, 150, 300, 1000, 4200, 5000, 20_000]) {
    for (const proxy of wired.proxies) {
      proxy.cut();
      proxy.change({ toServer: { truncateAfterBytes: bytes } });
    }
    await untilConnections(wired.proxies, 6);
    for (const proxy of wired.proxies) {
      proxy.cut();
      proxy.change({});
    }
    await wired.running.progress(50);
  }
  await assertStored(wired);
});

/** What stands in a header → what a broken proxy makes of it. Same length: the framing of the stream stays in step. */
const corruptions: readonly (readonly [string, RegExp, (match: string) => string])[] = [
  ['the status line', /^HTTP\/1\.1/gm, () => 'HTTQ/1.1'],
  ['the status', /^HTTP\/1\.1 2\d\d/gm, (match) => `${match.slice(0, -3)}299`],
  ['a longer Content-Length', /content-length: \d+/gi, (match) => `${match.slice(0, -1)}9`],
  ['a shorter Content-Length', /content-length: \d+/gi, (match) => `${match.slice(0, -1)}0`],
  ['a Content-Length that is none', /content-length: \d+/gi, (match) => `${match.slice(0, -1)}x`],
  ['another range', /content-range: bytes \d/gi, (match) => `${match.slice(0, -1)}${(Number(match.at(-1)) + 1) % 10}`],
  ['the end of a header', /\r\n/g, () => '\n\r'],
];

for (const [name, pattern, replacement] of corruptions) {
  test(`answers with a corrupted header: ${name}`, async (t) => {
    const wired = await wire(t, 6);
    await wired.running.progress(50);
    for (const proxy of wired.proxies) {
      proxy.change({
        toClient: {
          corrupt: (piece) => {
            // Only where a head starts: the bytes of the disk are TCP's business.
            const end = piece.indexOf('\r\n\r\n');
            if (!piece.subarray(0, 5).equals(Buffer.from('HTTP/')) || end < 0) return piece;
            const head = piece.toString('latin1', 0, end).replace(pattern, replacement);
            return Buffer.concat([Buffer.from(head, 'latin1'), piece.subarray(end)]);
          },
        },
      });
    }
    await untilConnections(wired.proxies, 4);
    for (const proxy of wired.proxies) {
      proxy.cut();
      proxy.change({});
    }
    await wired.running.progress(100);
    await assertStored(wired);
  });
}

/** Waits until so many more connections were made to the two together: the gateway has noticed, and tried again. */
async function untilConnections(proxies: readonly TcpProxy[], more: number): Promise<void> {
  const count = (): number => proxies.reduce((sum, { connections }) => sum + connections, 0);
  const goal = count() + more;
  const deadlineMs = performance.now() + 30_000;
  while (count() < goal) {
    assert.ok(performance.now() < deadlineMs, `only ${count() - goal + more} of ${more} new connections`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
