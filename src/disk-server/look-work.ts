/** Applies what changes nothing: a read or map that waits for the disk, a flush. */
import type { Failure } from '../base/failure.js';
import type { DiskAnswer } from '../http-disk/messages.js';
import type { Work } from './operation.js';

export interface LookContext {
  readonly refuse: () => Failure | undefined;
  /** Rejects with a Failure. */
  readonly run: () => Promise<void>;
  readonly answer: () => DiskAnswer;
  readonly lost: (failure: Failure) => void;
}

export class LookWork implements Work {
  readonly commit = undefined;
  readonly late = 'unavailable';
  readonly #context: LookContext;

  constructor(context: LookContext) {
    this.#context = context;
  }

  check(): Failure | undefined {
    return this.#context.refuse();
  }

  run(): Promise<void> {
    return this.#context.run();
  }

  expire(): void {}

  ended(): void {}

  explain(failure: Failure): Failure {
    if (failure.code === 'unavailable') this.#context.lost(failure);
    return failure;
  }

  answer(): DiskAnswer {
    return this.#context.answer();
  }
}
