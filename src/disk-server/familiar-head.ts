/**
 * Recognizes a request head that is the one before it but for what differs from request to request: the range, and the deadline in a
 * stamp. Nearly every head of a gateway is one, and comparing it costs a third of parsing it.
 * Promise: what is recognized would be parsed to the same.
 */
import { type Gap, KnownBytes } from '../base/known-bytes.js';
import type { RequestHead } from './request-head.js';

/** A longer head is not worth it. */
const headBytesMax = 1024;
/** Longer values are parsed, and judged by that. */
const valueBytesMax = 256;
const [space, tilde, carriageReturn] = [0x20, 0x7e, 0x0d];
/** The lines whose values differ. */
const differing = /^(range|content-range|disk-stamp):[ \t]*([!-~](?:[ -~]*[!-~])?)[ \t]*\r$/gim;

type Name = 'range' | 'content-range' | 'disk-stamp';

interface Value extends Gap {
  readonly name: Name;
}

export class FamiliarHead {
  /** Where what {@link match} has recognized last ends. */
  end = 0;
  #known: { readonly head: RequestHead; readonly bytes: KnownBytes<Value> } | undefined;

  /** From now on heads like `head`, which is what `bytes[start, end)` says, its empty line included, are recognized. */
  learn(head: RequestHead, bytes: Buffer, start: number, end: number): void {
    if (end - start > headBytesMax) return;
    const text = bytes.toString('latin1', start, end);
    const values = [...text.matchAll(differing)].map(({ 0: line, 1: name = '', 2: value = '', index }) => {
      const at = index + line.indexOf(value, name.length + 1);
      return { name: name.toLowerCase() as Name, start: at, end: at + value.length };
    });
    this.#known = { head, bytes: new KnownBytes(bytes.subarray(start, end), values) };
  }

  /** The head that starts at `at`; undefined: it is not a familiar one, or has not arrived completely. */
  match(bytes: Buffer, at: number): RequestHead | undefined {
    const known = this.#known;
    if (known === undefined) return undefined;
    const fields = { ...known.head.fields };
    this.end = known.bytes.match(bytes, at, bytes.length, ({ name }, place) => {
      const end = endOfValue(bytes, place);
      if (end >= 0) fields[name] = bytes.toString('latin1', place, end);
      return end;
    });
    return this.end < 0 ? undefined : { ...known.head, fields };
  }
}

/** Where the value that starts at `at` ends: at its CR, with no blank before it nor at its start; -1: it is long, no plain ASCII, or not all there. */
function endOfValue(bytes: Buffer, at: number): number {
  let end = at;
  for (let byte = bytes[at] ?? 0; byte !== carriageReturn; byte = bytes[++end] ?? 0) {
    if (byte < space || byte > tilde || end - at === valueBytesMax) return -1;
  }
  return bytes[at] === space || bytes[end - 1] === space ? -1 : end;
}
