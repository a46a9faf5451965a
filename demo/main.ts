/**
 * `npm run demo`: one disk, served twice over HTTP, used as one network block device, while the server in use is killed.
 * Promise: exits with 0 only if every byte was read back as it was written; leaves no process and no file behind, also
 * after Ctrl-C or a failure.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkFilesystem, makeImage } from './image.js';
import { NbdClient } from './nbd-client.js';
import { freePort, Program, stopAll } from './programs.js';

const mebibyte = 2 ** 20;
const imageBytes = 256 * mebibyte;
const requestBytes = mebibyte;
const requestsInFlight = 4;
const timeLimitMs = 55_000;

const startMs = performance.now();
const bin = join(import.meta.dirname, '../../bin');

function say(text: string): void {
  console.log(`${((performance.now() - startMs) / 1000).toFixed(2).padStart(6)} s  ${text}`);
}

function quote(line: string): void {
  say(`    │ ${line}`);
}

async function startServer(disk: string): Promise<{ url: string; program: Program }> {
  const port = await freePort();
  const args = ['--disk', disk, '--ip', '127.0.0.1', '--port', String(port)];
  say(`$ http-disk-server ${args.join(' ')}`);
  const program = new Program(`http-disk-server :${port}`, join(bin, 'http-disk-server'), args, quote);
  await program.line(/Server ready!$/);
  return { url: `http://127.0.0.1:${port}`, program };
}

/** Does `transfer` for each request of the image, some at a time, and prints how far it is. */
async function forEachRequest(verb: string, transfer: (offset: number) => Promise<void>): Promise<void> {
  const beganMs = performance.now();
  let next = 0;
  let done = 0;
  let printed = 0;
  async function worker(): Promise<void> {
    while (next < imageBytes) {
      const offset = next;
      next += requestBytes;
      await transfer(offset);
      done += requestBytes;
      const eighths = Math.floor((done * 8) / imageBytes);
      if (eighths === printed) continue;
      printed = eighths;
      const rate = done / mebibyte / ((performance.now() - beganMs) / 1000);
      const share = ((done / imageBytes) * 100).toFixed(0).padStart(3);
      say(`${share} %  ${verb} ${done / mebibyte} of ${imageBytes / mebibyte} MiB, ${rate.toFixed(0)} MiB/s`);
    }
  }
  await Promise.all(Array.from({ length: requestsInFlight }, worker));
}

/** Writes the file `source`, and calls `killServer` when half of it is on its way. */
async function writeAll(nbd: NbdClient, source: string, killServer: () => Promise<void>): Promise<void> {
  const file = await open(source, 'r');
  let killing: Promise<void> | undefined;
  let killedMs = Number.POSITIVE_INFINITY;
  let slowestMs = 0;
  try {
    await forEachRequest('written', async (offset) => {
      const bytes = Buffer.alloc(requestBytes);
      await file.read(bytes, 0, requestBytes, offset);
      if (offset >= imageBytes / 2 && killing === undefined) {
        killing = killServer().then(() => {
          killedMs = performance.now();
        });
      }
      const sentMs = performance.now();
      await nbd.write(offset, bytes);
      const answeredMs = performance.now();
      slowestMs = Math.max(slowestMs, answeredMs - sentMs);
      if (sentMs < killedMs) return;
      say(`★ the other server has taken over: ${(answeredMs - killedMs).toFixed(0)} ms after the kill, writes go on`);
      killedMs = Number.POSITIVE_INFINITY;
    });
    await killing;
    await nbd.flush();
  } finally {
    await file.close();
  }
  say(`All written and flushed, without an error. The slowest write took ${slowestMs.toFixed(0)} ms.`);
}

async function readAll(nbd: NbdClient): Promise<string> {
  // The answers come in any order; the checksum wants them in one.
  const early = new Map<number, Buffer>();
  const hash = createHash('sha256');
  let hashed = 0;
  await forEachRequest('read', async (offset) => {
    early.set(offset, await nbd.read(offset, requestBytes));
    for (let bytes = early.get(hashed); bytes !== undefined; bytes = early.get(hashed)) {
      hash.update(bytes);
      early.delete(hashed);
      hashed += requestBytes;
    }
  });
  return hash.digest('hex');
}

async function checksumOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(path, 'r');
  for await (const chunk of file.createReadStream()) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function demo(folder: string): Promise<void> {
  const disk = join(folder, 'disk.img');
  const source = join(folder, 'source.img');

  say(`Making an empty disk of ${imageBytes / mebibyte} MiB, and something to write to it…`);
  const file = await open(disk, 'w');
  await file.truncate(imageBytes);
  await file.close();
  const kind = await makeImage(source, folder, imageBytes);
  if (kind === 'ext4') say('It is an ext4 filesystem full of files.');
  else say('mkfs.ext4 is not installed, so it is seeded random data instead of a filesystem.');

  say('');
  say(
    'Two servers share that disk, as two hosts share a DRBD volume. (Here: one machine, and one file that both open.)',
  );
  const servers = [await startServer(disk), await startServer(disk)];

  say('');
  const socketPath = join(folder, 'socket');
  const urls = servers.map((server) => server.url).join(',');
  const args = ['--no-attach', '--socket-path', socketPath, '--nbd-name', `demo-${process.pid}`, '--urls', urls];
  say(`$ nbd-server ${args.join(' ')}`);
  const gateway = new Program('nbd-server', join(bin, 'nbd-server'), args, quote);
  await gateway.line(/Selected server/);
  const nbd = await connectWhenListening(socketPath, gateway);
  say(`An NBD client is connected: the device has ${nbd.sizeBytes / mebibyte} MiB.`);

  say('');
  await writeAll(nbd, source, async () => {
    const url = gateway.lastMatch(/Selected server: `(.*?)\/?`/)?.[1];
    const victim = servers.find((server) => server.url === url) ?? servers[0];
    if (victim === undefined) throw new Error('no server to kill');
    say(`✘ kill -9 ${victim.program.pid}: the http-disk-server in use, with ${requestsInFlight} writes on their way`);
    await victim.program.kill();
  });
  say('');
  say('Reading everything back through the device…');
  const read = await readAll(nbd);
  nbd.close();
  say('');
  const written = await checksumOfFile(source);
  const stored = await checksumOfFile(disk);
  say(`SHA-256 written  ${written}`);
  say(`SHA-256 read     ${read}`);
  say(`SHA-256 on disk  ${stored}`);
  if (read !== written || stored !== written) throw new Error('what was read is NOT what was written');
  const fsck = kind === 'ext4' ? await checkFilesystem(disk) : undefined;
  if (fsck !== undefined) say(`fsck             ${fsck}`);
  say('✔ Every byte is as it was written, although the server in use was killed in the middle.');
}

/** The socket may be there a moment after the server was selected. */
async function connectWhenListening(socketPath: string, gateway: Program): Promise<NbdClient> {
  for (;;) {
    try {
      return await NbdClient.connect(socketPath);
    } catch (error) {
      if (gateway.exited) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

const folder = await mkdtemp(join(tmpdir(), 'http-nbd-demo-'));

let ending = false;
async function end(exitCode: number): Promise<never> {
  if (!ending) {
    ending = true;
    await stopAll();
    await rm(folder, { recursive: true, force: true });
  }
  process.exit(exitCode);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    say(`${signal}: cleaning up`);
    void end(signal === 'SIGINT' ? 130 : 143);
  });
}
setTimeout(() => {
  console.error('The demo takes too long: giving up.');
  void end(1);
}, timeLimitMs).unref();

try {
  await demo(folder);
  say('Cleaning up: both programs stop, the temporary files go.');
  await end(0);
} catch (error) {
  if (!ending) {
    console.error(`The demo failed: ${error instanceof Error ? error.message : String(error)}`);
    await end(1);
  }
}
