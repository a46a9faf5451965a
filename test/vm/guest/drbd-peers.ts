/**
 * Two DRBD peers in one kernel, as two hosts would be: two resources on two disks, each the other's peer over addresses of
 * their own. The kernel's own DRBD is 8.4: it promotes nothing by itself, so whoever moves the Primary says so, as a storage
 * manager does.
 * Promise: nothing of it is left after the case, whatever state it was in.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CaseContext } from './cases.js';
import { run } from './commands.js';
import type { Answer } from './http.js';
import { sizeOf } from './volume.js';

const tools = fileURLToPath(new URL('../../../../.cache/vm/drbd', import.meta.url));
/** Started by DRBD for a decision that is not its own. Arguments: the question, the resource. */
const helper = '/run/drbd-helper';
const diskKiB = 48 * 1024;
/** A rule of the routing: no packet between the two finds a way. */
const cut = ['to', '10.99.0.0/24', 'type', 'unreachable', 'pref', '50'];

function addressOf(minor: number): string {
  return `10.99.0.${minor}`;
}

/** Long before the server's limit for any operation, 30 s, on a machine that is slow. */
const soonMs = 12_000;

/** The answers to requests that the kernel keeps, because I/O is suspended. Notes when the last came, which must be soon. */
export async function answersSoon(context: CaseContext, requests: readonly Promise<Answer>[]): Promise<Answer[]> {
  const startMs = performance.now();
  const answers = await Promise.all(requests);
  const tookMs = Math.round(performance.now() - startMs);
  context.note(`${answers.map(({ status, text }) => `${status} ${text.trim()}`).join('; ')}: after ${tookMs} ms`);
  assert.ok(tookMs < soonMs, `answered only after ${tookMs} ms`);
  return answers;
}

export class Peer {
  readonly resource: string;
  readonly minor: number;
  readonly address: string;
  /** /dev/drbdN */
  readonly device: string;
  /** The name that udev would give it. */
  readonly byResource: string;
  /** The disk below; a layer whose table can be exchanged. */
  readonly lower: string;

  constructor(resource: string, minor: number) {
    this.resource = resource;
    this.minor = minor;
    this.address = addressOf(minor);
    this.device = `/dev/drbd${minor}`;
    this.byResource = `/dev/drbd/by-res/${resource}/0`;
    this.lower = `/dev/mapper/${resource}`;
  }

  /** Resolves when it is Primary; rejects when DRBD refuses. */
  async primary(): Promise<void> {
    await run('drbdsetup', ['primary', String(this.minor)]);
  }

  async secondary(): Promise<void> {
    await run('drbdsetup', ['secondary', String(this.minor)]);
  }

  /** Tries until DRBD does not refuse any more: nobody has the device open. */
  async demote(): Promise<void> {
    for (;;) {
      try {
        return await this.secondary();
      } catch (error) {
        assert.match(String(error), /held open/);
      }
    }
  }

  /** `Secondary/Primary`: its own role, its peer's. */
  async roles(): Promise<string> {
    return (await run('drbdsetup', ['role', String(this.minor)])).trim();
  }

  async diskState(): Promise<string> {
    return (await run('drbdsetup', ['dstate', String(this.minor)])).trim();
  }

  async connectionState(): Promise<string> {
    return (await run('drbdsetup', ['cstate', String(this.minor)])).trim();
  }

  async attach(fencing: Fencing): Promise<void> {
    const place = [this.lower, this.lower, 'internal'];
    const policy = ['--on-io-error=detach', `--fencing=${fencing}`];
    await run('drbdsetup', ['attach', String(this.minor), ...place, ...policy]);
  }

  /** Every access to the disk below fails from now on. */
  failDisk(): Promise<void> {
    return this.#exchangeTable(`0 ${diskKiB * 2} error`);
  }

  mendDisk(): Promise<void> {
    return this.#exchangeTable(`0 ${diskKiB * 2} linear /dev/ram${this.minor - 1} 0`);
  }

  async #exchangeTable(table: string): Promise<void> {
    await run('dmsetup', ['suspend', '--noflush', this.resource]);
    await run('dmsetup', ['reload', this.resource, '--table', table]);
    await run('dmsetup', ['resume', this.resource]);
  }
}

/** What a Primary does that loses its peer: goes on, or waits for somebody who decides. */
export type Fencing = 'dont-care' | 'resource-and-stonith';

export class Peers {
  readonly a = new Peer('volume-a', 1);
  readonly b = new Peer('volume-b', 2);
  readonly #fencing: Fencing;

  /** Both connected, UpToDate and Secondary. */
  static async start(context: CaseContext, fencing: Fencing = 'dont-care'): Promise<Peers> {
    const peers = new Peers(fencing);
    await install();
    context.after(() => peers.#remove());
    // Empty, and of memory that is free again afterwards.
    await run('modprobe', ['brd', 'rd_nr=2', `rd_size=${diskKiB}`]);
    for (const peer of peers.both) await peers.#create(peer);
    for (const peer of peers.both) await peers.connect(peer);
    await until('the two are connected', async () => (await peers.a.connectionState()) === 'Connected');
    // Both are empty, so nothing has to be synchronised.
    await run('drbdsetup', ['new-current-uuid', '--clear-bitmap', String(peers.a.minor)]);
    await peers.inSync();
    return peers;
  }

  private constructor(fencing: Fencing) {
    this.#fencing = fencing;
  }

  get both(): readonly [Peer, Peer] {
    return [this.a, this.b];
  }

  other(peer: Peer): Peer {
    return peer === this.a ? this.b : this.a;
  }

  /** `discard`: in a dispute its own data does not count. */
  async connect(peer: Peer, discard = false): Promise<void> {
    const times = ['--ping-int=2', '--ping-timeout=10', '--timeout=15', '--connect-int=2', '--ko-count=2'];
    const policy = ['--protocol=C', ...(discard ? ['--discard-my-data'] : [])];
    await run('drbdsetup', ['connect', peer.resource, ...this.#ends(peer), ...policy, ...times]);
  }

  async disconnect(peer: Peer, ...options: string[]): Promise<void> {
    await run('drbdsetup', ['disconnect', ...this.#ends(peer), ...options]);
  }

  /** Gives the peer its own disk back, whose failure is over; what it has missed is synchronised. */
  async attachAgain(peer: Peer): Promise<void> {
    await peer.mendDisk();
    await run('drbdmeta', [String(peer.minor), 'v08', peer.lower, 'internal', 'apply-al']);
    await peer.attach(this.#fencing);
  }

  #ends(peer: Peer): string[] {
    return [peer, this.other(peer)].map(({ address }) => `ipv4:${address}:7788`);
  }

  /** From now on nothing that one of them sends reaches the other. */
  async cutLink(): Promise<void> {
    await run('busybox', ['ip', 'rule', 'add', ...cut]);
    for (const peer of this.both) {
      await until(`${peer.resource} is alone`, async () => (await peer.connectionState()) === 'WFConnection');
    }
  }

  async mendLink(): Promise<void> {
    await run('busybox', ['ip', 'rule', 'del', ...cut]);
  }

  /** What waits in the kernel for a decision goes on. To be given to `context.after` behind the programs that wait so. */
  readonly release = async (): Promise<void> => {
    await this.mendLink().catch(() => {});
    for (const { minor } of this.both) await run('drbdsetup', ['resume-io', String(minor)]).catch(() => {});
  };

  /** Resolves when both have all of the data. */
  async inSync(): Promise<void> {
    await until('both are up to date', async () => {
      const states = await Promise.all(this.both.map((peer) => peer.diskState()));
      return states.every((state) => state === 'UpToDate/UpToDate');
    });
  }

  /** What a Primary that has lost its peer is told, when it asks: `fenced`, or that nobody knows. */
  decideFencing(peer: Peer, decision: 'fenced' | 'unknown'): void {
    writeFileSync(`/run/drbd-fence-${peer.resource}`, decision === 'fenced' ? '7' : '1');
  }

  /** The two disks hold the same bytes. */
  async compare(): Promise<void> {
    const bytes = sizeOf(this.a.device);
    await run('cmp', ['--bytes', String(bytes), this.a.lower, this.b.lower]);
  }

  async #create(peer: Peer): Promise<void> {
    const { resource, minor, lower, byResource } = peer;
    this.decideFencing(peer, 'unknown');
    await run('dmsetup', ['create', resource, '--table', `0 ${diskKiB * 2} linear /dev/ram${minor - 1} 0`]);
    await run('dmsetup', ['mknodes']);
    await run('drbdmeta', ['--force', String(minor), 'v08', lower, 'internal', 'create-md']);
    await run('drbdsetup', ['new-resource', resource]);
    await run('drbdsetup', ['new-minor', resource, String(minor), '0']);
    await peer.attach(this.#fencing);
    mkdirSync(`/dev/drbd/by-res/${resource}`, { recursive: true });
    if (!existsSync(byResource)) symlinkSync(`../../../drbd${minor}`, byResource);
  }

  async #remove(): Promise<void> {
    await this.release();
    for (const peer of this.both) {
      const { resource } = peer;
      await this.disconnect(peer, '--force').catch(() => {});
      await run('drbdsetup', ['down', resource]);
      await run('dmsetup', ['remove', '--retry', resource]);
      rmSync(`/run/drbd-fence-${resource}`);
    }
    await run('modprobe', ['-r', 'brd']);
  }
}

let installed = false;

async function install(): Promise<void> {
  if (installed) return;
  assert.ok(existsSync(`${tools}/ready`), 'no tools for DRBD: run scripts/vm-setup.sh');
  await run('sh', ['-c', `tar -C '${tools}' -c . | tar -C / -x --keep-directory-symlink`]);
  writeFileSync(helper, '#!/bin/sh\n[ "$1" = fence-peer ] || exit 0\nexit "$(cat "/run/drbd-fence-$2")"\n', {
    mode: 0o755,
  });
  // So that a rule can come before the one for the machine's own addresses.
  await run('busybox', ['ip', 'rule', 'add', 'table', 'local', 'pref', '100']);
  await run('busybox', ['ip', 'rule', 'del', 'pref', '0']);
  for (const minor of [1, 2]) await run('busybox', ['ip', 'addr', 'add', `${addressOf(minor)}/32`, 'dev', 'lo']);
  await run('modprobe', ['dm-mod']);
  await run('modprobe', ['drbd', `usermode_helper=${helper}`]);
  installed = true;
}

/** Waits for something that only asking can tell. */
export async function until(what: string, condition: () => Promise<boolean>, limitMs = 60_000): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
