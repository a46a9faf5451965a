/**
 * Answers to requests, in the form that was agreed on: structured replies or simple ones.
 * Promise: each call sends one whole reply. Calls after the end of the connection only give their buffers back.
 */
import type { Errno } from '../base/failure.js';
import { errorValue } from '../nbd/errno.js';
import {
  blockStatusHeaderBytes,
  chunkHeaderBytes,
  type Descriptor,
  descriptorBytes,
  encodeBlockStatus,
  encodeErrorChunk,
  encodeNone,
  encodeOffsetDataHeader,
  encodeSimpleReply,
  errorChunkBytes,
  offsetDataHeaderBytes,
  simpleReplyBytes,
} from '../nbd/reply.js';
import type { Request } from '../nbd/request.js';
import type { ReplyWriter } from './reply-writer.js';

const messageBytesMax = 512;

export class Replies {
  readonly #writer: ReplyWriter;
  readonly #structured: boolean;

  constructor(writer: ReplyWriter, structured: boolean) {
    this.#writer = writer;
    this.#structured = structured;
  }

  success(request: Request): void {
    if (this.#structured) {
      const at = this.#writer.room(chunkHeaderBytes);
      encodeNone(this.#writer.batch, at, request);
    } else {
      this.#simple(request, 0);
    }
  }

  /** The answer to a READ of at least one byte. `data` goes back to the pool. */
  data(request: Request, data: Buffer): void {
    if (this.#structured) {
      const at = this.#writer.room(offsetDataHeaderBytes);
      encodeOffsetDataHeader(this.#writer.batch, at, request, request.offset, data.length);
    } else {
      this.#simple(request, 0);
    }
    this.#writer.data(data);
  }

  /** The answer to a BLOCK_STATUS, which needs structured replies. */
  blockStatus(request: Request, descriptors: readonly Descriptor[]): void {
    const at = this.#writer.room(blockStatusHeaderBytes + descriptorBytes * descriptors.length);
    encodeBlockStatus(this.#writer.batch, at, request, descriptors);
  }

  /** `text` is for a human being, and cut if it is long; simple replies have no place for it. */
  failure(request: Request, errno: Errno, text: string): void {
    if (this.#structured) {
      const message = shortened(text);
      const at = this.#writer.room(errorChunkBytes(message));
      encodeErrorChunk(this.#writer.batch, at, request, errorValue[errno], message);
    } else {
      this.#simple(request, errorValue[errno]);
    }
  }

  #simple(request: Request, error: number): void {
    const at = this.#writer.room(simpleReplyBytes);
    encodeSimpleReply(this.#writer.batch, at, request, error);
  }
}

/** At most `messageBytesMax` bytes of UTF-8, whole characters. */
function shortened(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length <= messageBytesMax) return bytes;
  let end = messageBytesMax;
  while (isContinuation(bytes.readUInt8(end))) end -= 1;
  return bytes.subarray(0, end);
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}
