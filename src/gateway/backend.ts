/**
 * One HTTP server, as the gateway sees it: requests go in, answers come out, over whatever connections it takes.
 * Implemented over real sockets by http-client/, and over a simulated network by the tests.
 *
 * Whatever fails is a `Failure`, and no method has a time-out of its own: the gateway, which owns time, gives up
 * on a server by {@link Backend.abandon}.
 */
import type { Failure } from '../base/failure.js';
import type { DiskAnswer, DiskDescription, DiskRequest } from '../http-disk/messages.js';

export interface Backend {
  /** The server's URL without credentials: fit for logs. */
  readonly name: string;

  /**
   * HEAD, over a connection made for it: resolves the name again, tries every address, follows redirects and remembers
   * the final address for all later requests. `wrong-disk`: the server's validators are not what they were; a `NoDisk`: a server of
   * ours says at its own address that it has no disk.
   */
  probe(): Promise<Probe>;

  /**
   * Sends one request. `bytes`: a write's payload. `into`: where a read's data goes, exactly `length` bytes.
   * Both belong to the backend until `completion` has been told, which it is once, and not before this returns.
   * Transmission starts at once: how much is in flight is the caller's business.
   */
  send(
    request: Exclude<DiskRequest, { op: 'probe' }>,
    bytes: Buffer | null,
    into: Buffer | null,
    completion: Completion,
  ): void;

  /**
   * Connects to exactly this `ADDRESS:PORT`, around any proxy, sends nothing, and closes at once. Resolves with true only
   * if the connection was refused, which proves that no process listens there; any other outcome is false.
   */
  refuses(endpoint: string): Promise<boolean>;

  /**
   * Gives up every connection, probes included: each outstanding request fails with `connection-lost`, though not before this returns;
   * no answer is delivered any more, and no buffer is touched again. The backend can be used again at once.
   */
  abandon(): void;
}

/** Who is told what became of a request. Calls, not a promise: docs/performance.md has what that spares. */
export interface Completion {
  answered(answer: DiskAnswer): void;
  failed(failure: Failure): void;
}

export interface Probe {
  readonly description: DiskDescription;
  /** When the HEAD was sent and its answer received, in the gateway's clock, milliseconds. */
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
  /** `ADDRESS:PORT` that the connection went to (as `DiskDescription.endpoint` is written). Undefined through a proxy. */
  readonly endpoint: string | undefined;
  /** It closes the connection after each answer, as servers do that serve one connection at a time. */
  readonly oneAtATime: boolean;
}
