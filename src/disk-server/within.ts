/** Waiting for something, but not for ever. */
import type { Clock } from '../base/clock.js';

/** True when `promise` resolves within `limitMs` of `clock`, false when the time is over. Rejects as `promise` does. */
export function within(clock: Clock, limitMs: number, promise: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(limitMs, () => resolve(false));
    promise.then(
      () => {
        timer.cancel();
        resolve(true);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error as Error);
      },
    );
  });
}
