/**
 * One HTTP server, as the gateway sees it: requests go in, answers come out, over whatever connections it takes.
 * Implemented over real sockets by http-client/, and over a simulated network by the tests.
 *
 * Every method rejects with a `Failure` only, and none has a time-out of its own: the gateway, which owns time, gives up
 * on a server by {@link Backend.abandon}.
 */
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
   * Both belong to the backend until the promise settles.
   * Transmission starts at once: how much is in flight is the caller's business.
   */
  send(request: Exclude<DiskRequest, { op: 'probe' }>, bytes: Buffer | null, into: Buffer | null): Promise<DiskAnswer>;

  /**
   * Connects to exactly this `ADDRESS:PORT`, around any proxy, sends nothing, and closes at once. Resolves with true only
   * if the connection was refused, which proves that no process listens there; any other outcome is false.
   */
  refuses(endpoint: string): Promise<boolean>;

  /**
   * Gives up every connection, probes included: each outstanding promise rejects with `connection-lost`, no answer of
   * theirs is delivered any more, and their buffers are not touched again. The backend can be used again at once.
   */
  abandon(): void;
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
