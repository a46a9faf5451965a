/**
 * The pool of servers: sends jobs to the server in use, tries again what fails, and changes servers. Retry and time live here
 * and nowhere else; the failure table says what is tried again.
 *
 *            found                    copies replayed
 * searching ───────► preparing ─────────────────────► ready
 *     ▲                  │                              │
 *     └──────────────────┴────── server lost ◄──────────┘          any ── close ──► closed
 *
 * Promises: every job is settled (invariant 8); at most `inFlight…Max` is on its way (invariant 7); a write that may still land on one
 * server is neither given to another nor answered (rules G4, G5); no answer of an attachment that was given up counts (G6).
 */
import { assert } from '../base/assert.js';
import type { Channel } from '../base/channel.js';
import { type Clock, sleep, type Timer } from '../base/clock.js';
import { asFailure, Failure, type FailureCode } from '../base/failure.js';
import { NoDisk } from '../http-disk/failure-codec.js';
import type { DiskAnswer, WriteStamp } from '../http-disk/messages.js';
import { type Attachment, type Hazard, isOver } from './attachment.js';
import type { Backend } from './backend.js';
import type { GatewayEvent } from './events.js';
import { bytesOnTheWire, isSmall, JobQueue } from './job-queue.js';
import { type Done, isWrite, type Job, planFor, type Task } from './job.js';
import { type Inheritance, Inherited } from './inheritance.js';
import type { Ledger } from './ledger.js';
import { replay } from './replay.js';
import type { Retention } from './retention.js';
import { Search, type SearchOptions } from './search.js';
import type { Session } from './session.js';

export interface PoolOptions {
  readonly clock: Clock;
  readonly session: Session;
  readonly ledger: Ledger;
  readonly events: Channel<GatewayEvent>;
  /** How long one attempt may take, milliseconds. */
  readonly requestTimeoutMs: number;
  /** Write-back mode's copies. Undefined: write-through. */
  readonly retention: Retention | undefined;
  /** Whether a refused connection to a server's own address proves that its process is gone (rule G5). */
  readonly refusalProvesDeath: boolean;
  readonly inherited?: Inheritance | undefined;
  readonly judge: SearchOptions['judge'];
  /** Called when a server has been chosen, before anything is sent to it. */
  readonly adopt: (attachment: Attachment) => void;
}

/** The longest time between a server's check of a write and the end of that write, allowed for beyond the deadline. */
export const landingMarginMs = 1000;
/** How often time-outs and hazards are looked at. */
const sweepPeriodMs = 100;
/** What fails more often than this is tried again only after a pause, which grows up to the last of these. */
const promptAttemptsMax = 3;
const retryPauseMs = 100;
const retryPauseMsMax = 3000;
/** How often a server whose death would free a waiting write is asked whether it still listens. */
const deathCheckPeriodMs = 20;
/** The same, of the servers of a predecessor. */
const inheritedCheckPeriodMs = 200;

const inFlightJobsMax = 256;
const inFlightReplaysMax = 32;
const inFlightLargeBytesMax = 8 * 1024 * 1024;

type State =
  | { readonly at: 'new' }
  | { readonly at: 'searching'; readonly search: Search }
  | { readonly at: 'preparing'; readonly attachment: Attachment }
  | { readonly at: 'ready'; readonly attachment: Attachment }
  | { readonly at: 'closed' };

/** After these the server itself may be well, as it was or with a new instance: it is probed first. */
const aliveCodes: ReadonlySet<FailureCode> = new Set(['connection-lost', 'other-instance', 'deadline-passed']);

const noHazards: readonly Hazard[] = [];

export class Pool {
  readonly #servers: readonly Backend[];
  readonly #options: PoolOptions;
  readonly #waiting = new JobQueue();
  /** Oldest transmission first. */
  readonly #inFlight = new Set<Job>();
  /** Lost attachments to which a write may still be on its way. */
  readonly #suspects = new Set<Attachment>();
  /** Writes of replays that were cut short and may still land. */
  #replayHazards: Hazard[] = [];
  #inFlightLargeBytes = 0;
  #state: State = { at: 'new' };
  #sequence = 0;
  #sweep: Timer | undefined;
  /** The attachment whose instance holds all copies; undefined while none does. */
  #copiesAt: Attachment | undefined;
  readonly #inherited: Inherited | undefined;

  /** `servers`: at least one, in the order of preference. */
  constructor(servers: readonly Backend[], options: PoolOptions) {
    assert(servers.length > 0, 'a pool has servers');
    this.#servers = servers;
    this.#options = options;
    const { inherited, clock, events } = options;
    const [first] = servers;
    if (inherited === undefined || first === undefined) return;
    const onLost = (server: string) => events.publish({ type: 'inheritance-lost', server });
    this.#inherited = new Inherited(inherited, first, clock.nowMs(), landingMarginMs, onLost);
    // A replay must not meet writes of the predecessor either.
    this.#replayHazards = [...this.#inherited.hazards];
  }

  /** Begins to look for a server. Tasks that come before wait. */
  start(): void {
    assert(this.#state.at === 'new', 'a pool is started once');
    this.#state = this.#searchingState(this.#servers);
    this.#inherited?.start();
    this.#watchInherited();
  }

  /** The server in use, if there is one. */
  get current(): Attachment | undefined {
    return this.#state.at === 'ready' ? this.#state.attachment : undefined;
  }

  /** `attachment` is not what it was: a server is looked for. No effect unless it is in use. */
  leave(attachment: Attachment, why: string): void {
    if (this.current === attachment) this.#lose(attachment, new Failure('other-instance', why));
  }

  /** What a predecessor acknowledged is not known to be durable: a flush must not be answered yet. */
  get owesCommit(): boolean {
    return this.#inherited?.owesCommit === true;
  }

  /** Writes of a predecessor that died may still land (rule T3). */
  get awaitsPredecessor(): boolean {
    return this.#inherited !== undefined && !this.#inherited.isOver(this.#options.clock.nowMs());
  }

  /** Jobs that wait or are in flight. */
  get pending(): number {
    return this.#waiting.size + this.#inFlight.size;
  }

  /**
   * Does `task` on whichever server can. Rejects with a `Failure`: `gave-up` when it was not done by `giveUpAtMs` of the clock
   * and no transmission of it can still land, which takes one request time-out and the landing margin longer at the most.
   */
  perform(task: Task, giveUpAtMs: number): Promise<Done> {
    return new Promise((resolve, reject) => {
      if (this.#state.at === 'closed') return reject(new Failure('shutting-down'));
      const job = this.#newJob(task, giveUpAtMs, false, resolve, reject);
      const ready = this.current;
      if (ready !== undefined && this.#waiting.size === 0 && this.#hasRoom(job, ready) && this.#isFree(job, ready)) {
        this.#send(job, ready);
      } else {
        this.#waiting.add(job);
        this.#pump();
      }
      this.#scheduleSweep();
    });
  }

  /** Rejects everything with `shutting-down`; nothing is sent after it. */
  close(): void {
    if (this.#state.at === 'closed') return;
    if (this.#state.at === 'searching') this.#state.search.cancel();
    this.#state = { at: 'closed' };
    this.#sweep?.cancel();
    for (const backend of this.#servers) backend.abandon();
    for (const job of [...this.#waiting.take(() => true), ...this.#inFlight]) job.reject(new Failure('shutting-down'));
    this.#inFlight.clear();
  }

  #newJob(task: Task, giveUpAtMs: number, once: boolean, resolve: Job['resolve'], reject: Job['reject']): Job {
    this.#sequence += 1;
    return {
      task,
      once,
      sequence: this.#sequence,
      giveUpAtMs,
      sentTo: null,
      sentAtMs: 0,
      deadlineMs: 0,
      deferred: false,
      failedAttempts: 0,
      notBeforeMs: 0,
      hazards: noHazards,
      coversUpTo: 0,
      resolve,
      reject,
    };
  }

  // --- sending ---

  #pump(): void {
    if (this.#state.at !== 'ready' || this.#waiting.size === 0) return;
    const { attachment } = this.#state;
    const nowMs = this.#options.clock.nowMs();
    const { small, large, byAge } = this.#waiting;
    for (const line of attachment.oneAtATime ? byAge : [small, large]) this.#pumpLine(line, attachment, nowMs);
  }

  #pumpLine(line: Job[], attachment: Attachment, nowMs: number): void {
    let kept = 0;
    let next = 0;
    for (; next < line.length; next += 1) {
      const job = line[next];
      if (job === undefined || this.current !== attachment || !this.#hasRoom(job, attachment)) break;
      if (this.#mayBeSent(job, attachment, nowMs)) this.#send(job, attachment);
      else line[kept++] = job;
    }
    line.splice(kept, next - kept);
  }

  #hasRoom(job: Job, { oneAtATime }: Attachment): boolean {
    if (this.#inFlight.size >= (oneAtATime ? 1 : inFlightJobsMax)) return false;
    if (isSmall(job) || this.#inFlightLargeBytes === 0) return true;
    return this.#inFlightLargeBytes + bytesOnTheWire(job) <= inFlightLargeBytesMax;
  }

  /** Rule G5: to another instance only when no earlier transmission can still land. */
  #mayBeSent(job: Job, attachment: Attachment, nowMs: number): boolean {
    if (job.notBeforeMs > nowMs || job.giveUpAtMs <= nowMs || !this.#isFree(job, attachment)) return false;
    return job.hazards.every(
      (hazard) => hazard.attachment.isSameInstance(attachment) || isOver(hazard, nowMs, landingMarginMs),
    );
  }

  /** Rule T3: nothing of a predecessor can land any more on another instance. */
  #isFree(job: Job, attachment: Attachment): boolean {
    const inherited = this.#inherited;
    return (
      inherited === undefined || !isWrite(job.task) || inherited.mayWriteTo(attachment, this.#options.clock.nowMs())
    );
  }

  #send(job: Job, attachment: Attachment): void {
    const { clock, retention } = this.#options;
    const { task } = job;
    const nowMs = clock.nowMs();
    const stamp = isWrite(task) ? this.#stamp(attachment, nowMs) : undefined;
    const deferred = stamp !== undefined && retention !== undefined && isWrite(task) && task.deferrable;
    // Rule G7. Write-through reads need no instance: whatever was acknowledged is durable on any of them.
    const named = retention !== undefined || this.#inherited?.needsCommit === true;
    const instance = named ? attachment.instance : undefined;
    const plan = planFor(task, attachment, stamp, deferred, instance);
    if (plan.kind === 'fail') return job.reject(plan.failure);
    job.deferred = deferred;
    job.coversUpTo = retention?.newest ?? 0;
    if (plan.kind === 'answer') return job.resolve({ answer: plan.answer, outcome: 'skipped', attachment });
    job.sentTo = attachment;
    job.sentAtMs = nowMs;
    job.deadlineMs = stamp?.deadlineMs ?? 0;
    this.#inFlight.add(job);
    if (!isSmall(job)) this.#inFlightLargeBytes += bytesOnTheWire(job);
    attachment.backend.send(plan.request, plan.bytes, plan.into, {
      answered: (answer) => this.#answered(job, attachment, answer),
      failed: (failure) => this.#failed(job, attachment, failure),
    });
  }

  #stamp(attachment: Attachment, nowMs: number): WriteStamp | undefined {
    const { instance, clock } = attachment;
    if (instance === undefined || clock === undefined) return undefined;
    const { session, requestTimeoutMs } = this.#options;
    const deadlineMs = Math.ceil(clock.estimateMs(nowMs) + requestTimeoutMs);
    return { session: session.id, epoch: session.epoch, instance, deadlineMs };
  }

  // --- answers ---

  #answered(job: Job, attachment: Attachment, answer: DiskAnswer): void {
    if (!this.#land(job, attachment)) return;
    if (answer.clockMs !== undefined) attachment.clock?.learn(answer.clockMs, this.#options.clock.nowMs());
    if (isWrite(job.task) && attachment.instance !== undefined && answer.instance !== attachment.instance) {
      this.#again(
        job,
        attachment,
        new Failure('malformed-response', 'a write was answered by another instance than it named'),
      );
    } else {
      this.#succeed(job, attachment, answer);
    }
    this.#pump();
  }

  #succeed(job: Job, attachment: Attachment, answer: DiskAnswer): void {
    if (job.task.op === 'flush') this.#options.retention?.dropCommitted(job.coversUpTo);
    job.resolve({ answer, outcome: job.deferred ? 'deferred' : 'durable', attachment });
  }

  #failed(job: Job, attachment: Attachment, failure: Failure): void {
    if (!this.#land(job, attachment)) return;
    if (failure.row.retry === 'never') job.reject(failure);
    else this.#again(job, attachment, failure);
    this.#pump();
  }

  /** Takes the job out of flight. False: the attachment was given up meanwhile, and the job waits already (rule G6). */
  #land(job: Job, attachment: Attachment): boolean {
    if (job.sentTo !== attachment || !this.#inFlight.delete(job)) return false;
    if (!isSmall(job)) this.#inFlightLargeBytes -= bytesOnTheWire(job);
    job.sentTo = null;
    return true;
  }

  /** One attempt failed and the failure table allows another. */
  #again(job: Job, attachment: Attachment, failure: Failure): void {
    if (failure.row.outcome === 'unknown') this.#noteHazard(job, attachment);
    job.failedAttempts += 1;
    const patience = job.failedAttempts - promptAttemptsMax;
    if (patience > 0)
      job.notBeforeMs = this.#options.clock.nowMs() + Math.min(retryPauseMs * 2 ** patience, retryPauseMsMax);
    this.#wait(job, failure);
    if (failure.row.retry === 'elsewhere') this.#lose(attachment, failure, job.failedAttempts > 1);
  }

  #wait(job: Job, failure: Failure): void {
    if (job.once) return job.reject(failure);
    this.#waiting.add(job);
    this.#scheduleSweep();
  }

  #noteHazard(job: Job, attachment: Attachment): void {
    // Without sessions nothing is known and nothing can be known: best effort (rule G12).
    if (!isWrite(job.task) || attachment.clock === undefined) return;
    const hazard = { attachment, deadlineMs: job.deadlineMs };
    if (job.once) this.#replayHazards.push(hazard);
    else job.hazards = [...job.hazards, hazard];
    this.#suspects.add(attachment);
  }

  // --- changing servers ---

  /** Gives the server up: all its connections, and everything that is on its way there. */
  #lose(attachment: Attachment, failure: Failure, again = false): void {
    if (!('attachment' in this.#state) || this.#state.attachment !== attachment) return;
    const { session, events } = this.#options;
    events.publish({ type: 'lost', server: attachment.backend.name, reason: failure.message });
    session.raise(); // rule G3, before anything is sent again
    for (const job of [...this.#inFlight]) {
      if (!this.#land(job, attachment)) continue;
      this.#noteHazard(job, attachment);
      this.#wait(job, failure);
    }
    attachment.backend.abandon();
    const mayBeWell = !again && aliveCodes.has(failure.code);
    this.#state = this.#searchingState(this.#orderAfter(attachment.backend, mayBeWell));
    this.#watchDeath(attachment);
    this.#scheduleSweep();
  }

  /** A server that may be well comes first; one that is silent, or fails again and again, comes last. */
  #orderAfter(lost: Backend, mayBeWell: boolean): readonly Backend[] {
    const place = this.#servers.indexOf(lost);
    const following = [...this.#servers.slice(place + 1), ...this.#servers.slice(0, place)];
    return mayBeWell ? [lost, ...following] : [...following, lost];
  }

  #searchingState(order: readonly Backend[]): State {
    const { clock, events, requestTimeoutMs } = this.#options;
    const judge: SearchOptions['judge'] = (probe, backend) =>
      this.#inherited?.judge(backend, probe) ?? this.#options.judge(probe, backend);
    const missed = (failure: Failure) => this.#concludeAbsence(failure);
    const options = { clock, events, judge, missed, probeTimeoutMs: requestTimeoutMs };
    return { at: 'searching', search: new Search(order, options, (attachment) => void this.#prepare(attachment)) };
  }

  /** Brings a server that was found up to date with the copies (rules G8, T3, T4), then uses it. */
  async #prepare(attachment: Attachment): Promise<void> {
    const { retention, events, ledger } = this.#options;
    const { backend, endpoint, instance } = attachment;
    this.#state = { at: 'preparing', attachment };
    this.#options.adopt(attachment);
    this.#concludeDeaths(attachment);
    // Rule T5.
    if (this.#inherited?.needsCommit === true) {
      if (!(await this.#performNow({ op: 'flush', offset: 0, length: 0 }, attachment))) return;
      this.#inherited.committed();
    }
    const entry = { server: backend.name, endpoint, instance };
    const upToDate =
      retention === undefined || retention.isEmpty || this.#copiesAt?.isSameInstance(attachment) === true;
    if (!upToDate) {
      this.#copiesAt = undefined;
      await ledger.record({ ...entry, unflushed: 'nobody' });
      await this.#untilReplaysLanded(attachment);
      const tasks = retention.replayTasks();
      events.publish({ type: 'replaying', server: backend.name, writes: tasks.length, bytes: retention.retainedBytes });
      const atOnce = attachment.oneAtATime ? 1 : inFlightReplaysMax;
      const complete = await replay(tasks, atOnce, (task) => this.#performNow(task, attachment));
      if (!complete) return;
      events.publish({ type: 'replayed', server: backend.name });
    }
    await ledger.record({ ...entry, unflushed: retention === undefined ? 'none' : 'instance' });
    if (!this.#isPreparing(attachment)) return;
    if (instance === undefined) retention?.dropCommitted(retention.newest); // replayed as durable as this server can (rule G12)
    this.#copiesAt = attachment;
    this.#state = { at: 'ready', attachment };
    events.publish({ type: 'selected', server: backend.name, bestEffort: instance === undefined });
    this.#pump();
  }

  /** One write of a replay: past the queue, on this attachment or not at all. False: the attachment is lost. */
  async #performNow(task: Task, attachment: Attachment): Promise<boolean> {
    for (;;) {
      if (!this.#isPreparing(attachment)) return false;
      const failure = await new Promise<Done>((resolve, reject) => {
        this.#send(this.#newJob(task, Number.POSITIVE_INFINITY, true, resolve, reject), attachment);
        this.#scheduleSweep();
      }).then(() => undefined, asFailure);
      if (failure === undefined) return true;
      await sleep(this.#options.clock, retryPauseMs);
      if (failure.row.retry !== 'again') this.#lose(attachment, failure, true);
    }
  }

  /** Rule G5 for an earlier replay that did not get to its end: nothing of it can land any more on another instance. */
  async #untilReplaysLanded(attachment: Attachment): Promise<void> {
    const { clock } = this.#options;
    for (;;) {
      this.#replayHazards = this.#replayHazards.filter((hazard) => !isOver(hazard, clock.nowMs(), landingMarginMs));
      if (this.#replayHazards.every((hazard) => hazard.attachment.isSameInstance(attachment))) return;
      if (!this.#isPreparing(attachment)) return;
      await sleep(clock, deathCheckPeriodMs);
    }
  }

  #isPreparing(attachment: Attachment): boolean {
    return this.#state.at === 'preparing' && this.#state.attachment === attachment;
  }

  // --- certainty that a server is gone (rule G5) ---

  /** A new process on the very address that a lost instance published as its own: the old one does not listen there any more. */
  #concludeDeaths(attachment: Attachment): void {
    if (!this.#options.refusalProvesDeath || attachment.place === undefined) return;
    for (const feared of this.#inherited?.feared(attachment, this.#options.clock.nowMs()) ?? []) {
      if (feared.endpoint === attachment.place) this.#inherited?.died(feared);
    }
    for (const suspect of this.#suspects) {
      if (suspect.endpoint === attachment.place && !suspect.isSameInstance(attachment)) suspect.provenGone = true;
    }
  }

  /** Rule T5: an instance is over where no disk is open. What it had begun may still land, so that it proves nothing for rule G5. */
  #concludeAbsence(failure: Failure): void {
    if (this.#options.refusalProvesDeath && failure instanceof NoDisk) this.#inherited?.noDiskAt(failure.endpoint);
  }

  #watchDeath(suspect: Attachment): void {
    const { clock, refusalProvesDeath } = this.#options;
    if (!refusalProvesDeath || suspect.endpoint === undefined || !this.#isFeared(suspect)) return;
    suspect.backend.refuses(suspect.endpoint).then(
      (refused) => {
        if (refused) {
          suspect.provenGone = true;
          this.#pump();
        } else {
          clock.after(deathCheckPeriodMs, () => this.#watchDeath(suspect));
        }
      },
      (error: unknown) => void asFailure(error),
    );
  }

  /** As long as a server of the predecessor holds writes up, it is asked whether it still listens. */
  #watchInherited(): void {
    const { clock, refusalProvesDeath } = this.#options;
    const inherited = this.#inherited;
    if (inherited === undefined || !refusalProvesDeath || this.#state.at === 'closed') return;
    const feared = inherited.feared(this.current, clock.nowMs());
    const asked = feared.map(async (server) => {
      if (server.endpoint !== undefined && (await server.backend.refuses(server.endpoint))) inherited.died(server);
    });
    void Promise.allSettled(asked).then(() => {
      this.#pump();
      if (this.awaitsPredecessor) clock.after(inheritedCheckPeriodMs, () => this.#watchInherited());
    });
  }

  /** Whether a waiting write would be free to go if this server were gone. */
  #isFeared(suspect: Attachment): boolean {
    const nowMs = this.#options.clock.nowMs();
    for (const job of this.#waiting) {
      if (job.hazards.some((hazard) => hazard.attachment === suspect && !isOver(hazard, nowMs, landingMarginMs)))
        return true;
    }
    return false;
  }

  // --- time ---

  #scheduleSweep(): void {
    if (this.#sweep !== undefined || this.#state.at === 'closed') return;
    this.#sweep = this.#options.clock.after(sweepPeriodMs, () => {
      this.#sweep = undefined;
      this.#checkTimes();
      if (this.pending > 0) this.#scheduleSweep();
    });
  }

  #checkTimes(): void {
    const nowMs = this.#options.clock.nowMs();
    const { requestTimeoutMs, events } = this.#options;
    for (const job of this.#inFlight) {
      if (job.sentTo === null || nowMs - job.sentAtMs < requestTimeoutMs) break; // oldest first
      this.#lose(job.sentTo, new Failure('timed-out', `no answer within ${requestTimeoutMs / 1000} s`));
      break;
    }
    for (const job of this.#waiting.take(
      (waiting) => waiting.giveUpAtMs <= nowMs && this.#cannotLand(waiting, nowMs),
    )) {
      events.publish({ type: 'gave-up', operation: job.task.op });
      job.reject(new Failure('gave-up', 'no server did it in time'));
    }
    this.#forgetSuspects();
    this.#pump();
  }

  /** Rule G4: a write is answered, error or not, only when no transmission of it can still land. */
  #cannotLand(job: Job, nowMs: number): boolean {
    return job.hazards.every((hazard) => isOver(hazard, nowMs, landingMarginMs));
  }

  #forgetSuspects(): void {
    for (const suspect of this.#suspects) if (!this.#isFeared(suspect)) this.#suspects.delete(suspect);
  }
}
