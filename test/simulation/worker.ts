/** A thread that runs seeds, one piece of the range after the other. */
import { parentPort } from 'node:worker_threads';
import { planFor } from './plan.js';
import { runPlan } from './run.js';
import { type SavedStatistics, Statistics } from './statistics.js';

export interface Piece {
  readonly from: number;
  readonly count: number;
}

export interface PieceDone extends Piece {
  readonly events: number;
  readonly statistics: SavedStatistics;
  /** The first seed that failed; the rest of the piece was not run then. */
  readonly failure: { readonly seed: number; readonly violation: string } | undefined;
}

async function answer(piece: Piece): Promise<void> {
  parentPort?.postMessage(await runPiece(piece));
}

async function runPiece({ from, count }: Piece): Promise<PieceDone> {
  const statistics = new Statistics();
  let events = 0;
  for (let seed = from; seed < from + count; seed += 1) {
    const verdict = await runPlan(planFor(seed));
    events += verdict.events;
    statistics.add(verdict.tally);
    const { violation } = verdict;
    if (violation !== undefined)
      return { from, count, events, statistics: statistics.save(), failure: { seed, violation } };
  }
  return { from, count, events, statistics: statistics.save(), failure: undefined };
}

// A failure is no news here: where it came from is told when the seed is run again.
Error.stackTraceLimit = 0;

parentPort?.on('message', (piece: Piece) => void answer(piece));
