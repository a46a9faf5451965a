/**
 * Values of header fields, checked character by character before anything uses them.
 * Promise: a number is decimal digits only and at most 2^53 - 1; an id is 1 to 64 characters of [A-Za-z0-9_-].
 */

/** Header fields as received: names in lower case. */
export type ReceivedFields = Readonly<Record<string, string | undefined>>;

/** Which instance answers, and what its clock says: header lines. */
export function instanceLines({
  instance,
  clockMs,
}: {
  instance: string | undefined;
  clockMs: number | undefined;
}): string {
  const name = instance === undefined ? '' : `Disk-Instance: ${instance}\r\n`;
  return clockMs === undefined ? name : `${name}Disk-Clock: ${Math.floor(clockMs)}\r\n`;
}

const digit0 = 0x30;
const digit9 = 0x39;

/** What {@link decimal} returns for digits whose value is above 2^53 - 1. Comparisons with it come out right. */
export const overflow = Number.POSITIVE_INFINITY;

/** The number in `text[start, end)`; {@link overflow} when it is too large; undefined unless all of it is digits. */
export function decimal(text: string, start = 0, end = text.length): number | undefined {
  if (start >= end) return undefined;
  let value = 0;
  for (let index = start; index < end; index++) {
    const code = text.charCodeAt(index);
    if (!(code >= digit0 && code <= digit9)) return undefined;
    value = value * 10 + (code - digit0);
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : overflow;
}

/** The number in `text`; undefined unless it is digits only and at most 2^53 - 1. */
export function wholeNumber(text: string): number | undefined {
  const value = decimal(text);
  return value === overflow ? undefined : value;
}

const idPattern = /^[A-Za-z0-9_-]{1,64}$/;

/** Whether `text` may name a session or an instance. */
export function isId(text: string): boolean {
  return idPattern.test(text);
}

// IPv6 literals may carry a zone (fe80::1%eth0): the address is only ever handed to a connect call.
const endpointPattern = /^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z_.-]{1,15})?\]):(\d{1,5})$/;

/** Whether `text` is `ADDRESS:PORT`, or `[ADDRESS]:PORT` for IPv6. */
export function isEndpoint(text: string): boolean {
  const port = endpointPattern.exec(text)?.[1];
  return port !== undefined && Number(port) >= 1 && Number(port) <= 65_535;
}

/** The members of a comma-separated list, without blanks around them. */
export function listMembers(text: string): string[] {
  return text
    .split(',')
    .map((member) => member.trim())
    .filter((member) => member !== '');
}
