/** How often what happened, over many runs: a simulation that never meets the interesting states proves nothing. */

interface Count {
  /** In how many runs. */
  runs: number;
  /** In all. */
  times: number;
}

export type SavedStatistics = readonly (readonly [what: string, runs: number, times: number])[];

export class Statistics {
  readonly #counts = new Map<string, Count>();

  /** Takes in one run. */
  add(tally: ReadonlyMap<string, number>): void {
    for (const [what, times] of tally) this.#count(what, 1, times);
  }

  merge(saved: SavedStatistics): void {
    for (const [what, runs, times] of saved) this.#count(what, runs, times);
  }

  save(): SavedStatistics {
    return [...this.#counts].map(([what, { runs, times }]) => [what, runs, times]);
  }

  /** A table of all that happened in `seeds` runs. */
  format(seeds: number): string {
    const lines = [...this.#counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, { runs, times }]) => {
        const perThousand = (value: number) => ((value * 1000) / seeds).toFixed(1).padStart(10);
        return `${perThousand(runs)} ${perThousand(times)}  ${what}`;
      });
    return [`of ${seeds} runs, per 1000:`, `${'runs'.padStart(10)} ${'times'.padStart(10)}`, ...lines].join('\n');
  }

  #count(what: string, runs: number, times: number): void {
    const count = this.#counts.get(what) ?? { runs: 0, times: 0 };
    count.runs += runs;
    count.times += times;
    this.#counts.set(what, count);
  }
}
