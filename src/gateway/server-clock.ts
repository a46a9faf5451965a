/**
 * What is known of the clock of one server instance (failover rule G5).
 * Promise: {@link ServerClock.lowerBoundMs} is never later than that clock really is, as long as the two clocks' rates differ by
 * less than {@link rateErrorMax}. Samples of different instances are never mixed: each instance has an object of its own.
 */

/** How far the rates of two clocks may differ: 1000 ppm, ten times what crystals and NTP slewing do together. */
const rateErrorMax = 1000e-6;

export class ServerClock {
  #serverMs: number;
  #receivedAtMs: number;

  /** `serverMs`: what the server's clock said in an answer that was received at `receivedAtMs` of the local clock. */
  constructor(serverMs: number, receivedAtMs: number) {
    this.#serverMs = serverMs;
    this.#receivedAtMs = receivedAtMs;
  }

  /** Takes a newer sample, if it tells more than what is known already. */
  learn(serverMs: number, receivedAtMs: number): void {
    if (serverMs < this.lowerBoundMs(receivedAtMs)) return;
    this.#serverMs = serverMs;
    this.#receivedAtMs = receivedAtMs;
  }

  /** The server's clock is certainly not earlier than this. */
  lowerBoundMs(nowMs: number): number {
    return this.#serverMs + (nowMs - this.#receivedAtMs) * (1 - rateErrorMax);
  }

  /** The best guess, for setting deadlines; too early by the time that the last sample took to arrive. */
  estimateMs(nowMs: number): number {
    return this.#serverMs + (nowMs - this.#receivedAtMs);
  }
}
