/** Waiting for something, but not for ever. */
import type { Clock } from './clock.js';

/** True when `promise`, which must not reject, resolves within `limitMs` of `clock`; false when the time is over. */
export function within(clock: Clock, limitMs: number, promise: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = clock.after(limitMs, () => resolve(false));
    void promise.then(() => {
      timer.cancel();
      resolve(true);
    });
  });
}
