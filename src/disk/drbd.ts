/**
 * DRBD: whether a device may be opened here now. With DRBD 9 an open for writing makes this host Primary (auto-promote),
 * which must not be tried while a peer is: where two Primaries are allowed it would succeed.
 * Promise: an answer within a few seconds, also when drbdsetup is missing, fails, hangs or prints what nobody expects;
 * then the kernel alone decides. At most one drbdsetup is there at a time, even if the kernel does not let it end.
 */
import { Failure } from '../base/failure.js';
import { type CommandOutcome, runCommand } from './command.js';

export interface DrbdDevice {
  /** Absolute. */
  readonly path: string;
  readonly minor: number;
}

/** How long drbdsetup may take for one question. */
const patienceMs = 3000;
/** The same after it has taken longer: a device that becomes openable is to be served within 2 s all the same. */
const impatienceMs = 700;

export type CommandRunner = (command: string, args: readonly string[], timeoutMs: number) => Promise<CommandOutcome>;

type Answer = { readonly at: 'told'; readonly stdout: string } | { readonly at: 'hung' };

/** What one question has brought to light: the peer that is Primary, if any. */
interface Finding {
  readonly primaryPeer: string | undefined;
}

/** The helper program `drbdsetup`, and what is to be expected of it. */
export class Drbdsetup {
  readonly #run: CommandRunner;
  /** `stuck`: one that was killed is still there. */
  #health: 'prompt' | 'slow' | 'stuck' = 'prompt';

  constructor(run: CommandRunner = runCommand) {
    this.#run = run;
  }

  /**
   * The peer that is Primary, so that the device must not be opened here; undefined: nothing is known that speaks
   * against it. Rejects with `unavailable` when drbdsetup was killed: with its whole process group, this program is about
   * to be told to stop.
   */
  async primaryPeer({ path, minor }: DrbdDevice): Promise<string | undefined> {
    const resource = resourceOf(path);
    const questions = [
      // The resource alone first: a host can have hundreds, and this is asked every second.
      ...(resource === undefined ? [] : [['status', resource, '--json']]),
      // The path is no `by-res`, or a stale one whose device is another resource's now.
      ['status', '--json'],
      // DRBD 8.4 has no JSON.
      ['role', String(minor)],
    ];
    for (const question of questions) {
      const answer = await this.#ask(question);
      if (answer.at === 'hung') return undefined;
      const finding = findingInStatus(answer.stdout, minor) ?? findingInRoles(answer.stdout);
      if (finding !== undefined) return finding.primaryPeer;
    }
    return undefined;
  }

  /** What it prints. A question that failed has no answer; after one that hung no other is asked this time. */
  async #ask(question: readonly string[]): Promise<Answer> {
    if (this.#health === 'stuck') return { at: 'hung' };
    const outcome = await this.#run('drbdsetup', question, this.#health === 'prompt' ? patienceMs : impatienceMs);
    switch (outcome.at) {
      case 'done':
        this.#health = 'prompt';
        return { at: 'told', stdout: outcome.stdout };
      case 'failed':
        this.#health = 'prompt';
        return { at: 'told', stdout: '' };
      case 'interrupted':
        throw new Failure('unavailable', 'drbdsetup was interrupted');
      case 'timed-out':
        this.#health = 'stuck';
        void outcome.gone.then(() => {
          this.#health = 'slow';
        });
        return { at: 'hung' };
    }
  }
}

/**
 * The resource in `/dev/drbd/by-res/RESOURCE/VOLUME`. A name that looks like an option is none that drbdsetup could be
 * asked for.
 */
function resourceOf(path: string): string | undefined {
  return /^\/dev\/drbd\/by-res\/([^/-][^/]*)\/\d+$/.exec(path)?.[1];
}

/** The `status --json` of DRBD 9: [{name, role, devices: [{minor}], connections: [{name, "peer-role"}]}]. */
function findingInStatus(json: string, minor: number): Finding | undefined {
  const resource = list(parse(json)).find((entry) =>
    list(field(entry, 'devices')).some((device) => field(device, 'minor') === minor),
  );
  if (resource === undefined) return undefined;
  const peer = list(field(resource, 'connections')).find((entry) => field(entry, 'peer-role') === 'Primary');
  if (peer === undefined) return { primaryPeer: undefined };
  const name = field(peer, 'name');
  return { primaryPeer: typeof name === 'string' ? name : 'a peer' };
}

/** The `role` of DRBD 8.4, ours first and then that of its one peer: `Secondary/Primary`. */
function findingInRoles(text: string): Finding | undefined {
  const peerRole = /^[A-Z][a-z]+\/([A-Z][a-z]+)$/.exec(text.trim())?.[1];
  return peerRole === undefined ? undefined : { primaryPeer: peerRole === 'Primary' ? 'the peer' : undefined };
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
