/**
 * Calls into the C library: the only door to the FFI library.
 * Promise: a symbol is looked up when it is first called, never at start; a symbol that this C library does not have is
 * ENOSYS; errno of an asynchronous call is the one of that call. What can block belongs in `callAsync`.
 *
 * `ssize_t` is written `intptr_t` in declarations (the FFI library does not know it), `off_t` `int64_t`.
 */
import { constants } from 'node:os';
import koffi, { type LibraryHandle } from 'koffi';
import { SystemError } from './errno.js';

/** A number, or a pointer: what is passed as an address is a Buffer or typed array, or an address as bigint. */
export type Argument = number | bigint | string | NodeJS.ArrayBufferView | null;

interface ForeignFunction {
  (...values: Argument[]): number | bigint;
  async(...values: [...Argument[], (error: Error | null, result: number | bigint) => void]): void;
}

/** The FFI library refuses more than 256 pending asynchronous calls; the rest waits here, in order. */
const pendingCallsMax = 128;
let pendingCalls = 0;
const waitingCalls: (() => void)[] = [];

let library: LibraryHandle | undefined;

/** One C function, by its declaration: `int close(int fd)`. */
export class LibcFunction {
  readonly name: string;
  readonly #declaration: string;
  #symbol: ForeignFunction | 'missing' | undefined;

  constructor(declaration: string) {
    this.#declaration = declaration;
    this.name = /(\w+)\s*\(/.exec(declaration)?.[1] ?? declaration;
  }

  /** Whether this C library has the function. */
  get exists(): boolean {
    return this.#find() !== 'missing';
  }

  /** Calls on this thread: only what cannot block. Returns the C result; -1 says: see {@link lastErrno}. */
  call(...values: Argument[]): number {
    const symbol = this.#find();
    if (symbol === 'missing') {
      koffi.errno(constants.errno.ENOSYS);
      return -1;
    }
    return Number(symbol(...values));
  }

  /** As {@link call}, and throws a {@link SystemError} for -1. */
  callOrThrow(...values: Argument[]): number {
    const result = this.call(...values);
    if (result === -1) throw new SystemError(lastErrno(), this.name);
    return result;
  }

  /** Calls on a thread of the pool, and keeps `values` alive meanwhile; rejects with a {@link SystemError} for -1. */
  callAsync(...values: Argument[]): Promise<number> {
    const symbol = this.#find();
    if (symbol === 'missing') return Promise.reject(new SystemError(constants.errno.ENOSYS, this.name));
    return new Promise((resolve, reject) => {
      const start = () => {
        pendingCalls += 1;
        symbol.async(...values, (error, result) => {
          pendingCalls -= 1;
          // First of all: the errno of this call is only to be had before anything else is called.
          const failure = Number(result) === -1 ? new SystemError(lastErrno(), this.name) : undefined;
          waitingCalls.shift()?.();
          if (error) reject(error);
          else if (failure) reject(failure);
          else resolve(Number(result));
        });
      };
      if (pendingCalls < pendingCallsMax) start();
      else waitingCalls.push(start);
    });
  }

  #find(): ForeignFunction | 'missing' {
    this.#symbol ??= lookUp(this.#declaration);
    return this.#symbol;
  }
}

/** errno of the last {@link LibcFunction.call} of this thread. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Of memory that is used again and again: asking the FFI library costs as much as a system call. */
const addresses = new WeakMap<ArrayBufferLike, number>();

/** The address of the first byte of `view`. Valid as long as `view` is referenced from JavaScript. Addresses have at most 47 bits. */
export function addressOf(view: NodeJS.ArrayBufferView): number {
  let start = addresses.get(view.buffer);
  if (start === undefined) {
    start = Number(koffi.address(view)) - view.byteOffset;
    addresses.set(view.buffer, start);
  }
  return start + view.byteOffset;
}

/**
 * Sets the 64 bits of a C integer at `at` of `words`, in little endian: `value` is a whole number from 0 to 2^53 - 1. A big integer would be an
 * object to make each time.
 */
export function setWord64(words: Uint32Array, at: number, value: number): void {
  words[at] = value >>> 0;
  words[at + 1] = Math.floor(value / 2 ** 32);
}

function lookUp(declaration: string): ForeignFunction | 'missing' {
  try {
    library ??= koffi.load(null);
    return library.func(declaration) as ForeignFunction;
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('Cannot find function')) return 'missing';
    throw error;
  }
}
