/**
 * What tells that a plain web server still serves the file that it served at first (RFC 9110, section 8.8).
 * A server of ours says it by its instance, and one without validators (the old server) cannot say it at all: neither is guarded.
 */
import { Failure } from '../base/failure.js';

/** A response's ETag, Last-Modified, and the size of the whole, as far as it tells them. */
export interface Validators {
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
  /** -1: not told. */
  readonly sizeBytes: number;
}

export class IdentityGuard {
  #expected: Validators | undefined = undefined;

  /** The answer to a probe. The first one is remembered. Throws `wrong-disk` if this one differs from it. */
  probed(found: Validators): void {
    if (found.etag === undefined && found.lastModified === undefined && this.#expected === undefined) return;
    this.#expected ??= found;
    this.check(found);
  }

  /** From now on there is nothing to compare: the server has an instance, or we have changed its file ourselves. */
  forget(): void {
    this.#expected = undefined;
  }

  /** The field lines that make a server refuse reads of another file. */
  get conditions(): string {
    const { etag, lastModified } = this.#expected ?? {};
    if (etag !== undefined && !etag.startsWith('W/')) return `If-Match: ${etag}\r\n`;
    return lastModified === undefined ? '' : `If-Unmodified-Since: ${lastModified}\r\n`;
  }

  /** The answer to a probe or read. Throws `wrong-disk` unless it has a validator, and all that it has are as expected. */
  check(found: Validators): void {
    const expected = this.#expected;
    if (expected === undefined) return;
    const sameTag = found.etag === undefined || found.etag === expected.etag;
    const sameTime = found.lastModified === undefined || found.lastModified === expected.lastModified;
    const sameSize = found.sizeBytes < 0 || found.sizeBytes === expected.sizeBytes;
    const hasOne = found.etag !== undefined || found.lastModified !== undefined;
    if (!sameTag || !sameTime || !sameSize || !hasOne) {
      throw new Failure('wrong-disk', 'the file behind the URL is not the one that it was');
    }
  }
}
