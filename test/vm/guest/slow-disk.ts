/** A disk that takes its time (dm-delay): only those who asked for it wait. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { mebibyte, type Server, startServer } from './volume.js';

const diskDelayMs = 5000;
const sectors = 131_072;
const preload = fileURLToPath(new URL('../../support/loop-delay.js', import.meta.url));
/** More than the disk server does at a time. */
const reads = 20;
const writes = 2;

/** Zeroes, each request for which takes {@link diskDelayMs}. */
async function slowDisk(context: CaseContext, name: string): Promise<string> {
  const noUdev = ['--noudevrules', '--noudevsync'];
  for (const module of ['dm-mod', 'dm-zero', 'dm-delay']) await run('modprobe', [module]);
  const create = async (mapped: string, table: string) => {
    await run('dmsetup', ['create', ...noUdev, mapped, '--table', `0 ${sectors} ${table}`]);
    context.after(() => run('dmsetup', ['remove', ...noUdev, '--retry', mapped]));
    // Without udev nobody makes /dev/mapper/NAME.
    const minor = await run('dmsetup', ['info', '--columns', '--noheadings', '-o', 'minor', mapped]);
    return `/dev/dm-${minor.trim()}`;
  };
  const fast = await create(`${name}-fast`, 'zero');
  return create(name, `delay ${fast} 0 ${diskDelayMs} ${fast} 0 ${diskDelayMs}`);
}

/** How late the server's event loop has been since the last call, at most. */
async function loopDelayMs({ program }: Server, call: number): Promise<number> {
  program.child.kill('SIGUSR2');
  const [, delayMs] = await program.nth(/event loop: at most (\d+) ms late/, call);
  return Number(delayMs);
}

async function read(url: string, offset: number): Promise<number> {
  const response = await fetch(url, { headers: { range: `bytes=${offset}-${offset + 4095}` } });
  return (await response.arrayBuffer()).byteLength;
}

/** Not a whole block: the page cache has to read the rest of it first. */
async function write(url: string, offset: number): Promise<number> {
  const headers = { 'content-range': `bytes ${offset}-${offset + 511}/*` };
  const response = await fetch(url, { method: 'PUT', headers, body: Buffer.alloc(512) });
  await response.text();
  return response.status;
}

for (const args of [[], ['--direct']]) {
  machineCase(
    `a slow disk${args.map((arg) => ` (${arg})`).join('')} does not hold up who wants nothing of it`,
    async (context) => {
      const disk = await slowDisk(context, `slow${args.join('')}`);
      const options = { args, environment: { NODE_OPTIONS: `--import=${preload}` } };
      const server = await startServer(context, disk, options);
      await loopDelayMs(server, 1); // what the start took
      let answered = 0;
      const count = <Value>(value: Value): Value => {
        answered += 1;
        return value;
      };
      const asked = [
        ...Array.from({ length: reads }, (_, place) => read(server.url, place * mebibyte).then(count)),
        ...Array.from({ length: writes }, (_, place) =>
          write(server.url, (reads + place) * mebibyte + 512).then(count),
        ),
      ];
      const head = await fetch(server.url, { method: 'HEAD' });
      assert.equal(head.status, 200);
      assert.equal(answered, 0, 'the disk has been asked and takes longer than everything else');
      assert.deepEqual(await Promise.all(asked), [
        ...new Array<number>(reads).fill(4096),
        ...new Array<number>(writes).fill(200),
      ]);
      const delayMs = await loopDelayMs(server, 2);
      context.note(`the event loop was at most ${delayMs} ms late, with a disk that takes ${diskDelayMs} ms`);
      // One request that was waited for on the event loop would show as the whole delay.
      assert.ok(delayMs < diskDelayMs, `the event loop was ${delayMs} ms late`);
      assert.equal(await server.program.stop(), 0);
    },
  );
}
