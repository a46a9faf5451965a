/** Header fields as they look after a trip over the network: names in lower case. */
import type { ReceivedFields } from '../../src/http-disk/fields.js';

/** From header lines. */
export function receivedLines(lines: string): ReceivedFields {
  const fields: Record<string, string> = {};
  for (const line of lines.split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields[lowerCase(line.slice(0, colon))] = line.slice(colon + 1).trim();
  }
  return fields;
}

/** There are few names, and the simulation asks for them all the time. */
const known = new Map<string, string>();

function lowerCase(name: string): string {
  let lower = known.get(name);
  if (lower === undefined) known.set(name, (lower = name.toLowerCase()));
  return lower;
}
