/**
 * The line logger. Other software matches these lines, and reads them from a pipe line by line as UTF-8 text.
 *
 * Promise: one call, one line, ended by a bare newline; what could break a line or a terminal is escaped; always valid
 * UTF-8. A line is written before the call returns, unless the reader is slow: a full pipe never makes the program
 * wait (the disk that it serves may be the one that the log lies on); lines then queue up to a bound, and what is
 * dropped beyond it is counted. A reader that has gone is no error.
 */
import { type LogSink, openSink } from './log-sink.js';

const queuedBytesMax = 1024 * 1024;
const lineCharactersMax = 8192;
const retryDelayMs = 20;
const newline = Buffer.from('\n');

export class Log {
  readonly #prefix: string;
  readonly #sink: LogSink;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  #droppedLines = 0;
  #retry: NodeJS.Timeout | undefined;

  /** `name` becomes the prefix `[name] ` of each line; an empty one none. */
  constructor(stream: 'stdout' | 'stderr', name: string, sink: LogSink = openSink(stream === 'stdout' ? 1 : 2)) {
    this.#prefix = name === '' ? '' : `[${name}] `;
    this.#sink = sink;
  }

  line(text: string): void {
    const bytes = Buffer.from(escapeLine(this.#prefix + text));
    if (this.#queuedBytes + bytes.length + 1 > queuedBytesMax) {
      this.#droppedLines += 1;
      return;
    }
    this.#queue.push(bytes, newline);
    this.#queuedBytes += bytes.length + 1;
    if (this.#retry === undefined) this.#drain();
  }

  /** For the end of the program: tries for at most `timeoutMs` to get rid of what is queued. */
  flush(timeoutMs = 200): void {
    const endMs = performance.now() + timeoutMs;
    this.#drain();
    while (this.#queuedBytes > 0 && performance.now() < endMs) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      this.#drain();
    }
  }

  #drain(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    while (this.#queuedBytes > 0) {
      const bytes = Buffer.concat(this.#queue, this.#queuedBytes);
      const outcome = this.#sink(bytes);
      if (outcome === 'gone') return this.#keep(Buffer.alloc(0));
      if (outcome === 'full') {
        this.#keep(bytes);
        this.#retry = setTimeout(() => this.#drain(), retryDelayMs);
        this.#retry.unref();
        return;
      }
      this.#keep(bytes.subarray(outcome));
    }
    this.#tellDropped();
  }

  #keep(rest: Buffer): void {
    this.#queue = rest.length === 0 ? [] : [rest];
    this.#queuedBytes = rest.length;
  }

  #tellDropped(): void {
    if (this.#droppedLines === 0) return;
    const count = this.#droppedLines;
    this.#droppedLines = 0;
    this.line(`${count} log lines dropped: the reader of the log is too slow.`);
  }
}

// C0 and C1 controls, DEL, and the two separators that text readers take for ends of lines.
const unsafeCharacters = /[\p{Cc}\p{Zl}\p{Zp}]/gu;
const shortEscapes: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** `text` as one line of valid UTF-8 without control characters, of bounded length. */
export function escapeLine(text: string): string {
  const bounded = text.length > lineCharactersMax ? `${text.slice(0, lineCharactersMax)}…` : text;
  return bounded.replace(unsafeCharacters, (character) => {
    const code = character.charCodeAt(0);
    return shortEscapes[character] ?? (code < 0x100 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`);
  });
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, '0');
}
