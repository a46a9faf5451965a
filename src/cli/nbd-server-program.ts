/**
 * The life of nbd-server: from the start over the served socket and device to the exit.
 *
 *     starting ── lock, size known, sockets, device ──▶ serving ── SIGTERM, SIGINT ──▶ stopping ──▶ exit 0 (1: something is not durable)
 *         └── lock held by another, socket taken, no device ──▶ exit 1
 *
 *     serving ── SIGUSR2 ──▶ preparing ── successor ready ──▶ leaving ── given ──▶ exit 0, touching nothing
 *        ▲                       │ └── SIGTERM ──▶ stopping ◀── SIGTERM ──┘ └── the successor has died ──▶ stopping (SIGTERM), exit 1
 *        └── it is not getting ready
 *
 * A successor (hand-over.ts) begins at `serving`.
 *
 * Promise: a stop needs no server's consent; it takes one request time-out at the most (the last commit of write-back mode). It comes
 * through at every moment, also of a hand-over.
 */
import { randomBytes } from 'node:crypto';
import { BufferPool } from '../base/buffer-pool.js';
import { type Clock, sleep } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import { Gateway } from '../gateway/gateway.js';
import { Session } from '../gateway/session.js';
import { HttpBackend } from '../http-client/http-backend.js';
import { findDriver } from '../kernel-device/driver.js';
import { type NbdEvent, NbdServer } from '../nbd-server/nbd-server.js';
import type { NbdDriver } from '../linux/nbd-netlink.js';
import { bootClock } from '../linux/boot-clock.js';
import { isIoFlusher } from '../linux/process.js';
import { notifyServiceManager } from '../linux/service-manager.js';
import type { Log } from '../observability/log.js';
import { DeviceHost } from './device-host.js';
import { Predecessor, Successor } from './hand-over.js';
import { Lineage } from './lineage.js';
import { lineOf, remarkOn } from './nbd-server-lines.js';
import { rehearse } from './rehearsal.js';
import type { NbdServerOptions } from './nbd-server-options.js';
import { RunFiles } from './run-files.js';
import { SizeWatch } from './size-watch.js';

export interface NbdProgramOptions {
  readonly options: NbdServerOptions;
  readonly log: Log;
  readonly clock: Clock;
  /** Ends the process. */
  readonly exit: (code: 0 | 1) => void;
}

type Phase =
  | { readonly at: 'starting' }
  | { readonly at: 'serving' }
  | Preparing
  /** Serves no clients any more, soon not even the kernel, and has not given anything away. */
  | { readonly at: 'leaving'; readonly successor: Successor }
  /** `stop`: the signal that came meanwhile. */
  | { readonly at: 'given'; readonly successor: Successor; stop: StopSignal | undefined }
  | { readonly at: 'stopping' };

/**
 * Serves as ever, while a successor gets ready. `isOutdated`: writes of a process before this one may still land at a server that is not in use
 * any more, and the successor has read the record when it was in use (rule T3).
 */
interface Preparing {
  readonly at: 'preparing';
  readonly successor: Successor;
  readonly isOutdated: () => boolean;
}

type StopSignal = 'SIGTERM' | 'SIGINT';

/** Unused buffers that are kept for reuse. */
const idleBufferBytesMax = 48 * 1024 * 1024;
/** How long the sockets may take to close, and their file to be removed. */
const closeWaitMs = 2000;

export class NbdServerProgram {
  readonly #options: NbdServerOptions;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #exit: (code: 0 | 1) => void;
  readonly #files: RunFiles;
  readonly #buffers = new BufferPool(idleBufferBytesMax);
  #lineage: Lineage | undefined;
  #gateway: Gateway | undefined;
  #nbd: NbdServer | undefined;
  #host: DeviceHost | undefined;
  #started: Promise<void> = Promise.resolve();
  #onSelected: () => void = () => {};
  #sizeWatch: SizeWatch | undefined;
  #phase: Phase = { at: 'starting' };

  constructor({ options, log, clock, exit }: NbdProgramOptions) {
    this.#options = options;
    this.#log = log;
    this.#clock = clock;
    this.#exit = exit;
    this.#files = new RunFiles(options.name);
  }

  /** Resolves when everything is served; never rejects for what the outside world does. */
  start(): Promise<void> {
    this.#started = this.#start();
    return this.#started;
  }

  async #start(): Promise<void> {
    const options = this.#options;
    for (const warning of options.warnings) this.#log.line(`Warning: ${warning}.`);
    try {
      const predecessor = Predecessor.find();
      if (predecessor !== undefined) return await this.#succeed(predecessor);
      await this.#claim();
      if (this.#isStopping) return;
      const driver = options.attach ? await findDriver() : undefined;
      if (driver !== undefined && !isIoFlusher()) {
        this.#log.line('Warning: when memory is short this process may wait for its own device (no IO_FLUSHER).');
      }
      const lineage = this.#continueLineage(driver !== undefined, false);
      const gateway = this.#connect(lineage);
      const sizeBytes = await gateway.whenSizeKnown();
      if (this.#isStopping) return;
      if (options.deviceSizeBytes !== undefined) this.#log.line(`Device size: ${sizeBytes}.`);
      await this.#serve(gateway);
      if (driver !== undefined && !this.#isStopping) {
        this.#host = this.#makeHost(driver, gateway, lineage);
        await this.#host.start();
      }
      this.#ready();
    } catch (error) {
      await this.#fail(asFailure(error).message);
    }
  }

  /** Gets ready, then takes the place of a process that serves. */
  async #succeed(predecessor: Predecessor): Promise<void> {
    const driver = this.#options.attach ? await findDriver() : undefined;
    this.#files.adoptLock(predecessor.lock);
    const lineage = this.#continueLineage(driver !== undefined, true);
    if (lineage.former === undefined) throw new Failure('unavailable', 'There is no record of the predecessor.');
    const selected = new Promise<void>((resolve) => {
      this.#onSelected = resolve;
    });
    const gateway = this.#connect(lineage);
    const { writeBack } = this.#options;
    const prepared = selected
      .then(() => rehearse({ volume: gateway, clock: this.#clock, writeBack }))
      .then(() => this.#log.line('Ready to take over.'));
    const { device, sockets } = await predecessor.offer(prepared);
    // A stop before this leaves everything to the predecessor.
    if (this.#isStopping) return;
    lineage.ledger.change({ device });
    lineage.keep();
    // Before the predecessor can end: a service whose main process ends is over.
    this.#tellServiceManager(`MAINPID=${process.pid}`);
    predecessor.take();
    if (driver !== undefined && device !== undefined) {
      // It may have grown since this process looked.
      if (device.sizeBytes > gateway.sizeBytes) gateway.grow(device.sizeBytes);
      this.#host = this.#makeHost(driver, gateway, lineage);
      this.#host.adopt(device, sockets);
      this.#log.line(`\`/dev/nbd${device.index}\` is taken over from process ${predecessor.pid}.`);
      this.#log.line(`NBD \`/dev/nbd${device.index}\` is now attached.`);
    }
    this.#writePid();
    await this.#serve(gateway);
    this.#ready();
  }

  #ready(): void {
    if (this.#phase.at !== 'starting') return;
    this.#phase = { at: 'serving' };
    const gateway = this.#gateway;
    // A size that was given is the size.
    if (gateway !== undefined && this.#options.deviceSizeBytes === undefined) {
      const growDevice = (sizeBytes: number) => this.#host?.grow(sizeBytes) ?? Promise.resolve();
      this.#sizeWatch = new SizeWatch(gateway, this.#clock, (line) => this.#log.line(line), growDevice);
    }
    this.#tellServiceManager('READY=1');
  }

  #tellServiceManager(assignment: string): void {
    notifyServiceManager(`${assignment}\n`, process.env['NOTIFY_SOCKET']);
  }

  /** Starts a successor and leaves the volume to it. If that fails, this process goes on. */
  async handOver(): Promise<void> {
    const gateway = this.#gateway;
    const lock = this.#files.lockDescriptor;
    if (this.#phase.at !== 'serving' || gateway === undefined || lock === undefined) {
      const isHanding = 'successor' in this.#phase;
      this.#log.line(
        `SIGUSR2 received. ${isHanding ? 'A hand-over is under way.' : 'There is nothing to hand over now.'}`,
      );
      return;
    }
    this.#log.line('SIGUSR2 received. Handing over to a successor...');
    let preparing: Preparing | undefined;
    const isStopped = () => preparing !== undefined && this.#phase !== preparing;
    try {
      // There may have been no room for it until now. Twice: the second time is beside the first, as the successor's record will be.
      this.#lineage?.keep();
      this.#lineage?.keep();
      preparing = this.#prepare(lock, gateway);
      await preparing.successor.whenReady(this.#clock);
      await gateway.flush();
      if (preparing.isOutdated())
        throw new Failure('unavailable', 'the server in use has changed, and the successor does not know of it');
    } catch (error) {
      preparing?.successor.dismiss();
      if (isStopped()) return;
      this.#phase = { at: 'serving' };
      this.#log.line(`Not handed over: ${asFailure(error).message}. This process goes on.`);
      return;
    }
    // A device that is growing must be on record as it is.
    await this.#sizeWatch?.end();
    if (!isStopped()) await this.#leaveTo(preparing, gateway);
  }

  #prepare(lock: number, gateway: Gateway): Preparing {
    const servers = () => this.#lineage?.ledger.current.servers;
    const known = servers();
    const isOutdated = () => gateway.awaitsPredecessor && servers() !== known;
    const successor = new Successor(lock, this.#host?.descriptors ?? []);
    const preparing: Preparing = { at: 'preparing', successor, isOutdated };
    this.#phase = preparing;
    return preparing;
  }

  /** Rule T6: everything that was sent is answered, and nothing more is sent. */
  async #leaveTo({ successor, isOutdated }: Preparing, gateway: Gateway): Promise<void> {
    const leaving: Phase = { at: 'leaving', successor };
    this.#phase = leaving;
    const isLeaving = () => this.#phase === leaving;
    // The kernel is still served: whoever uses the device waits from here on only.
    await Promise.race([this.#nbd?.close(), sleep(this.#clock, closeWaitMs)]);
    if (!isLeaving()) return;
    const beganMs = this.#clock.nowMs();
    const sockets = (await this.#host?.handOver()) ?? [];
    await becomeQuiet(gateway, this.#clock, isLeaving);
    if (!isLeaving()) return;
    if (isOutdated()) {
      successor.dismiss();
      this.#leaveToNext('another server was chosen in the meantime');
      return;
    }
    const given: Phase = { at: 'given', successor, stop: undefined };
    this.#phase = given;
    this.#lineage?.ledger.release();
    const giving = successor.give({ device: this.#lineage?.ledger.current.device, sockets }, this.#clock);
    // In the same turn of the event loop, so that nothing more is sent; behind the message, which somebody waits for.
    void gateway.close();
    const outcome = await giving;
    if (outcome === 'taken') {
      this.#log.line(`Handed over to process ${successor.pid} within ${Math.round(this.#clock.nowMs() - beganMs)} ms.`);
      this.#exit(0);
      return;
    }
    if (given.stop === undefined) {
      this.#leaveToNext('the successor has gone');
      return;
    }
    this.#log.line('Not handed over: the successor has gone.');
    if (outcome === 'refused') this.#lineage?.keep();
    await this.#end();
  }

  /** As after a crash. */
  #leaveToNext(why: string): void {
    this.#log.line(`Not handed over: ${why}.`);
    this.#log.line('What it left waits for the next nbd-server of this name.');
    this.#exit(1);
  }

  /** Idempotent. */
  async stop(signal: StopSignal): Promise<void> {
    const phase = this.#phase;
    if (phase.at === 'stopping' || (phase.at === 'given' && phase.stop !== undefined)) return;
    this.#log.line(`${signal} received. Exiting server...`);
    if (phase.at === 'given') {
      // It is for the successor to stop, if it has got everything.
      phase.stop = signal;
      phase.successor.signal(signal);
      return;
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#beginStopping();
    this.#tellServiceManager('STOPPING=1');
    await this.#host?.detach();
    const { undurableBytes, quiet } = (await this.#gateway?.close()) ?? { undurableBytes: 0, quiet: true };
    if (undurableBytes > 0) this.#log.line(`${undurableBytes} bytes of acknowledged writes are not durable.`);
    await Promise.race([this.#nbd?.close(), sleep(this.#clock, closeWaitMs)]);
    this.#lineage?.end(quiet);
    this.#files.remove();
    this.#exit(undurableBytes > 0 ? 1 : 0);
  }

  /** The name is ours, or an error. Without a device to protect, files that cannot be written are only worth a warning. */
  async #claim(): Promise<void> {
    const { attach, name } = this.#options;
    try {
      if (!(await this.#files.lock(this.#clock))) {
        throw new Failure(
          'unavailable',
          `Another nbd-server with the name \`${name}\` is running (it holds \`${this.#files.lockPath}\`).`,
        );
      }
    } catch (error) {
      if (error instanceof Failure) throw error;
      const message = cannotWrite(this.#files.lockPath, error);
      if (attach) throw new Failure('unavailable', message);
      this.#log.line(`Warning: ${message}`);
      return;
    }
    this.#writePid();
  }

  /** Nothing of ours needs the file. */
  #writePid(): void {
    try {
      this.#files.writePid();
    } catch (error) {
      this.#log.line(`Warning: ${cannotWrite(this.#files.pidPath, error)}`);
    }
  }

  /** The session of a predecessor that died is continued, a device that it left is looked for (failover rule T2). */
  #continueLineage(attach: boolean, planned: boolean): Lineage {
    const lineage = Lineage.begin({
      path: this.#files.recordPath,
      isOnFile: this.#files.lockDescriptor !== undefined,
      attach,
      planned,
      newSession: () => randomBytes(12).toString('hex'),
      bootTimeMs: () => bootClock.nowMs(),
      warn: (text) => this.#log.line(`Warning: ${text}`),
    });
    this.#lineage = lineage;
    return lineage;
  }

  #connect({ session, generation, ledger, device, inherited }: Lineage): Gateway {
    const { servers, ca, requestTimeoutMs, ioTimeoutMs, deviceSizeBytes, readOnly, writeBack, refusalProvesDeath } =
      this.#options;
    const clock = this.#clock;
    const connection = { clock, connectTimeoutMs: requestTimeoutMs, ca, environment: process.env };
    const backends = servers.map((target) => new HttpBackend(target, connection));
    const gateway = new Gateway(backends, {
      clock,
      session: new Session(session, generation),
      ledger,
      buffers: this.#buffers,
      readOnly,
      sizeBytes: deviceSizeBytes ?? device?.sizeBytes,
      requestTimeoutMs,
      ioTimeoutMs,
      writeBack,
      refusalProvesDeath,
      inherited,
    });
    gateway.events.subscribe((event) => {
      this.#log.line(lineOf(event));
      const remark = remarkOn(event);
      if (remark !== undefined && !readOnly) this.#log.line(remark);
      if (event.type === 'selected') this.#onSelected();
      if (event.type === 'inheritance-lost') void this.#giveUpDevice();
    });
    this.#gateway = gateway;
    gateway.start();
    return gateway;
  }

  async #serve(gateway: Gateway): Promise<void> {
    const { name, socketPath, listen, verbose } = this.#options;
    const nbd = new NbdServer({
      clock: this.#clock,
      volume: gateway,
      buffers: this.#buffers,
      exportName: name,
      exportDescription: 'A disk over HTTP',
    });
    this.#nbd = nbd;
    nbd.events.subscribe((event) => this.#tellClient(event, verbose));
    await nbd.listenUnix(socketPath);
    this.#log.line(`NBD server ready on \`${socketPath}\`.`);
    if (listen === undefined) return;
    const port = await nbd.listenTcp(listen.host, listen.port);
    this.#log.line(`NBD server ready on port ${port}.`);
  }

  #makeHost(driver: NbdDriver, gateway: Gateway, lineage: Lineage): DeviceHost {
    return new DeviceHost({
      ...{ driver, lineage, gateway },
      options: this.#options,
      clock: this.#clock,
      buffers: this.#buffers,
      log: this.#log,
      onLost: () => {
        lineage.ledger.change({ device: undefined });
        void this.#fail('The device was disconnected by somebody else.');
      },
    });
  }

  /** Failover rule T5: what a filesystem on it relies on is gone, so it must not go on. Without a size nothing has been started, and never will be. */
  async #giveUpDevice(): Promise<void> {
    if (this.#gateway?.isSizeKnown === true) await this.#started;
    await this.#host?.detach();
    this.#lineage?.ledger.change({ device: undefined, unflushed: 'none' });
    await this.#fail('The device is given up. Check what is on it.');
  }

  async #fail(message: string): Promise<void> {
    if (this.#isStopping) return;
    this.#beginStopping();
    this.#log.line(message);
    const quiet = (await this.#gateway?.close())?.quiet ?? true;
    await Promise.race([this.#nbd?.close(), sleep(this.#clock, closeWaitMs)]);
    // A device that a predecessor left and that we could not take over: the next one may.
    if (this.#lineage?.ledger.current.device === undefined) this.#lineage?.end(quiet);
    this.#files.remove();
    this.#exit(1);
  }

  /** What is given away, or stopped, is no more for this process to stop. */
  get #isStopping(): boolean {
    return this.#phase.at === 'stopping' || this.#phase.at === 'given';
  }

  #beginStopping(): void {
    const phase = this.#phase;
    this.#phase = { at: 'stopping' };
    if (phase.at === 'preparing' || phase.at === 'leaving') phase.successor.dismiss();
    void this.#sizeWatch?.end();
  }

  #tellClient(event: NbdEvent, verbose: boolean): void {
    if (event.type === 'refused') this.#log.line(`Client ${event.client} refused: ${event.reason}.`);
    else if (event.type === 'disconnected' && event.fault !== undefined) {
      this.#log.line(`Client ${event.client} disconnected: ${event.fault}.`);
    } else if (verbose) this.#log.line(`Client ${event.client} ${event.type}.`);
  }
}

const quietCheckPeriodMs = 2;

/** Everything that was acknowledged is durable, and nothing is on its way. Does not end before that, unless it is no more `wanted`. */
async function becomeQuiet(gateway: Gateway, clock: Clock, wanted: () => boolean): Promise<void> {
  while (wanted() && !gateway.isIdle) await sleep(clock, quietCheckPeriodMs);
  const flushed = () =>
    gateway.flush().then(
      () => true,
      () => false,
    );
  while (wanted() && !(await flushed()));
}

function cannotWrite(path: string, error: unknown): string {
  return `\`${path}\` cannot be written: \`${(error as NodeJS.ErrnoException).code ?? String(error)}\`.`;
}
