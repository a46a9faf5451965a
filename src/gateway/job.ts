/**
 * One operation on its way through the gateway, and how it is put to the server of the moment: as the request that the
 * server understands, as an emulation, or not at all.
 */
import { Failure } from '../base/failure.js';
import type { DiskAnswer, DiskRequest, WriteStamp } from '../http-disk/messages.js';
import type { Attachment, Hazard } from './attachment.js';

type SentRequest = Exclude<DiskRequest, { op: 'probe' }>;

/** What is asked for, as the volume's caller meant it. `bytes`: a write's payload. `into`: where a read's data goes. */
export type Task =
  | { readonly op: 'read'; readonly offset: number; readonly length: number; readonly into: Buffer }
  | {
      readonly op: 'write';
      readonly offset: number;
      readonly length: number;
      readonly bytes: Buffer;
      readonly deferrable: boolean;
    }
  | {
      readonly op: 'zero';
      readonly offset: number;
      readonly length: number;
      readonly mayTrim: boolean;
      readonly fast: boolean;
      readonly deferrable: boolean;
    }
  | { readonly op: 'trim'; readonly offset: number; readonly length: number; readonly deferrable: boolean }
  | { readonly op: 'flush'; readonly offset: 0; readonly length: 0 }
  | { readonly op: 'map'; readonly offset: number; readonly length: number };

/** The outcome of a task that succeeded. */
export interface Done {
  readonly answer: DiskAnswer;
  /**
   * `deferred`: the write is acknowledged but not yet durable, a copy must be kept. `skipped`: nothing was sent, the server has no such
   * operation and needs none.
   */
  readonly outcome: 'durable' | 'deferred' | 'skipped';
  readonly attachment: Attachment;
}

export interface Job {
  readonly task: Task;
  /** One attempt only: a write of a replay, which the replay itself tries again, in order. */
  readonly once: boolean;
  /** In the order of submission. */
  readonly sequence: number;
  /** When the client gets an error, in the gateway's clock. */
  readonly giveUpAtMs: number;
  /** The attachment that the job is in flight to. Null: it waits. */
  sentTo: Attachment | null;
  sentAtMs: number;
  /** In the server's clock; only of a stamped write in flight. */
  deadlineMs: number;
  deferred: boolean;
  failedAttempts: number;
  /** Not sent before this, in the gateway's clock: slows down what fails again and again. */
  notBeforeMs: number;
  /** Earlier transmissions that may still land. */
  hazards: readonly Hazard[];
  /** Flush: what it covers, noted when it is sent (rule G9). */
  coversUpTo: number;
  readonly resolve: (done: Done) => void;
  readonly reject: (failure: Failure) => void;
}

export function isWrite(task: Task): task is Extract<Task, { deferrable: boolean }> {
  return task.op === 'write' || task.op === 'zero' || task.op === 'trim';
}

export type Plan =
  | {
      readonly kind: 'send';
      readonly request: SentRequest;
      readonly bytes: Buffer | null;
      readonly into: Buffer | null;
    }
  | { readonly kind: 'answer'; readonly answer: DiskAnswer }
  | { readonly kind: 'fail'; readonly failure: Failure };

/** Zeroes for servers that cannot zero: one shared buffer that is never written to, so it costs address space only. */
const zeroes = Buffer.alloc(8 * 1024 * 1024);
/** The longest `zero` task. */
export const zeroBytesMax = zeroes.length;

const nothing: DiskAnswer = { instance: undefined, clockMs: undefined };

/** How `task` is put to this server. `stamp`: undefined for a server without sessions. `instance`: reads and flushes must name it. */
export function planFor(
  task: Task,
  server: Attachment,
  stamp: WriteStamp | undefined,
  deferred: boolean,
  instance: string | undefined,
): Plan {
  const { offset, length } = task;
  switch (task.op) {
    case 'read':
      return { kind: 'send', request: { op: 'read', offset, length, instance }, bytes: null, into: task.into };
    case 'write':
      return send({ op: 'write', offset, length, deferred, stamp }, task.bytes);
    case 'zero':
      if (task.fast && !server.has('fast-zero')) return fail('the server has no fast way to zero');
      if (!server.has('zero'))
        return send({ op: 'write', offset, length, deferred, stamp }, zeroes.subarray(0, length));
      return send({ op: 'zero', offset, length, deferred, stamp, mayTrim: task.mayTrim, fast: task.fast });
    case 'trim':
      // A trim is a hint: where it cannot be told, nothing is lost by not telling it.
      if (server.description.readOnly)
        return { kind: 'fail', failure: new Failure('read-only', 'the server is read-only') };
      if (!server.has('trim')) return { kind: 'answer', answer: nothing };
      return send({ op: 'trim', offset, length, deferred, stamp });
    case 'flush':
      // Without this, a write is as durable as it will ever be when it is answered.
      if (!server.has('flush')) return { kind: 'answer', answer: nothing };
      return send({ op: 'flush', instance });
    case 'map':
      if (!server.has('map'))
        return { kind: 'answer', answer: { ...nothing, extents: [{ offset, length, kind: 'data' }] } };
      return send({ op: 'map', offset, length, instance });
  }
}

function send(request: SentRequest, bytes: Buffer | null = null): Plan {
  return { kind: 'send', request, bytes, into: null };
}

function fail(why: string): Plan {
  return { kind: 'fail', failure: new Failure('unsupported', why) };
}
