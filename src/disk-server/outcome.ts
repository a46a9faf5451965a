/** How a request to the disk ended. */
import type { Failure } from '../base/failure.js';
import type { DiskAnswer } from '../http-disk/messages.js';

export type Outcome = Done | Failed;

export interface Done {
  readonly at: 'done';
  readonly answer: DiskAnswer;
}

export interface Failed {
  readonly at: 'failed';
  readonly failure: Failure;
  /** For requests that name an instance: which one refused. */
  readonly answer: DiskAnswer;
  /**
   * Present when the time was over before the disk came back: the request's buffers must not be touched until this
   * resolves. It never rejects.
   */
  readonly stillRunning?: Promise<void>;
}

/** For requests that do not speak of instances. */
export const plainAnswer: DiskAnswer = { instance: undefined, clockMs: undefined };

/** Without having been tried. */
export function refused(failure: Failure, answer: DiskAnswer = plainAnswer): Failed {
  return { at: 'failed', failure, answer };
}

/** Runs `release` when the disk does not touch the buffers of the request any more. */
export function whenFree(outcome: Outcome | undefined, release: () => void): void {
  if (outcome?.at === 'failed' && outcome.stillRunning !== undefined) void outcome.stillRunning.then(release);
  else release();
}
