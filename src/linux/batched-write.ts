/**
 * Many small writes to one file in one call on one thread of the pool: io_submit(2) of Linux AIO. Handing each write to a
 * thread of its own costs several times what the write into the page cache does.
 *
 * For descriptors without O_DIRECT: there io_submit does the writes itself, one after the other, before it returns, so that
 * none outlives the process or the call. Promise: every write has one result; what was not tried is said to be so.
 */
import { constants } from 'node:os';
import { assert } from '../base/assert.js';
import { addressOf, lastErrno, LibcFunction, setWord64 } from './libc.js';

/** System call numbers: the C library has no wrappers. */
interface CallNumbers {
  readonly setup: number;
  readonly destroy: number;
  readonly events: number;
  readonly submit: number;
}

const numbersOf: Readonly<Record<string, CallNumbers>> = {
  x64: { setup: 206, destroy: 207, events: 208, submit: 209 },
  arm64: { setup: 0, destroy: 1, events: 4, submit: 2 },
};

const ioSetup = new LibcFunction('long syscall(long number, long events, void* context)');
const ioDestroy = new LibcFunction('long syscall(long number, uint64_t context)');
const ioSubmit = new LibcFunction('long syscall(long number, uint64_t context, long count, void* list)');
const ioGetEvents = new LibcFunction(
  'long syscall(long number, uint64_t context, long least, long most, void* events, void* timeout)',
);

export const batchedWritesMax = 32;
/** struct iocb and struct io_event of linux/aio_abi.h, in words of 32 bits. */
const controlBlockWords = 16;
const eventWords = 8;
/** IOCB_CMD_PWRITE of linux/aio_abi.h. */
const commandWrite = 1;

export interface SmallWrite {
  readonly offset: number;
  readonly bytes: Buffer;
}

/** Bytes written, a negative errno, or that it was not tried. */
export type WriteResult = number | 'not-tried';

/** One AIO context: one batch at a time. */
export class WriteBatch {
  readonly #numbers: CallNumbers;
  readonly #context: bigint;
  readonly #blocks = new Uint32Array(controlBlockWords * batchedWritesMax);
  /** The address of each block. */
  readonly #list = new BigUint64Array(batchedWritesMax);
  readonly #events = new Int32Array(eventWords * batchedWritesMax);

  private constructor(numbers: CallNumbers, context: bigint) {
    this.#numbers = numbers;
    this.#context = context;
    const start = addressOf(this.#blocks);
    for (let index = 0; index < batchedWritesMax; index += 1) {
      this.#blocks[controlBlockWords * index] = index;
      this.#blocks[controlBlockWords * index + 4] = commandWrite;
      this.#list[index] = BigInt(start + this.#blocks.BYTES_PER_ELEMENT * controlBlockWords * index);
    }
  }

  /** Undefined: this kernel or this kind of machine has no AIO, or too much of it is in use. */
  static open(): WriteBatch | undefined {
    const numbers = numbersOf[process.arch];
    if (numbers === undefined) return undefined;
    const context = Buffer.alloc(8);
    if (ioSetup.call(numbers.setup, batchedWritesMax, context) !== 0) return undefined;
    return new WriteBatch(numbers, context.readBigUInt64LE());
  }

  close(): void {
    ioDestroy.call(this.#numbers.destroy, this.#context);
  }

  /** Writes all of them, in order. At most {@link batchedWritesMax}; the buffers must stay as they are until it resolves. */
  async write(fd: number, writes: readonly SmallWrite[]): Promise<WriteResult[]> {
    assert(writes.length > 0 && writes.length <= batchedWritesMax, 'a batch is neither empty nor too large');
    for (const [index, { offset, bytes }] of writes.entries()) this.#describe(index, fd, offset, bytes);
    const results = new Array<WriteResult>(writes.length).fill('not-tried');
    const submitted = await this.#submit(writes.length);
    let ended = this.#collect(results, submitted, 0);
    // Not with page cache writes; but whatever was submitted must end before its buffer is touched again.
    while (ended < submitted) ended += await this.#await(results, submitted - ended);
    return results;
  }

  /** struct iocb, little endian: data u64 · key u32 · rw_flags u32 · opcode u16 · prio s16 · fd u32 · buf, nbytes u64 · offset s64. */
  #describe(index: number, fd: number, offset: number, bytes: Buffer): void {
    const at = controlBlockWords * index;
    this.#blocks[at + 5] = fd;
    setWord64(this.#blocks, at + 6, addressOf(bytes));
    setWord64(this.#blocks, at + 8, bytes.length);
    setWord64(this.#blocks, at + 10, offset);
  }

  /** How many were taken: the others failed to be, and nothing of them was done. */
  async #submit(count: number): Promise<number> {
    try {
      return await ioSubmit.callAsync(this.#numbers.submit, this.#context, count, this.#list);
    } catch {
      return 0;
    }
  }

  #collect(results: WriteResult[], most: number, least: number): number {
    if (most === 0) return 0;
    const count = ioGetEvents.call(this.#numbers.events, this.#context, least, most, this.#events, null);
    if (count < 0) assert(lastErrno() === constants.errno.EINTR, 'the events of an open context can be read');
    return this.#note(results, count);
  }

  async #await(results: WriteResult[], most: number): Promise<number> {
    const { events } = this.#numbers;
    return this.#note(results, await ioGetEvents.callAsync(events, this.#context, 1, most, this.#events, null));
  }

  /** struct io_event: data u64 · obj u64 · res s64 · res2 s64. A result is a length or an errno: its lower half says it all. */
  #note(results: WriteResult[], count: number): number {
    for (let index = 0; index < count; index += 1) {
      const at = eventWords * index;
      results[this.#events[at] ?? 0] = this.#events[at + 4] ?? 0;
    }
    return Math.max(count, 0);
  }
}
