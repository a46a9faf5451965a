/** Every block of a disk is written again and again, each write of a block after the answer to the one before it. */
import { setTimeout as delay } from 'node:timers/promises';
import { blockBytes, readStamp, stampBlock } from './stamped-block.js';

export interface WritingClient {
  write(offset: number, bytes: Buffer): Promise<void>;
}

const lookMs = 1;
const waitMs = 60_000;

export class SteadyWrites {
  readonly #client: WritingClient;
  /** What was acknowledged last, by block. */
  readonly #values: number[];
  #isOn = false;
  #writers: Promise<void>[] = [];

  constructor(client: WritingClient, blocks: number) {
    this.#client = client;
    this.#values = new Array<number>(blocks).fill(0);
  }

  start(): void {
    this.#isOn = true;
    this.#writers = this.#values.map((_, block) => this.#write(block));
    // Whoever stops learns of a failure.
    for (const writer of this.#writers) writer.catch(() => {});
  }

  /** Stops when everything has been answered. */
  async stop(): Promise<void> {
    this.#isOn = false;
    await Promise.all(this.#writers);
  }

  /** So many more writes have been acknowledged. */
  async progress(writes: number): Promise<void> {
    const sum = () => this.#values.reduce((total, value) => total + value, 0);
    const goal = sum() + writes;
    await this.#until(() => sum() >= goal);
  }

  /** So many more writes of each block have been acknowledged. */
  async everywhere(writes: number): Promise<void> {
    const goals = this.#values.map((value) => value + writes);
    await this.#until(() => goals.every((goal, block) => (this.#values[block] ?? 0) >= goal));
  }

  /** Of a stopped load: the blocks that do not hold what was acknowledged last. */
  differences(disk: Buffer): string[] {
    return this.#values.flatMap((value, block) => {
      const found = readStamp(disk.subarray(block * blockBytes, (block + 1) * blockBytes), block);
      return found === value ? [] : [`block ${block} holds ${found}, not ${value}`];
    });
  }

  async #write(block: number): Promise<void> {
    while (this.#isOn) {
      const value = (this.#values[block] ?? 0) + 1;
      await this.#client.write(block * blockBytes, stampBlock(block, value));
      this.#values[block] = value;
    }
  }

  async #until(condition: () => boolean): Promise<void> {
    const endMs = performance.now() + waitMs;
    while (!condition()) {
      if (performance.now() > endMs) throw new Error(`the writes stand still at ${this.#values.join(', ')}`);
      await delay(lookMs);
    }
  }
}
