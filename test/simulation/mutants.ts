/**
 * Planted bugs: one for each rule of the failover protocol at least, as a change of the compiled code. The simulation must find each, or
 * the tests that are named.
 */

export interface Mutant {
  /** The rule that it breaks, and how. */
  readonly name: string;
  /** Compiled file, relative to the folder of compiled code. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** A compiled test file that must fail, for what the simulation does not contain, or not once in 20,000 seeds. */
  readonly test?: string;
}

const core = 'src/disk-server/';
const gateway = 'src/gateway/';

export const mutants: readonly Mutant[] = [
  {
    name: 'S1 epoch not checked',
    file: `${core}session-table.js`,
    from: "if (isBelow(epoch, session.epoch))\n            return 'stale-epoch';",
    to: '',
  },
  {
    name: 'S1 epoch not checked again before the write',
    file: `${core}write-guard.js`,
    from: 'if (sessions.isStale(stamp.session, stamp.epoch))',
    to: 'if (false)',
  },
  {
    name: 'S1 instance not checked',
    file: `${core}write-guard.js`,
    from: 'if (stamp.instance !== instance)',
    to: 'if (false)',
  },
  { name: 'S1 deadline not checked', file: `${core}write-guard.js`, from: 'if (aheadMs <= 0)', to: 'if (false)' },
  {
    name: 'S2 no wait for older writes in progress',
    file: `${core}session-table.js`,
    from: 'if (session?.writing === undefined || !isBelow(session.writing.epoch, epoch))',
    to: 'if (true)',
  },
  {
    name: 'S3 sessions forgotten at once',
    file: `${core}session-table.js`,
    from: 'session.epoch = epoch;\n        return',
    to: 'session.epoch = epoch; setImmediate(() => { if (session.writing === undefined) this.#sessions.delete(name); });\n        return',
  },
  {
    name: 'S3 a session is forgotten for the sake of a new one',
    file: `${core}session-table.js`,
    from: 'if (nowMs - session.lastRequestMs <= this.#memoryMs)',
    to: 'if (false)',
  },
  {
    name: 'S4 a sync covers writes that came during it',
    file: `${core}group-commit.js`,
    from: "this.#state = { at: 'syncing', next };",
    to: "this.#state = { at: 'syncing', next: batch };",
  },
  {
    name: 'S5 a failed sync is followed by one that succeeds',
    file: `${core}group-commit.js`,
    from: "this.#state = { at: 'failed', failure };\n        this.#onFailure(failure);",
    to: "this.#state = { at: 'idle' };",
  },
  {
    name: 'S6 the listener is closed first',
    file: 'test/simulation/host.js',
    from: 'void life.server.stop()',
    to: 'for (const breaks of life.broken) breaks(); this.#life = undefined; void life.server.stop()',
  },
  {
    name: 'S7 instance of reads and commits not checked',
    file: `${core}disk-server.js`,
    from: 'if (instance === undefined || instance === life.instance)',
    to: 'if (true)',
  },
  { name: 'S8 no timer of the kernel', file: `${core}fence.js`, from: 'this.#timer.set(atMs);', to: '' },
  {
    name: 'G1 overlapping writes cross',
    file: `${gateway}write-order.js`,
    from: 'const ready = this.#wait(offset, offset + length);',
    to: 'const ready = undefined;',
  },
  {
    name: 'G2 reads do not wait for writes',
    file: `${gateway}write-order.js`,
    from: 'return this.#unanswered.size === 0 ? undefined : this.#wait(offset, offset + length);',
    to: 'return undefined;',
  },
  { name: 'G3 epoch not raised', file: `${gateway}session.js`, from: 'this.#counter += 1;', to: '' },
  {
    name: 'G4 an error is answered while the write may still land',
    file: `${gateway}pool.js`,
    from: 'waiting.giveUpAtMs <= nowMs && this.#cannotLand(waiting, nowMs)',
    to: 'waiting.giveUpAtMs <= nowMs',
  },
  {
    name: 'G5 a write goes to another server at once',
    file: `${gateway}attachment.js`,
    from: 'if (attachment.provenGone)',
    to: 'if (true)',
  },
  {
    name: 'G5 clock bound of the wrong sign',
    file: `${gateway}server-clock.js`,
    from: '(1 - rateErrorMax)',
    to: '(1 + rateErrorMax)',
  },
  {
    name: 'G5 no time for a write between its check and its end',
    file: `${gateway}pool.js`,
    from: 'const landingMarginMs = 1000;',
    to: 'const landingMarginMs = 0;',
  },
  { name: 'G5 any lost connection proves death', file: `${gateway}pool.js`, from: 'if (refused) {', to: 'if (true) {' },
  {
    name: 'G6 answers of a given-up attachment count',
    file: `${gateway}pool.js`,
    from: 'if (job.sentTo !== attachment || !this.#inFlight.delete(job))\n            return false;',
    to: 'this.#inFlight.delete(job);',
  },
  {
    name: 'G7 reads and commits name no instance',
    file: `${gateway}pool.js`,
    from: 'const instance = named ? attachment.instance : undefined;',
    to: 'const instance = undefined;',
  },
  { name: 'G8 no replay', file: `${gateway}pool.js`, from: 'if (!upToDate) {', to: 'if (false) {' },
  {
    name: 'G8 replay out of order',
    file: `${gateway}replay.js`,
    from: 'const task = tasks[next];',
    to: 'const task = tasks[tasks.length - 1 - next];',
  },
  {
    name: 'G8 a replay that was cut short counts as complete',
    file: `${gateway}pool.js`,
    from: 'this.#copiesAt = undefined;\n',
    to: 'this.#copiesAt = attachment;\n',
  },
  {
    name: 'G8 new requests during the replay',
    file: `${gateway}pool.js`,
    from: "this.#state = { at: 'preparing', attachment };",
    to: "this.#state = { at: 'preparing', attachment }; setImmediate(() => { if (this.#isPreparing(attachment)) { this.#state = { at: 'ready', attachment }; this.#pump(); this.#state = { at: 'preparing', attachment }; } });",
  },
  {
    name: 'G9 a commit drops copies acknowledged after it was sent',
    file: `${gateway}pool.js`,
    from: 'retention?.dropCommitted(job.coversUpTo)',
    to: 'retention?.dropCommitted(Infinity)',
  },
  {
    name: 'G9 copies dropped before the commit',
    file: `${gateway}pool.js`,
    from: 'job.coversUpTo = retention?.newest ?? 0;',
    to: "if (task.op === 'flush') retention?.dropCommitted(Infinity);",
  },
  {
    name: 'G10 flush answered early',
    file: `${gateway}gateway.js`,
    from: 'const commit = this.#commit();',
    to: 'void this.#commit().catch(() => {}); const commit = undefined;',
  },
  {
    name: 'G10 a flush joins a commit that was sent before it',
    file: `${gateway}gateway.js`,
    from: 'this.#commitNext ??= ',
    to: 'return this.#commitRunning; this.#commitNext ??= ',
    test: 'test/unit/gateway/gateway.test.js',
  },
  {
    name: 'G10 a failed flush drops the copies',
    file: `${gateway}gateway.js`,
    from: "await this.#pool.perform({ op: 'flush', offset: 0, length: 0 }, this.#giveUpAtMs());",
    to: "await this.#pool.perform({ op: 'flush', offset: 0, length: 0 }, this.#giveUpAtMs()).catch((error) => { this.#retention.dropCommitted(Infinity); throw error; });",
  },
  {
    name: 'G11 older copies stay under a durable write',
    file: `${gateway}retention.js`,
    from: 'const range = { offset, length };',
    to: 'return;',
  },
  {
    name: 'retained bytes beyond the budget',
    file: `${gateway}retention.js`,
    from: 'return used === 0 || used + bytes <= this.#budgetBytes;',
    to: 'return true;',
  },
  {
    name: 'a payload that was overwritten in part does not count',
    file: `${gateway}retention.js`,
    from: 'if (payload.copies === 0)\n            this.#bytes += payload.bytes.length;',
    to: 'if (payload.copies === 0) this.#bytes += copy.length;',
    test: 'test/unit/gateway/parts.test.js',
  },
  {
    name: 'a payload is not given back',
    file: `${gateway}retention.js`,
    from: 'payload.release();',
    to: '',
  },
  {
    name: 'a request whose time is over is sent',
    file: `${gateway}gateway.js`,
    from: 'if (this.#options.clock.nowMs() >= giveUpAtMs)',
    to: 'if (false)',
  },
  {
    name: 'a flush waits for a commit that does not end',
    file: `${gateway}gateway.js`,
    from: "await (waits ? this.#inTime(commit, this.#giveUpAtMs(), 'no commit in time') : commit);",
    to: 'await commit;',
  },
  {
    name: 'body length: an upload that is too short is written',
    file: `${core}connection.js`,
    from: 'if (filledBytes === buffer.length) {',
    to: 'if (true) {',
    test: 'test/property/http-disk-uploads.test.js',
  },
  {
    name: 'body length: an upload that is cut off is written',
    file: `${core}connection.js`,
    from: 'this.#halfClosed = true;',
    to: "this.#halfClosed = true; if (this.#intake.at === 'collecting') { this.#intake.upload.filledBytes = this.#intake.upload.buffer.length; this.#takeEnd(); }",
    test: 'test/property/http-disk-uploads.test.js',
  },
  {
    name: 'body length: what is too long is cut',
    file: `${core}connection.js`,
    from: 'if (bytes.length <= buffer.length - filledBytes) {',
    to: 'if (true) {',
    test: 'test/property/http-disk-uploads.test.js',
  },
  {
    name: 'a request is forgotten',
    file: `${gateway}pool.js`,
    from: 'if (job.once)\n            return job.reject(failure);',
    to: 'if (job.once)\n            return job.reject(failure);\n        if (job.failedAttempts === 2)\n            return;',
  },
  {
    name: 'T1 the predecessor is only paused',
    file: 'test/simulation/gateway-line.js',
    from: 'life.process.kill(); // rule T1',
    to: 'life.process.pause(); this.#world.after(3500, () => life.process.resume()); //',
  },
  {
    name: 'T2 a successor with the same generation',
    file: 'test/simulation/volume-file.js',
    from: 'this.generation = generation + 1;',
    to: 'this.generation = 1;',
  },
  {
    name: 'T2 a successor with a fresh session',
    file: 'test/simulation/gateway-line.js',
    from: 'new Session(name, generation)',
    to: 'new Session(`${name}-${generation}`, 1)',
  },
  {
    name: 'T3 writes of the predecessor are not waited for',
    file: `${gateway}inheritance.js`,
    from: 'return this.hazards.every((hazard) => hazard.attachment.isSameInstance(attachment) || this.#isOver(hazard, nowMs));',
    to: 'return true;',
  },
  {
    name: 'T4 a replay is not on record',
    file: `${gateway}pool.js`,
    from: "unflushed: 'nobody'",
    to: "unflushed: 'instance'",
  },
  {
    name: 'T4 unflushed writes are not on record',
    file: 'test/simulation/volume-file.js',
    from: 'unflushed,\n                };\n                this.#save();',
    to: "unflushed: 'none',\n                };\n                this.#save();",
  },
  {
    name: 'T5 no commit first',
    file: `${gateway}inheritance.js`,
    from: "return this.#unflushed.at !== 'none';",
    to: 'return false;',
  },
  {
    name: 'T6 the successor serves before the predecessor has its answers',
    file: 'test/simulation/gateway-line.js',
    from: 'const busy = life.unanswered > 0;',
    to: 'const busy = life.unanswered > 0; successor.ledger.keep(); this.#leaving = undefined; this.#candidate = undefined; this.#serve(successor); life.process.kill(); life.die(); return;',
  },
  {
    name: 'T6 the successor is not on record',
    file: 'test/simulation/gateway-line.js',
    from: 'successor.ledger.keep();',
    to: '',
  },
  {
    name: 'T5 any instance will do',
    file: `${gateway}inheritance.js`,
    from: "if (unflushed.at === 'none')\n            return undefined;",
    to: 'return undefined;',
  },
  {
    name: 'T5 an instance whose server has no disk any more is waited for',
    file: `${gateway}inheritance.js`,
    from: 'this.#unflushed.holder.endpoint === endpoint',
    to: 'false',
  },
  {
    name: 'T5 any server without a disk will do as a proof',
    file: `${gateway}inheritance.js`,
    from: 'this.#unflushed.holder.endpoint === endpoint',
    to: 'true',
  },
  {
    name: 'S1 acknowledged before it is durable',
    file: `${core}change-work.js`,
    from: 'this.commit = request.deferred ? undefined : () => context.life.commit.durable();',
    to: 'this.commit = undefined;',
  },
  {
    name: 'S5 the same instance after a failed sync',
    file: `${core}disk-keeper.js`,
    from: 'newInstance(), {',
    to: '(this.only ??= newInstance()), {',
  },
  {
    name: 'S5 what a suspended disk keeps is said to be not applied',
    file: `${core}change-work.js`,
    from: "return partly || failure.code === 'unavailable' ?",
    to: 'return partly ?',
    test: 'test/unit/disk-server/suspension.test.js',
  },
  {
    name: 'S5 what a suspended disk keeps is not answered before the limit',
    file: `${core}disk-life.js`,
    from: 'user.abandon(failure);',
    to: ';',
    test: 'test/unit/disk-server/suspension.test.js',
  },
  {
    name: 'S5 a suspended disk is opened anew before all has come back',
    file: `${core}disk-keeper.js`,
    from: 'life.idle().then(() => life.close())',
    to: 'life.close()',
    test: 'test/unit/disk-server/suspension.test.js',
  },
  {
    name: 'S5 a change that a suspended disk keeps is continued later',
    file: `${core}operation.js`,
    from: 'this.#work.expire();',
    to: '',
    test: 'test/unit/disk-server/suspension.test.js',
  },
  {
    name: 'S1 a write that the disk is still at is said to be not applied',
    file: `${core}change-work.js`,
    from: "late = 'timed-out';",
    to: "late = 'unavailable';",
    test: 'test/unit/disk-server/disk-server.test.js',
  },
  {
    name: 'G8 zeroes are not kept',
    file: `${gateway}gateway.js`,
    from: "if (outcome === 'deferred')\n                retention.keep(task, payload);",
    to: "if (outcome === 'deferred' && task.op === 'zero') ; else if (outcome === 'deferred') retention.keep(task, payload);",
  },
  {
    name: 'G5 any server that is found proves the death of the lost one',
    file: `${gateway}pool.js`,
    from: 'if (suspect.endpoint === attachment.place && !suspect',
    to: 'if (!suspect',
  },
  {
    name: 'G5 writes of a replay that was cut short are not waited for',
    file: `${gateway}pool.js`,
    from: 'await this.#untilReplaysLanded(attachment);',
    to: '',
  },
  {
    name: 'T3 servers before the last one are not on record',
    file: 'src/kernel-device/volume-record.js',
    from: 'leftAtMs: undefined }, ...before]',
    to: 'leftAtMs: undefined }]',
    test: 'test/unit/kernel-device/volume-record.test.js',
  },
  {
    name: 'T5 a flush does not wait for the predecessor',
    file: `${gateway}gateway.js`,
    from: 'if (isEmpty && !this.#pool.owesCommit)',
    to: 'if (isEmpty)',
  },
  {
    name: 'a write that failed gives its room back twice',
    file: `${gateway}retention.js`,
    from: 'this.#promisedBytes -= length + copyBytes;',
    to: 'this.#promisedBytes = Math.max(0, this.#promisedBytes - 2 * (length + copyBytes));',
  },
];
