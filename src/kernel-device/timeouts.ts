/** How long the kernel waits, derived from how long the gateway tries. docs/kernel-device.md explains the trade-off. */
import { assert } from '../base/assert.js';
import type { Timeouts } from '../linux/nbd-netlink.js';

export interface GatewayTimes {
  readonly requestTimeoutMs: number;
  readonly ioTimeoutMs: number;
  /** How long requests wait for a successor of a process that died. */
  readonly deadTimeoutMs: number;
}

/** Beyond what the gateway needs at the worst: time for a busy machine. */
const marginMs = 2000;

/**
 * The gateway answers after its I/O time-out, one request time-out and a second at the latest; the kernel must be more patient, or it gives
 * up one socket after the other of a gateway that is alive.
 */
export function kernelTimeouts({ requestTimeoutMs, ioTimeoutMs, deadTimeoutMs }: GatewayTimes): Timeouts {
  assert(requestTimeoutMs < ioTimeoutMs, 'the options were checked');
  const timeoutS = Math.ceil((ioTimeoutMs + 2 * requestTimeoutMs + marginMs) / 1000);
  return { timeoutS, deadTimeoutS: Math.ceil(deadTimeoutMs / 1000) };
}
