/** Header fields as they look after a trip over the network: names in lower case. */
import type { ReceivedFields } from '../../src/http-disk/fields.js';

/** From a response's fields. */
export function receivedFields(sent: Readonly<Record<string, string>>): ReceivedFields {
  return Object.fromEntries(Object.entries(sent).map(([name, value]) => [name.toLowerCase(), value]));
}

/** From a request's header lines. */
export function receivedLines(lines: string): ReceivedFields {
  const fields: Record<string, string> = {};
  for (const line of lines.split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return fields;
}
