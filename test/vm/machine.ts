/**
 * A virtual machine with a real Debian kernel (QEMU without KVM), which sees this machine's own tree read-only, below a
 * writable layer in memory: every tool, Node and this checkout are there, and no image is built.
 * Promise: it ends by itself at the time limit, even if this process is killed; nothing of it is left afterwards.
 *
 * Prepared by scripts/vm-setup.sh. Needs root (virtiofsd).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { archive, directory, executable, symbolicLink } from './initramfs.js';
import { parseReport, type Report } from './report.js';

const checkout = fileURLToPath(new URL('../../..', import.meta.url));
const cache = join(checkout, '.cache', 'vm');
const memoryMiB = 1024;
const consoleBytesMax = 64 * 1024;

export interface MachineRun {
  /** Runs once per report, in order. */
  readonly onReport: (report: Report) => void;
  /** What the machine runs, and its arguments; paths are those of this machine. */
  readonly command: readonly string[];
  readonly timeLimitMs: number;
  /**
   * Default: 2. The kernel patches its own code while it boots, which two emulated processors at once do not always survive: with one
   * there is nobody to run what is half patched.
   */
  readonly processors?: number;
  /** /dev/vda and so on, after `modprobe virtio_blk`. */
  readonly disks?: readonly MachineDisk[];
  /** A port of 127.0.0.1 that leads to one of 10.0.2.15, the machine's eth0 after `modprobe virtio_net`. */
  readonly forward?: { readonly fromPort: number; readonly toPort: number };
}

/** A disk with a volatile cache: what the machine has not flushed is lost with it, as far as the machine knows. */
export interface MachineDisk {
  /** The image: a raw file. */
  readonly path: string;
  /** Other machines use it at the same time. It then bypasses this machine's page cache. */
  readonly shared: boolean;
}

export interface Machine {
  /** The exit code of the command, as {@link runInMachine} has it. Somebody has to handle its rejection. */
  readonly ended: Promise<number>;
  /** The end of the console's output so far. */
  console(): string;
  /** `kill -9` of the whole machine. Resolves when it is gone and writes to its disks no more. */
  kill(): Promise<void>;
}

/**
 * Boots, runs the command as root, and powers off. Resolves with the command's exit code.
 * Rejects, with the end of the console's output, when there is none: kernel panic, time limit, no boot.
 */
export async function runInMachine(run: MachineRun): Promise<number> {
  return (await startMachine(run)).ended;
}

/** Boots, and resolves when the machine is about to start. */
export async function startMachine(run: MachineRun): Promise<Machine> {
  if (!existsSync(join(cache, 'ready'))) throw new Error('no kernel to boot: run scripts/vm-setup.sh');
  const folder = mkdtempSync(join(tmpdir(), 'vm-'));
  const children: ChildProcess[] = [];
  const cleanUp = () => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const machine = await startIn(folder, run, children);
    return { ...machine, ended: machine.ended.finally(cleanUp) };
  } catch (error) {
    cleanUp();
    throw error;
  }
}

async function startIn(folder: string, run: MachineRun, children: ChildProcess[]): Promise<Machine> {
  writeFileSync(join(folder, 'initrd'), initialRoot(run.command));
  const reports = await listenForReports(join(folder, 'reports'), run.onReport);
  const files = spawn(virtiofsd(), [
    `--socket-path=${join(folder, 'files')}`,
    '-o',
    'source=/,sandbox=chroot,cache=always',
  ]);
  children.push(files);
  const filesLog = collect(files);
  await waitForSocket(join(folder, 'files'), files, filesLog);

  // `timeout` outlives this process if somebody kills it, and then ends the machine.
  const limitS = String(Math.ceil(run.timeLimitMs / 1000));
  const command = ['-k', '5', limitS, 'qemu-system-x86_64', ...qemuArguments(folder, run)];
  const machine = spawn('timeout', command, { detached: true });
  children.push(machine);
  const console = collect(machine);
  const closed = once(machine, 'close') as Promise<[number | null]>;
  const end = async () => {
    const [code] = await closed;
    const exitCode = await reports.finished();
    if (exitCode !== undefined) return exitCode;
    const reason =
      code === 124 || code === 137 ? `the time limit of ${limitS} s has passed` : `QEMU exited with ${code}`;
    throw new Error(`the machine ended without a result: ${reason}\n${console()}\n${filesLog()}`);
  };
  return { ended: end(), console, kill: () => killGroup(machine, closed) };
}

/** `timeout` and QEMU are a process group of their own. Both have closed their output when QEMU is gone. */
async function killGroup(machine: ChildProcess, closed: Promise<unknown>): Promise<void> {
  if (machine.pid !== undefined && machine.exitCode === null && machine.signalCode === null)
    process.kill(-machine.pid, 'SIGKILL');
  await closed;
}

function qemuArguments(folder: string, { processors = 2, disks = [], forward }: MachineRun): string[] {
  const command = [
    '-accel tcg,thread=multi -cpu Nehalem',
    `-smp ${processors} -m ${memoryMiB}`,
    '-nodefaults -display none -no-reboot -monitor none -serial stdio',
    `-device virtio-serial-pci -chardev socket,id=reports,path=${join(folder, 'reports')}`,
    '-device virtserialport,chardev=reports,name=reports',
    `-object memory-backend-memfd,id=memory,size=${memoryMiB}M,share=on -numa node,memdev=memory`,
    `-chardev socket,id=files,path=${join(folder, 'files')} -device vhost-user-fs-pci,chardev=files,tag=host`,
    ...disks.map(diskArguments),
    ...(forward === undefined ? [] : [networkArguments(forward)]),
  ];
  return [
    ...command.flatMap((words) => words.split(' ')),
    '-kernel',
    join(cache, 'vmlinuz'),
    '-initrd',
    join(folder, 'initrd'),
    '-append',
    // On a busy host the emulated timer can be too late for the kernel's check of it, which panics then; and the clock can look so
    // unstable that the kernel patches its own code for it while it runs, which an emulated processor does not always survive.
    'console=ttyS0 panic=-1 oops=panic quiet mitigations=off no_timer_check tsc=reliable',
  ];
}

/** The write cache of the device is on, however QEMU keeps the image: the kernel inside has to flush. */
function diskArguments({ path, shared }: MachineDisk, index: number): string {
  const drive = `-drive if=none,id=disk${index},format=raw,file=${path},cache=${shared ? 'none' : 'writeback'}`;
  // Two machines that have one image open are just what QEMU's lock on it is against.
  return `${drive}${shared ? ',file.locking=off' : ''} -device virtio-blk-pci,drive=disk${index},share-rw=on`;
}

function networkArguments({ fromPort, toPort }: NonNullable<MachineRun['forward']>): string {
  const forward = `hostfwd=tcp:127.0.0.1:${fromPort}-10.0.2.15:${toPort}`;
  return `-netdev user,id=network,restrict=on,${forward} -device virtio-net-pci,netdev=network,romfile=`;
}

/** Debian 12 has the one in C, part of QEMU; later ones have the one in Rust, which takes the same options. */
function virtiofsd(): string {
  const found = ['/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd'].find((path) => existsSync(path));
  if (found === undefined) throw new Error('no virtiofsd: run scripts/vm-setup.sh');
  return found;
}

function initialRoot(command: readonly string[]): Buffer {
  return archive([
    ...['bin', 'proc', 'sys', 'dev', 'host', 'layer', 'root'].map(directory),
    executable('bin/busybox', readFileSync('/usr/bin/busybox')),
    symbolicLink('bin/sh', 'busybox'),
    executable('overlay.ko', readFileSync(join(cache, 'overlay.ko'))),
    executable('init', Buffer.from(initScript(command))),
  ]);
}

function initScript(command: readonly string[]): string {
  // The machine cannot follow a link with an absolute path: its root is not this one's.
  const modules = realpathSync(join(cache, 'kernel', 'lib', 'modules'));
  const inside = [
    'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8',
    'cd /tmp',
    `${command.map(quote).join(' ')} </dev/null >/dev/console 2>&1`,
    'code=$?',
    'echo "{\\"event\\":\\"exit\\",\\"code\\":$code}" >/dev/vport0p1',
    '/usr/bin/busybox poweroff -f',
  ].join('\n');
  return [
    '#!/bin/busybox sh',
    'b=/bin/busybox',
    '$b mount -t proc proc /proc',
    '$b mount -t sysfs sys /sys',
    '$b mount -t devtmpfs dev /dev',
    '$b insmod /overlay.ko',
    '$b mount -t virtiofs -o ro host /host',
    '$b mount -t tmpfs layer /layer',
    '$b mkdir /layer/upper /layer/work',
    '$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root',
    'for kind in proc sys dev; do $b mount --bind /$kind /root/$kind; done',
    // Not /tmp: the checkout may lie there.
    'for place in run dev/shm; do $b mkdir -p /root/$place; $b mount -t tmpfs tmpfs /root/$place; done',
    // Where the kernel, `modprobe` and `mount` look for modules and mounts.
    '$b mkdir -p /root/usr/lib/modules /run/lock',
    `$b mount --bind ${quote(`/host${modules}`)} /root/usr/lib/modules`,
    '$b rm -f /root/etc/mtab && $b ln -s /proc/self/mounts /root/etc/mtab',
    '$b ip link set lo up',
    '$b hostname machine',
    `exec $b chroot /root /bin/sh -c ${quote(inside)}`,
    '',
  ].join('\n');
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

interface Reports {
  /** After the machine's end: the exit code in the last report, if there was one. */
  finished(): Promise<number | undefined>;
}

async function listenForReports(path: string, onReport: (report: Report) => void): Promise<Reports> {
  let exitCode: number | undefined;
  let ended: Promise<unknown> = Promise.resolve();
  const server = net.createServer((socket) => {
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const report = parseReport(line);
        if (report.event === 'exit') exitCode = report.code;
        onReport(report);
      }
    });
    ended = once(socket, 'close');
  });
  server.listen(path);
  await once(server, 'listening');
  return {
    async finished() {
      await ended;
      server.close();
      return exitCode;
    },
  };
}

async function waitForSocket(path: string, child: ChildProcess, log: () => string): Promise<void> {
  while (!existsSync(path)) {
    if (child.exitCode !== null) throw new Error(`virtiofsd ended with ${child.exitCode} (it needs root): ${log()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The end of what a process writes. */
function collect(child: ChildProcess): () => string {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8');
    stream?.on('data', (chunk: string) => {
      text = (text + chunk).slice(-consoleBytesMax);
    });
  }
  return () => text;
}
