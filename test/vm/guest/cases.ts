/**
 * Cases that run inside the virtual machine, one after the other. A suite module calls {@link machineCase} for each when it is
 * imported by the runner, which does the rest.
 */

/** Given to each case. */
export interface CaseContext {
  /** Shown with the result outside, whether the case fails or not. */
  note(this: void, line: string): void;
  /** Runs when the case has ended, however it ended; the last one given first. */
  after(this: void, cleanUp: () => unknown): void;
}

export interface MachineCase {
  readonly name: string;
  readonly timeLimitMs: number;
  readonly run: (context: CaseContext) => Promise<void>;
}

export const machineCases: MachineCase[] = [];

/** Adds a case. `timeLimitMs` is generous by default: everything is many times slower in the machine. */
export function machineCase(name: string, run: MachineCase['run'], timeLimitMs = 300_000): void {
  machineCases.push({ name, run, timeLimitMs });
}
