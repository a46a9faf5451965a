/**
 * A virtual machine that is a host with a disk: inside runs http-disk-server on /dev/vda, and a port of this machine leads
 * to it. Promise: when it is killed, its page cache is gone; what remains is what reached the image.
 */
import { join } from 'node:path';
import { projectRoot } from '../support/processes.js';
import { type Machine, type MachineDisk, startMachine } from '../vm/machine.js';

const timeLimitMs = 900_000;
const serverPort = 8000;
const readyPollMs = 50;

export class DiskMachine {
  readonly url: string;
  readonly #port: number;
  readonly #disk: MachineDisk;
  readonly #options: readonly string[];
  #machine: Machine | undefined;
  #failure: Error | undefined;

  /** `port`: free on 127.0.0.1. `options`: further ones for http-disk-server. */
  constructor(port: number, disk: MachineDisk, options: readonly string[] = []) {
    this.url = `http://127.0.0.1:${port}`;
    this.#port = port;
    this.#disk = disk;
    this.#options = options;
  }

  /** Resolves when the machine has begun to boot. Whoever sends requests to it waits on its own. */
  async boot(): Promise<void> {
    this.#failure = undefined;
    const machine = await startMachine({
      command: ['sh', '-c', this.#script()],
      timeLimitMs,
      onReport: () => {},
      processors: 1,
      disks: [this.#disk],
      forward: { fromPort: this.#port, toPort: serverPort },
    });
    machine.ended.catch((error: unknown) => {
      if (this.#machine === machine) this.#failure = error as Error;
    });
    this.#machine = machine;
  }

  /** Waits until the server inside has opened its disk. */
  async ready(): Promise<void> {
    while (this.#machine?.console().includes('Disk open!') !== true) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise((resolve) => setTimeout(resolve, readyPollMs));
    }
  }

  /** Power off. Resolves with the time at which it was certainly not yet off. */
  async kill(): Promise<number> {
    const atMs = performance.now();
    await this.#machine?.kill();
    this.#machine = undefined;
    return atMs;
  }

  console(): string {
    return this.#machine?.console() ?? '';
  }

  #script(): string {
    const server = [join(projectRoot, 'bin', 'http-disk-server'), '--disk', '/dev/vda', '--port', String(serverPort)];
    return [
      'modprobe -a virtio_blk virtio_net',
      'busybox ip link set eth0 up',
      'busybox ip addr add 10.0.2.15/24 dev eth0',
      `exec ${[...server, ...this.#options].map((word) => `'${word}'`).join(' ')}`,
    ].join(' && ');
  }
}
