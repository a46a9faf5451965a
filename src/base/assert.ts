/**
 * Assertions: they guard against our own bugs and stay on in production.
 * Promise: nothing that a peer sends, and nothing that a disk answers, can trip one.
 */

/** An assertion that did not hold: a bug of ours, never a peer's. */
export class AssertionFailure extends Error {
  override readonly name = 'AssertionFailure';
}

/** Throws {@link AssertionFailure} with `what` unless `holds`. */
export function assert(holds: boolean, what: string): asserts holds {
  if (!holds) throw new AssertionFailure(what);
}
