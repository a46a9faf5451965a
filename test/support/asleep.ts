/** Whether another process has come to rest. */
import { readFileSync } from 'node:fs';

/** To be asked again and again: true once the main thread of `pid` has had nothing to do for a while. */
export function asleep(pid: number): () => boolean {
  const state = () => /\) (\w) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
  let sleeping = 0;
  return () => (sleeping = state() === 'S' ? sleeping + 1 : 0) > 10;
}
