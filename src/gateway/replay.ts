/**
 * Sends retained writes again (failover rule G8).
 * Promise: of two overlapping writes the older one is answered before the newer one is sent; the order of others is free.
 */
import type { Task } from './job.js';
import { WriteOrder } from './write-order.js';

type WriteTask = Extract<Task, { deferrable: boolean }>;

/**
 * Resolves with whether every task was done. After a first failure nothing more is started. `tasks`: oldest first.
 * `inFlightMax`: so many at a time.
 */
export async function replay(
  tasks: readonly WriteTask[],
  inFlightMax: number,
  perform: (task: WriteTask) => Promise<boolean>,
): Promise<boolean> {
  const order = new WriteOrder();
  let complete = true;
  let next = 0;
  const worker = async () => {
    while (complete && next < tasks.length) {
      const task = tasks[next];
      next += 1;
      if (task === undefined) return;
      const turn = order.writeTurn(task.offset, task.length);
      await turn.ready;
      if (complete && !(await perform(task))) complete = false;
      turn.done();
    }
  };
  await Promise.all(Array.from({ length: inFlightMax }, worker));
  return complete;
}
