/**
 * Notices that the disk behind a volume has grown, and makes the volume grow with it.
 * Promise: a volume never shrinks; a disk that has is told, once.
 */
import type { Clock, Timer } from '../base/clock.js';
import { asFailure } from '../base/failure.js';

/** The volume, as the gateway has it. */
export interface Growing {
  readonly sizeBytes: number;
  measure(): Promise<number | undefined>;
  grow(sizeBytes: number): void;
}

const checkPeriodMs = 5000;

export class SizeWatch {
  readonly #volume: Growing;
  readonly #clock: Clock;
  readonly #say: (line: string) => void;
  readonly #growDevice: (sizeBytes: number) => Promise<void>;
  #timer: Timer | undefined;
  #growing: Promise<void> = Promise.resolve();
  #ended = false;
  #saidBytes: number | undefined;

  /** `growDevice`: makes the kernel's device as large, if there is one and it is not yet; may reject with a `Failure`. */
  constructor(
    volume: Growing,
    clock: Clock,
    say: (line: string) => void,
    growDevice: (sizeBytes: number) => Promise<void>,
  ) {
    this.#volume = volume;
    this.#clock = clock;
    this.#say = say;
    this.#growDevice = growDevice;
    this.#schedule();
  }

  /** Resolves when nothing is done to the device any more. */
  end(): Promise<void> {
    this.#ended = true;
    this.#timer?.cancel();
    return this.#growing;
  }

  #schedule(): void {
    if (this.#ended) return;
    this.#timer = this.#clock.after(checkPeriodMs, () => void this.#check().then(() => this.#schedule()));
  }

  async #check(): Promise<void> {
    const volume = this.#volume;
    const measuredBytes = await volume.measure();
    if (measuredBytes === undefined || this.#ended) return;
    if (measuredBytes > volume.sizeBytes) {
      this.#say(`Device size: ${measuredBytes}.`);
      volume.grow(measuredBytes);
    } else if (measuredBytes < volume.sizeBytes) this.#refuse(measuredBytes);
    this.#growing = this.#growDevice(volume.sizeBytes).catch((error: unknown) => {
      this.#say(`The device does not grow: ${asFailure(error).message}`);
    });
    await this.#growing;
  }

  #refuse(measuredBytes: number): void {
    if (this.#saidBytes === measuredBytes) return;
    this.#saidBytes = measuredBytes;
    const { sizeBytes } = this.#volume;
    this.#say(
      `The disk has shrunk to ${measuredBytes} bytes. The device keeps its ${sizeBytes}: what lies beyond is lost.`,
    );
  }
}
