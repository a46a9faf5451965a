/**
 * Memory that much data is copied into: by the kernel, out of its page cache and out of sockets, and by us.
 *
 * The C library places a large block 16 bytes behind the start of a page. There a copy from the start of another page, as most of the page
 * cache's are, takes four times as long as anywhere else (`rep movsb` on AMD's Zen processors: 510 µs per MiB at 1 to 31 bytes behind it,
 * 120 µs from 32 on and at 0). So these buffers start at the next cache line.
 */
export const bulkOffset = 48;

/** A fresh buffer of `length` bytes with arbitrary content, {@link bulkOffset} bytes behind the start of its ArrayBuffer. */
export function bulkBuffer(length: number): Buffer {
  return Buffer.allocUnsafeSlow(bulkOffset + length).subarray(bulkOffset);
}
