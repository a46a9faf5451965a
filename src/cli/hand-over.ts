/**
 * A planned change of processes: the successor is started by the one that serves, gets copies of the lock and of the kernel's sockets, and
 * serves when it is told to.
 *
 *     predecessor                                  successor
 *     spawn, with the descriptors ───────────────▶ reads the record, finds a server, rehearses
 *                                 ◀─────── ready ──
 *     reads no more, answers what it has read
 *     yours, with the bytes not served ──────────▶ new generation on record
 *                                 ◀──────── mine ── serves
 *     exits, touching nothing
 *
 * Promises: a successor that does not come to `mine` has served nothing and leaves no trace, so that everything is still the
 * predecessor's; the lock is held by one of the two at every moment.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { type Clock, sleep } from '../base/clock.js';
import { Failure } from '../base/failure.js';
import type { HandedSocket } from '../kernel-device/kernel-device.js';
import type { RecordedDevice } from '../kernel-device/volume-record.js';
import { closeOnExec } from '../linux/close-on-exec.js';

/** Set for a successor: how many of the kernel's sockets it has. */
const variable = 'NBD_SERVER_SUCCESSOR';
/** Where the successor finds them: after the three streams and the channel to the predecessor. */
const lockPlace = 4;
const firstSocketPlace = 5;
const readyWaitMs = 60_000;
const mineWaitMs = 5000;

/** What the successor needs to go on. */
export interface Legacy {
  readonly device: RecordedDevice | undefined;
  readonly sockets: readonly HandedSocket[];
}

interface SuccessorMessage {
  readonly type: 'ready' | 'mine';
}

interface YoursMessage {
  readonly type: 'yours';
  readonly device?: RecordedDevice;
  /** `place`: which of the sockets that the successor was started with. */
  readonly sockets: readonly { readonly place: number; readonly received: string }[];
}

// --- the predecessor's side ---

export class Successor {
  readonly #child: ChildProcess;
  readonly #sockets: readonly number[];
  /** False: it has ended. */
  readonly #ready: Promise<boolean>;
  readonly #mine: Promise<boolean>;

  /** Starts this program anew, with the same arguments: what is installed now, which may be another version. */
  constructor(lock: number, sockets: readonly number[]) {
    const [node = process.execPath, script = '', ...args] = process.argv;
    this.#sockets = sockets;
    this.#child = spawn(node, [...process.execArgv, script, ...args], {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc', lock, ...sockets],
      env: { ...process.env, [variable]: String(sockets.length) },
    });
    this.#ready = this.#says('ready');
    this.#mine = this.#says('mine');
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Rejects with a `Failure` if it does not get ready; it is gone then. */
  async whenReady(clock: Clock): Promise<void> {
    if (await Promise.race([this.#ready, sleep(clock, readyWaitMs)])) return;
    this.dismiss();
    throw new Failure('unavailable', 'the successor did not get ready');
  }

  dismiss(): void {
    this.#child.kill('SIGKILL');
  }

  /** Passes a signal on. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /**
   * Gives everything away. Resolves with `taken`: this process must not do anything with the volume any more; `refused`: the
   * successor has ended before it did anything; `lost`: it took everything so late that it has been killed.
   */
  async give({ device, sockets }: Legacy, clock: Clock): Promise<'taken' | 'refused' | 'lost'> {
    const known = sockets.flatMap(({ fd, received }) => {
      const place = this.#sockets.indexOf(fd);
      return place < 0 ? [] : { place, received: received.toString('base64') };
    });
    const message: YoursMessage = { type: 'yours', sockets: known, ...(device && { device }) };
    if (this.#child.connected) this.#child.send(message, () => {}); // that it failed shows in the end of the channel
    const inTime = await Promise.race([this.#mine, sleep(clock, mineWaitMs)]);
    if (inTime === undefined) this.dismiss();
    if (!(await this.#mine)) return 'refused';
    return inTime === undefined ? 'lost' : 'taken';
  }

  /** The end of the channel comes after the last message, which the end of the process may not. */
  #says(type: SuccessorMessage['type']): Promise<boolean> {
    return new Promise((resolve) => {
      this.#child.on('message', (message) => {
        if ((message as SuccessorMessage).type === type) resolve(true);
      });
      this.#child.once('error', () => resolve(false));
      this.#child.once('disconnect', () => resolve(false));
    });
  }
}

// --- the successor's side ---

export class Predecessor {
  /** A copy of the descriptor that holds the lock. */
  readonly lock = lockPlace;
  readonly pid = process.ppid;
  readonly #socketCount: number;
  readonly #legacy: Promise<Legacy>;

  /** Undefined: this process was started by a user. */
  static find(): Predecessor | undefined {
    const count = process.env[variable];
    delete process.env[variable];
    return count === undefined ? undefined : new Predecessor(Number(count));
  }

  private constructor(socketCount: number) {
    this.#socketCount = socketCount;
    closeOnExec(lockPlace);
    for (let place = 0; place < socketCount; place++) closeOnExec(firstSocketPlace + place);
    this.#legacy = new Promise((resolve, reject) => {
      process.once('message', (message) => resolve(this.#unpack(message as YoursMessage)));
      const gone = () => reject(new Failure('unavailable', 'The predecessor has not handed over.'));
      process.once('disconnect', gone);
      if (!process.connected) gone();
    });
    this.#legacy.catch(() => {});
  }

  /**
   * Says that we are ready once `prepared` resolves, and resolves with what becomes ours by {@link Predecessor.take}. Rejects with a
   * `Failure` if nothing is going to.
   */
  async offer(prepared: Promise<void>): Promise<Legacy> {
    await Promise.race([prepared, this.#legacy]);
    this.#say('ready', () => {});
    return this.#legacy;
  }

  /** From now on the predecessor does nothing any more. */
  take(): void {
    this.#say('mine', () => {
      if (process.connected) process.disconnect();
    });
  }

  #say(type: SuccessorMessage['type'], said: () => void): void {
    const message: SuccessorMessage = { type };
    if (process.connected) process.send?.(message, undefined, undefined, said);
  }

  #unpack({ device, sockets }: YoursMessage): Legacy {
    const handed = sockets.map(({ place, received }) => {
      return { fd: firstSocketPlace + place, received: Buffer.from(received, 'base64') };
    });
    for (let fd = firstSocketPlace; fd < firstSocketPlace + this.#socketCount; fd++) {
      if (!handed.some((socket) => socket.fd === fd)) closeSync(fd);
    }
    return { device, sockets: handed };
  }
}
