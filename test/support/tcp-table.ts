/** What the kernel knows of TCP connections on this machine (proc(5), /proc/net/tcp): also of a process that is stopped. */
import { readFileSync } from 'node:fs';

interface TcpConnection {
  readonly localPort: number;
  /** Received, and not read by the process. */
  readonly unreadBytes: number;
}

const states = { timeWait: 6, listen: 10 } as const;

/** Connections of a process that listens on `port`, its end only, until it has closed them. */
export function connectionsTo(port: number): TcpConnection[] {
  const lines = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((path) => readFileSync(path, 'utf8').split('\n').slice(1));
  return lines
    .filter((line) => line.trim() !== '')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state = '']) => ![states.timeWait, states.listen].includes(Number.parseInt(state, 16) as never))
    .map(([, local = '', , , queues = '']) => ({
      localPort: Number.parseInt(local.split(':')[1] ?? '', 16),
      unreadBytes: Number.parseInt(queues.split(':')[1] ?? '', 16),
    }))
    .filter(({ localPort }) => localPort === port);
}
