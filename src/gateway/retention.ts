/**
 * Write-back mode's memory: a copy of each write that a server has acknowledged and may not have on stable storage.
 * Promise (failover rules G8 to G11): a copy stays until a commit that was sent after its acknowledgement, under the instance that
 * holds it, has succeeded; after a change of instance all copies are replayed, oldest first, before anything new.
 * Copies are kept in the order of acknowledgement, which for overlapping writes is the order of the writes. A payload counts against the
 * budget with its whole length as long as a copy of any part of it is kept: that is what it holds.
 */
import { assert } from '../base/assert.js';
import { overlaps } from '../base/range.js';
import type { Task } from './job.js';
import type { Payload } from './payload.js';

/** What a copy without payload counts against the budget, and what each copy counts besides its payload. */
const copyBytes = 256;

interface Copy {
  readonly sequence: number;
  readonly offset: number;
  readonly length: number;
  readonly what:
    | { readonly op: 'write'; readonly payload: Payload; readonly bytes: Buffer }
    | { readonly op: 'zero'; readonly mayTrim: boolean }
    | { readonly op: 'trim' };
}

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}

/** A place in the line for room. `cancel`: the write has been given up, it needs no room any more. */
export interface RoomRequest {
  readonly admitted: Promise<void>;
  readonly cancel: () => void;
}

export class Retention {
  readonly #budgetBytes: number;
  #copies: Copy[] = [];
  #bytes = 0;
  #promisedBytes = 0;
  #lastSequence = 0;
  #waiting: Waiter[] = [];

  /** `budgetBytes`: what copies and writes on their way may hold together. A larger single write is admitted alone. */
  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  /** What is held as copies, bytes. */
  get retainedBytes(): number {
    return this.#bytes;
  }

  /** The sequence of the newest copy: a commit sent now covers everything up to it. */
  get newest(): number {
    return this.#lastSequence;
  }

  get isEmpty(): boolean {
    return this.#copies.length === 0;
  }

  /** Writes wait for room. */
  get isAwaited(): boolean {
    return this.#waiting.length > 0;
  }

  /** Half of the budget is used: time for a commit in the background. */
  get wantsCommit(): boolean {
    return this.#copies.length > 0 && (this.#bytes + this.#promisedBytes) * 2 > this.#budgetBytes;
  }

  /** Room for a write of `length` bytes that is about to be sent. Undefined: granted. First come, first served. */
  promise(length: number): RoomRequest | undefined {
    const bytes = length + copyBytes;
    if (this.#waiting.length === 0 && this.#hasRoom(bytes)) {
      this.#promisedBytes += bytes;
      return undefined;
    }
    let cancel = () => {};
    const admitted = new Promise<void>((admit) => {
      const waiter = { bytes, admit };
      this.#waiting.push(waiter);
      cancel = () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        this.#admit();
      };
    });
    return { admitted, cancel };
  }

  /** Gives back what {@link promise} granted for a write of `length` bytes. */
  settle(length: number): void {
    this.#promisedBytes -= length + copyBytes;
    assert(this.#promisedBytes >= 0, 'room is given back once');
    this.#admit();
  }

  /** A deferred write was acknowledged. Takes a hold on `payload` (writes only). */
  keep(task: Extract<Task, { deferrable: boolean }>, payload: Payload | undefined): void {
    this.#lastSequence += 1;
    const { offset, length } = task;
    this.#add({ sequence: this.#lastSequence, offset, length, what: keptForm(task, payload) });
  }

  /** Rule G11: this range is durable with newer content; older copies must never be replayed over it. */
  dropOverlapped(offset: number, length: number): void {
    const range = { offset, length };
    if (!this.#copies.some((copy) => overlaps(copy, range))) return;
    const before = this.#copies;
    this.#copies = [];
    for (const copy of before) {
      if (!overlaps(copy, range)) {
        this.#copies.push(copy);
        continue;
      }
      for (const rest of partsOutside(copy, offset, offset + length)) this.#add(rest);
      this.#release(copy);
    }
    this.#admit();
  }

  /** Rule G9: a commit that was sent when `newest` was `upTo` has succeeded. */
  dropCommitted(upTo: number): void {
    let count = 0;
    for (const copy of this.#copies) {
      if (copy.sequence > upTo) break;
      this.#release(copy);
      count += 1;
    }
    this.#copies.splice(0, count);
    this.#admit();
  }

  /** All copies as writes to send again, oldest first. Valid until anything is kept or dropped. */
  replayTasks(): Extract<Task, { deferrable: boolean }>[] {
    return this.#copies.map(({ offset, length, what }) => {
      switch (what.op) {
        case 'write':
          return { op: 'write', offset, length, bytes: what.bytes, deferrable: true };
        case 'zero':
          return { op: 'zero', offset, length, mayTrim: what.mayTrim, fast: false, deferrable: true };
        case 'trim':
          return { op: 'trim', offset, length, deferrable: true };
      }
    });
  }

  #add(copy: Copy): void {
    this.#copies.push(copy);
    this.#bytes += copyBytes;
    if (copy.what.op !== 'write') return;
    const { payload } = copy.what;
    if (payload.copies === 0) this.#bytes += payload.bytes.length;
    payload.copies += 1;
  }

  #release(copy: Copy): void {
    this.#bytes -= copyBytes;
    if (copy.what.op !== 'write') return;
    const { payload } = copy.what;
    payload.copies -= 1;
    if (payload.copies === 0) this.#bytes -= payload.bytes.length;
    payload.release();
  }

  #hasRoom(bytes: number): boolean {
    const used = this.#bytes + this.#promisedBytes;
    return used === 0 || used + bytes <= this.#budgetBytes;
  }

  #admit(): void {
    for (;;) {
      const first = this.#waiting[0];
      if (first === undefined || !this.#hasRoom(first.bytes)) return;
      this.#waiting.shift();
      this.#promisedBytes += first.bytes;
      first.admit();
    }
  }
}

function keptForm(task: Extract<Task, { deferrable: boolean }>, payload: Payload | undefined): Copy['what'] {
  switch (task.op) {
    case 'write':
      assert(payload !== undefined, 'a copy of a write has its payload');
      return { op: 'write', payload: payload.hold(), bytes: task.bytes };
    case 'zero':
      return { op: 'zero', mayTrim: task.mayTrim };
    case 'trim':
      return { op: 'trim' };
  }
}

/** What remains of a copy outside [start, end): none, one or two parts. */
function partsOutside(copy: Copy, start: number, end: number): Copy[] {
  const copyEnd = copy.offset + copy.length;
  const parts: Copy[] = [];
  if (copy.offset < start) parts.push(part(copy, copy.offset, start));
  if (copyEnd > end) parts.push(part(copy, end, copyEnd));
  return parts;
}

function part(copy: Copy, start: number, end: number): Copy {
  const { what } = copy;
  const length = end - start;
  if (what.op !== 'write') return { ...copy, offset: start, length };
  const from = start - copy.offset;
  return {
    ...copy,
    offset: start,
    length,
    what: { op: 'write', payload: what.payload.hold(), bytes: what.bytes.subarray(from, from + length) },
  };
}
