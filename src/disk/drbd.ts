/**
 * DRBD: whether a device may be opened here now, and whether it holds what it has been given. With DRBD 9 an open for writing makes
 * this host Primary (auto-promote), which must not be tried while a peer is: where two Primaries are allowed it would succeed. While
 * I/O is suspended, the kernel keeps every thread that reads or syncs, and the process with it, whatever signal comes.
 * Promise: an answer within a few seconds, also when drbdsetup is missing, fails, hangs or prints what nobody expects;
 * then the kernel alone decides. At most one drbdsetup is there at a time, even if the kernel does not let it end.
 */
import { readFile } from 'node:fs/promises';
import { asFailure, Failure } from '../base/failure.js';
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

/** What DRBD 8.4 tells of all its devices without a helper program; nothing where that is not known. Never rejects. */
export type KernelReport = () => Promise<string>;

type Answer = { readonly at: 'told'; readonly stdout: string } | { readonly at: 'hung' };

/** What one question has brought to light, in words. */
interface Finding {
  /** The peer that is Primary, if any. */
  readonly primaryPeer: string | undefined;
  /** That all I/O is held, if it is. */
  readonly suspension: string | undefined;
}

const suspended = 'DRBD has suspended the I/O';

/** The helper program `drbdsetup`, what is to be expected of it, and what 8.4 tells without it. */
export class Drbdsetup {
  readonly #run: CommandRunner;
  readonly #kernelReport: KernelReport;
  /** Until the last question has an answer. */
  #busy: Promise<unknown> = Promise.resolve();
  /** `stuck`: one that was killed is still there. */
  #health: 'prompt' | 'slow' | 'stuck' = 'prompt';

  constructor(run: CommandRunner = runCommand, kernelReport: KernelReport = readKernelReport) {
    this.#run = run;
    this.#kernelReport = kernelReport;
  }

  /**
   * Why the device must not be opened here now; undefined: nothing is known that speaks against it. Rejects with `unavailable`
   * when drbdsetup was killed: with its whole process group, this program is about to be told to stop.
   */
  async obstacle(device: DrbdDevice): Promise<string | undefined> {
    const { minor } = device;
    const inReport = suspensionInReport(await this.#kernelReport(), minor);
    if (inReport?.suspension !== undefined) return inReport.suspension;
    // DRBD 8.4 has no JSON.
    const finding = await this.#find([...statusQuestions(device), ['role', String(minor)]], minor);
    if (finding?.primaryPeer !== undefined) return `${finding.primaryPeer} is Primary of the DRBD resource`;
    return finding?.suspension;
  }

  /**
   * Why what the device has been given does not come back before somebody decides, or a peer returns; undefined: it does, or nobody
   * tells. Never rejects.
   */
  async suspension(device: DrbdDevice): Promise<string | undefined> {
    const { minor } = device;
    const inReport = suspensionInReport(await this.#kernelReport(), minor);
    if (inReport !== undefined) return inReport.suspension;
    try {
      return (await this.#find(statusQuestions(device), minor))?.suspension;
    } catch (error) {
      asFailure(error);
      return undefined;
    }
  }

  /** The first answer that tells about this device. */
  async #find(questions: readonly (readonly string[])[], minor: number): Promise<Finding | undefined> {
    for (const question of questions) {
      const answer = await this.#askInTurn(question);
      if (answer.at === 'hung') return undefined;
      const finding = findingInStatus(answer.stdout, minor) ?? findingInRoles(answer.stdout);
      if (finding !== undefined) return finding;
    }
    return undefined;
  }

  #askInTurn(question: readonly string[]): Promise<Answer> {
    const answer = this.#busy.then(() => this.#ask(question));
    this.#busy = answer.catch(() => {});
    return answer;
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

/** What DRBD 9 is asked. */
function statusQuestions({ path }: DrbdDevice): string[][] {
  const resource = resourceOf(path);
  return [
    // The resource alone first: a host can have hundreds, and this is asked every second.
    ...(resource === undefined ? [] : [['status', resource, '--json']]),
    // The path is no `by-res`, or a stale one whose device is another resource's now.
    ['status', '--json'],
  ];
}

/**
 * The resource in `/dev/drbd/by-res/RESOURCE/VOLUME`. A name that looks like an option is none that drbdsetup could be
 * asked for.
 */
function resourceOf(path: string): string | undefined {
  return /^\/dev\/drbd\/by-res\/([^/-][^/]*)\/\d+$/.exec(path)?.[1];
}

/**
 * The `status --json` of DRBD 9: [{name, role, suspended, "suspended-REASON", devices: [{minor}], connections: [{name, "peer-role"}]}].
 */
function findingInStatus(json: string, minor: number): Finding | undefined {
  const resource = list(parse(json)).find((entry) =>
    list(field(entry, 'devices')).some((device) => field(device, 'minor') === minor),
  );
  if (resource === undefined) return undefined;
  const suspension = suspensionOf(resource);
  const peer = list(field(resource, 'connections')).find((entry) => field(entry, 'peer-role') === 'Primary');
  if (peer === undefined) return { primaryPeer: undefined, suspension };
  const name = field(peer, 'name');
  return { primaryPeer: typeof name === 'string' ? name : 'a peer', suspension };
}

const suspensionReasons = ['user', 'no-data', 'fencing', 'quorum'];

function suspensionOf(resource: unknown): string | undefined {
  const reasons = suspensionReasons.filter((reason) => field(resource, `suspended-${reason}`) === true);
  if (reasons.length > 0) return `${suspended} (${reasons.join(', ')})`;
  return field(resource, 'suspended') === true ? suspended : undefined;
}

/** The `role` of DRBD 8.4, ours first and then that of its one peer: `Secondary/Primary`. */
function findingInRoles(text: string): Finding | undefined {
  const peerRole = /^[A-Z][a-z]+\/([A-Z][a-z]+)$/.exec(text.trim())?.[1];
  if (peerRole === undefined) return undefined;
  return { primaryPeer: peerRole === 'Primary' ? 'the peer' : undefined, suspension: undefined };
}

/**
 * The /proc/drbd of 8.4, where the flags begin with `s` (suspended) or `r` (running): ` 1: cs:WFConnection ro:Primary/Unknown
 * ds:UpToDate/DUnknown C s-----`. The protocol is a blank while there is no connection. Undefined: it does not tell about this device.
 */
function suspensionInReport(text: string, minor: number): Pick<Finding, 'suspension'> | undefined {
  const line = new RegExp(`^ *${minor}: cs:\\S+ ro:\\S+ ds:\\S+ . ([rs])\\S*$`, 'm').exec(text);
  return line === null ? undefined : { suspension: line[1] === 's' ? suspended : undefined };
}

/** With DRBD 9 it names no device, and without DRBD it is not there. */
async function readKernelReport(): Promise<string> {
  try {
    return await readFile('/proc/drbd', 'latin1');
  } catch {
    return '';
  }
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
