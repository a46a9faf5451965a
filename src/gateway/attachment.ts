/**
 * One server instance that the gateway uses or has used. A new attachment is made each time a server is chosen; what was
 * learnt of one instance (its clock, its address, its death) never leaks into what is believed of another.
 */
import type { DiskDescription, Feature } from '../http-disk/messages.js';
import type { Backend, Probe } from './backend.js';
import { ServerClock } from './server-clock.js';

export class Attachment {
  readonly backend: Backend;
  readonly description: DiskDescription;
  /** The instance that stamps name. Undefined: a server without sessions, best effort only (rule G12). */
  readonly instance: string | undefined;
  readonly clock: ServerClock | undefined;
  /** The address that the instance publishes as its own, if that is where we are connected (rule G5). */
  readonly endpoint: string | undefined;
  /** Where it answers itself, as far as anybody knows: whoever answered there before is gone. */
  readonly place: string | undefined;
  /** It is sent one request at a time: while it serves somebody else, what we send waits, and its time runs. */
  readonly oneAtATime: boolean;
  /** The process is certainly gone: none of our transmissions to it can land any more. */
  provenGone = false;

  constructor(backend: Backend, probe: Probe) {
    const { description } = probe;
    const sessions = description.features.has('session') && description.clockMs !== undefined;
    this.backend = backend;
    this.description = description;
    this.instance = sessions ? description.instance : undefined;
    this.clock =
      sessions && description.clockMs !== undefined
        ? new ServerClock(description.clockMs, probe.receivedAtMs)
        : undefined;
    this.endpoint =
      description.endpoint !== undefined && description.endpoint === probe.endpoint ? probe.endpoint : undefined;
    // A server that publishes no address of its own (an old one) does not say either that it is elsewhere.
    this.place = description.endpoint === undefined ? probe.endpoint : this.endpoint;
    this.oneAtATime = probe.oneAtATime;
  }

  has(feature: Feature): boolean {
    return this.description.features.has(feature);
  }

  /** Two attachments to one life of one open disk: its session table keeps order between their epochs (rules S1, S2). */
  isSameInstance(other: Attachment): boolean {
    return this.instance !== undefined && this.instance === other.instance;
  }
}

/** A transmission of a write whose outcome is unknown: it may land until it is certain that it cannot (rules G4, G5). */
export interface Hazard {
  readonly attachment: Attachment;
  /** The deadline that the write carried, in the clock of the attachment's instance. */
  readonly deadlineMs: number;
}

/** Whether the transmission certainly has landed or never will. `marginMs`: the longest time between a check and the end of its write. */
export function isOver(hazard: Hazard, nowMs: number, marginMs: number): boolean {
  const { attachment, deadlineMs } = hazard;
  if (attachment.provenGone) return true;
  return attachment.clock !== undefined && attachment.clock.lowerBoundMs(nowMs) > deadlineMs + marginMs;
}
