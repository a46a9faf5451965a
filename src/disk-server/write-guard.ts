/**
 * What a stamped write must satisfy (docs/failover.md), checked when it arrives and again immediately before it is applied.
 *
 * S1  its epoch is not below its session's, its instance is this one, and its deadline is ahead by at most Dmax
 */
import { Failure } from '../base/failure.js';
import type { WriteStamp } from '../http-disk/messages.js';
import type { SessionTable } from './session-table.js';

/** A write's arrival: raises its session's epoch. Undefined: no objection. */
export function refuseArrival(
  sessions: SessionTable,
  stamp: WriteStamp,
  instance: string,
  nowMs: number,
  deadlineAheadMaxMs: number,
): Failure | undefined {
  const admission = sessions.admit(stamp.session, stamp.epoch, nowMs);
  if (admission === 'table-full') return new Failure('unavailable', 'too many sessions');
  return refuseStart(sessions, stamp, instance, nowMs, deadlineAheadMaxMs);
}

/** S1, immediately before the write is applied. Undefined: no objection. */
export function refuseStart(
  sessions: SessionTable,
  stamp: WriteStamp,
  instance: string,
  nowMs: number,
  deadlineAheadMaxMs: number,
): Failure | undefined {
  if (sessions.isStale(stamp.session, stamp.epoch)) return new Failure('stale-epoch', 'the epoch is over');
  if (stamp.instance !== instance) return new Failure('other-instance', `this is instance ${instance}`);
  const aheadMs = stamp.deadlineMs - nowMs;
  if (aheadMs <= 0) return new Failure('deadline-passed', 'the deadline has passed');
  if (aheadMs > deadlineAheadMaxMs) return new Failure('deadline-passed', 'the deadline is too far ahead');
  return undefined;
}
