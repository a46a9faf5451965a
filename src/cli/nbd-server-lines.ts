/** What nbd-server writes to its log about the gateway's events. */
import type { GatewayEvent } from '../gateway/events.js';

/** What follows on an event, besides its line. */
export function remarkOn(event: GatewayEvent): string | undefined {
  if (event.type !== 'selected' || !event.bestEffort) return undefined;
  return `\`${event.server}\` is an old or plain server: each write goes through it at once, and one that is given up may still land.`;
}

/** The lines that other software matches (docs/nbd-server.md), and ours. */
export function lineOf(event: GatewayEvent): string {
  switch (event.type) {
    case 'trying':
      return `Trying to use server: \`${event.server}\`...`;
    case 'probe-failed':
      return `Cannot use server \`${event.server}\`: \`${event.reason}\`.`;
    case 'refused':
      return `Server \`${event.server}\` refused: ${event.reason}.`;
    case 'selected':
      return `Selected server: \`${event.server}\`.`;
    case 'size':
      return `Device size: ${event.sizeBytes}.`;
    case 'lost':
      return `Got exception: \`${event.server}: ${event.reason}\`.`;
    case 'replaying':
      return `Writing ${event.writes} writes that are not durable (${event.bytes} bytes) to \`${event.server}\` again...`;
    case 'replayed':
      return `All writes that were not durable are on \`${event.server}\`.`;
    case 'commit-failed':
      return `A commit failed: \`${event.reason}\`. ${event.retainedBytes} bytes are kept until one succeeds.`;
    case 'inheritance-lost':
      return `Writes that were acknowledged before this process took over are lost: \`${event.server}\` had them and is gone.`;
    case 'gave-up':
      return `A ${event.operation} failed: no server did it in time.`;
  }
}
