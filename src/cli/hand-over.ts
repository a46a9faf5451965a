/**
 * A planned change of processes: the successor is started by the one that serves, gets copies of the lock and of the kernel's sockets, and
 * serves when it is told to.
 *
 *     predecessor                                  successor
 *     spawn, with the descriptors ───────────────▶ reads the record, finds a server
 *                                 ◀─────── ready ──
 *     reads no more, answers what it has read
 *     yours, with the bytes not served ──────────▶ new generation on record, serves
 *     exits, touching nothing
 *
 * Promises: until `yours` the predecessor can go on as if nothing had been, and a successor that it does not come to leaves no trace; the
 * lock is held by one of the two at every moment.
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

/** What the successor needs to go on. */
export interface Legacy {
  readonly device: RecordedDevice | undefined;
  readonly sockets: readonly HandedSocket[];
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
  readonly #ready: Promise<boolean>;

  /** Starts this program anew, with the same arguments: what is installed now, which may be another version. */
  constructor(lock: number, sockets: readonly number[]) {
    const [node = process.execPath, script = '', ...args] = process.argv;
    this.#sockets = sockets;
    this.#child = spawn(node, [...process.execArgv, script, ...args], {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc', lock, ...sockets],
      env: { ...process.env, [variable]: String(sockets.length) },
    });
    this.#ready = new Promise((resolve) => {
      this.#child.once('message', () => resolve(true));
      this.#child.once('error', () => resolve(false));
      this.#child.once('exit', () => resolve(false));
    });
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

  /** Resolves when the successor has it: this process must not do anything with the volume from now on. */
  give({ device, sockets }: Legacy): Promise<void> {
    const known = sockets.flatMap(({ fd, received }) => {
      const place = this.#sockets.indexOf(fd);
      return place < 0 ? [] : { place, received: received.toString('base64') };
    });
    const message: YoursMessage = { type: 'yours', sockets: known, ...(device && { device }) };
    return new Promise((resolve, reject) => {
      this.#child.send(message, (error) => {
        if (error === null) resolve();
        else reject(new Failure('unavailable', 'the successor has gone'));
      });
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
   * Says that we are ready once `prepared` resolves, and resolves when the volume is ours. Rejects with a `Failure` if it is not going to be.
   */
  async takeFrom(prepared: Promise<void>): Promise<Legacy> {
    await Promise.race([prepared, this.#legacy]);
    if (process.connected) process.send?.({ type: 'ready' });
    const legacy = await this.#legacy;
    if (process.connected) process.disconnect();
    return legacy;
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
