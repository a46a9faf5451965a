/** What the kernel tells of another process (proc(5), /proc/PID/task/TID/stat). */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { DiskServer, Gateway } from './stack.js';
import { connectionsTo } from './tcp-table.js';

const lookMs = 5;
const looks = 4;
const waitMs = 10_000;

/**
 * Stops a server (SIGSTOP) while it has nothing to do, and the gateway goes on: whatever is sent from then on waits unread.
 * A server that is stopped anywhere may be stopped between the check of a write and its pwrite, which no protocol can help against
 * (docs/reliability.md).
 */
export async function stopBetweenWrites({ program, port }: DiskServer, gateway: Gateway): Promise<void> {
  gateway.program.signal('SIGSTOP');
  try {
    const deadlineMs = performance.now() + waitMs;
    for (let idle = 0; idle < looks; ) {
      if (performance.now() > deadlineMs) throw new Error(`process ${program.pid} is never idle`);
      await delay(lookMs);
      const unread = connectionsTo(port).some(({ unreadBytes }) => unreadBytes > 0);
      idle = !unread && isAsleep(program.pid) ? idle + 1 : 0;
    }
    program.signal('SIGSTOP');
  } finally {
    gateway.program.signal('SIGCONT');
  }
}

/** Whether each thread waits for something that is neither a processor nor a disk. */
function isAsleep(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('S');
  });
}
