/**
 * A filesystem on /dev/nbdN, over two hosts that hold a DRBD volume: the Primary moves, and the application notices a pause.
 * What the storage manager of such hosts does (`drbdsetup secondary`, `drbdsetup primary`, fencing), the case does.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type CaseContext, machineCase } from './cases.js';
import { run } from './commands.js';
import { type Peer, Peers, until } from './drbd-peers.js';
import { mount } from './filesystems.js';
import { FsyncLoad } from './fsync-load.js';
import { leftovers, type Program, type Server, startGateway, startServer } from './volume.js';

interface Host {
  readonly peer: Peer;
  readonly port: number;
  /** When it is ready. */
  server: Promise<Server>;
}

function startHost(context: CaseContext, peer: Peer, port: number): Host {
  return { peer, port, server: startServer(context, peer.byResource, { port }) };
}

/** In its own time, while the load goes on. */
function restart(context: CaseContext, host: Host): void {
  host.server = startServer(context, host.peer.byResource, { port: host.port });
  // Whoever waits for it gets the error.
  host.server.catch(() => {});
}

async function programOf({ server }: Host): Promise<Program> {
  return (await server).program;
}

/** Each makes `to` Primary, which `from` was. */
type Move = (context: CaseContext, peers: Peers, from: Host, to: Host) => Promise<void>;

async function bySigterm(context: CaseContext, _peers: Peers, from: Host, to: Host): Promise<void> {
  const ended = (await programOf(from)).stop();
  await from.peer.demote();
  await to.peer.primary();
  assert.equal(await ended, 0);
  restart(context, from);
}

async function byKill(context: CaseContext, _peers: Peers, from: Host, to: Host): Promise<void> {
  await (await programOf(from)).kill();
  assert.equal(await from.peer.roles(), 'Primary/Secondary', 'nobody demotes by itself');
  await from.peer.demote();
  await to.peer.primary();
  restart(context, from);
}

/** The disk below fails, and the peer's serves in its place, until there is time to move. */
async function byDiskFailure(context: CaseContext, peers: Peers, from: Host, to: Host): Promise<void> {
  await from.peer.failDisk();
  await until('the failed disk is given up', async () => (await from.peer.diskState()) === 'Diskless/UpToDate');
  await bySigterm(context, peers, from, to);
  await peers.attachAgain(from.peer);
}

/**
 * The Primary loses its peer, and waits with all I/O for somebody who decides; what it had not acknowledged is not to count.
 * The other one is told that the Primary is fenced, and takes over. Later the link and the first host come back, as after a reset.
 */
async function byCutLink(context: CaseContext, peers: Peers, from: Host, to: Host): Promise<void> {
  await peers.cutLink();
  context.after(peers.release);
  peers.decideFencing(to.peer, 'fenced');
  await to.peer.primary();
  await (await programOf(to)).line(/Disk open!$/);
  peers.decideFencing(to.peer, 'unknown');
  // Fencing means that nothing on that host answers any more. When its I/O goes on now, it is for nobody to hear.
  const fenced = await programOf(from);
  const ended = fenced.kill();
  await until('its main thread is gone', async () =>
    /\) Z /.test(readFileSync(`/proc/${fenced.child.pid}/stat`, 'latin1')),
  );
  await run('drbdsetup', ['resume-io', String(from.peer.minor)]);
  await ended;
  await from.peer.demote();
  for (const { peer } of [from, to]) await peers.disconnect(peer);
  await peers.mendLink();
  await peers.connect(from.peer, true);
  await peers.connect(to.peer);
  restart(context, from);
}

const moves: readonly [string, Move][] = [
  ['SIGTERM', bySigterm],
  ['kill -9', byKill],
  ['the link cut', byCutLink],
  ['the disk failed', byDiskFailure],
  ['SIGTERM', bySigterm],
];

for (const cache of ['writethrough', 'writeback']) {
  machineCase(
    `DRBD, ${cache}: the Primary moves five times under fsync load (${moves.map(([name]) => name).join(', ')}): nothing lost`,
    async (context) => {
      const peers = await Peers.start(context, 'resource-and-stonith');
      await peers.a.primary();
      let from = startHost(context, peers.a, 18_201);
      let to = startHost(context, peers.b, 18_202);
      const urls = (await Promise.all([from.server, to.server])).map(({ url }) => url);
      const gateway = await startGateway(context, urls, { args: ['--cache', cache, '--io-timeout', '60s'] });
      await run('mkfs.ext4', ['-q', '-F', gateway.device]);
      const folder = await mount(context, gateway.device, ['-o', 'errors=remount-ro']);
      const load = await FsyncLoad.start(context, `${folder}/file`);
      await load.progress(3);
      for (const [name, move] of moves) {
        load.longestMs = 0;
        await move(context, peers, from, to);
        await load.progress(3);
        context.note(`${name}: longest write ${Math.round(load.longestMs)} ms`);
        await peers.inSync();
        assert.equal(await to.peer.roles(), 'Primary/Secondary');
        [from, to] = [to, from];
      }
      await load.verify();
      await run('umount', [folder]);
      await run('e2fsck', ['-f', '-n', gateway.device]);
      assert.equal(await gateway.program.stop(), 0, gateway.program.output);
      assert.deepEqual(leftovers(gateway), []);
      for (const host of [from, to]) assert.equal(await (await programOf(host)).stop(), 0);
      await peers.compare();
    },
    900_000,
  );
}
