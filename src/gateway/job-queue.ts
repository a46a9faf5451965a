/**
 * Jobs that wait to be sent, in the order of submission. Small and large ones wait apart, so that a sequential stream at full
 * speed does not hold up a small read. Bounded by the callers: the NBD front end limits what is in flight.
 */
import type { Job } from './job.js';

/** A job of up to this many bytes is small. */
const smallBytesMax = 64 * 1024;

export class JobQueue {
  readonly small: Job[] = [];
  readonly large: Job[] = [];

  /** Puts the job in its place by sequence; a new one goes last, one that comes back goes before younger ones. */
  add(job: Job): void {
    const line = isSmall(job) ? this.small : this.large;
    let place = line.length;
    while (place > 0 && (line[place - 1]?.sequence ?? 0) > job.sequence) place -= 1;
    line.splice(place, 0, job);
  }

  get size(): number {
    return this.small.length + this.large.length;
  }

  /** Both lines, first the one whose first job is the older: where there is only room for one job, no line may starve. */
  get byAge(): readonly [Job[], Job[]] {
    const { small, large } = this;
    const first = (line: readonly Job[]) => line[0]?.sequence ?? Number.POSITIVE_INFINITY;
    return first(large) < first(small) ? [large, small] : [small, large];
  }

  *[Symbol.iterator](): Iterator<Job> {
    yield* this.small;
    yield* this.large;
  }

  /** Removes and returns all jobs for which `leaves` is true. */
  take(leaves: (job: Job) => boolean): Job[] {
    const taken: Job[] = [];
    for (const line of [this.small, this.large]) {
      const stay = line.filter((job) => {
        if (!leaves(job)) return true;
        taken.push(job);
        return false;
      });
      line.splice(0, line.length, ...stay);
    }
    return taken;
  }
}

/** Bytes that travel with the job, in either direction. */
export function bytesOnTheWire(job: Job): number {
  return job.task.op === 'read' || job.task.op === 'write' ? job.task.length : 0;
}

export function isSmall(job: Job): boolean {
  return bytesOnTheWire(job) <= smallBytesMax;
}
