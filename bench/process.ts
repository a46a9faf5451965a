/**
 * Child processes of the benchmark and what they cost. Promise: every process started here is gone after `stopAll`;
 * a process that ends early fails whoever waits for it, with what it printed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, createServer, type NetConnectOpts } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const readyMs = 10_000;
const stopMs = 5_000;
const printedBytesMax = 4_096;
/** USER_HZ: the unit of utime and stime in /proc/PID/stat. It is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

const running = new Set<ChildProcess>();

export interface Started {
  readonly pid: number;
  stop(): Promise<void>;
}

/** Starts `program` and waits until something listens at `endpoint`. */
export async function start(program: string, args: readonly string[], endpoint: NetConnectOpts): Promise<Started> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let printed = '';
  let ended = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      printed = (printed + text).slice(-printedBytesMax);
    });
  }
  child.on('error', (error) => {
    printed += error.message;
    ended = true;
  });
  child.on('exit', () => {
    running.delete(child);
    ended = true;
  });
  const deadlineMs = performance.now() + readyMs;
  while (!(await accepts(endpoint))) {
    if (ended) throw new Error(`${program} ${args.join(' ')} ended:\n${printed}`);
    if (performance.now() > deadlineMs) throw new Error(`${program} does not listen after ${readyMs} ms:\n${printed}`);
    await delay(20);
  }
  return { pid: child.pid ?? 0, stop: () => stop(child) };
}

export async function stopAll(): Promise<void> {
  await Promise.all([...running].map(stop));
}

async function stop(child: ChildProcess): Promise<void> {
  if (!running.has(child)) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), stopMs);
  await exited;
  clearTimeout(timer);
}

function accepts(endpoint: NetConnectOpts): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(endpoint);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** A TCP port of this machine that is free at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no TCP port');
  return address.port;
}

/** CPU seconds, user and system, that `pid` and its living children have used so far. */
export function cpuSeconds(pid: number): number {
  let ticks = 0;
  for (const member of family(pid)) {
    const fields = statFields(member);
    ticks += Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }
  return ticks / ticksPerSecond;
}

/** The largest resident size so far, in bytes: of `pid` and its children, added up. */
export function peakBytes(pid: number): number {
  return sum(family(pid).map((member) => statusBytes(member, 'VmHWM')));
}

/** The resident size now, in bytes. */
export function residentBytes(pid: number): number {
  return sum(family(pid).map((member) => statusBytes(member, 'VmRSS')));
}

function statusBytes(pid: number, field: string): number {
  try {
    const match = new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(match?.[1] ?? 0) * 1024;
  } catch {
    return 0; // It has ended meanwhile.
  }
}

/** `pid` and its children (nginx has workers). */
function family(pid: number): number[] {
  const members = [pid];
  for (const name of readdirSync('/proc')) {
    if (/^\d+$/.test(name) && Number(statFields(Number(name))[1]) === pid) members.push(Number(name));
  }
  return members;
}

/** The fields of /proc/PID/stat that follow the command's name: state, parent … */
function statFields(pid: number): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
