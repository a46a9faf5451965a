/**
 * Judges the history of one block: what clients asked for, and what they were told.
 *
 * It looks for an order of the operations that explains every answer (linearizability of a register, by the search of Wing and Gong,
 * "Testing and verifying concurrent objects", 1993, at each answer in turn, as Lowe, "Testing for linearizability", 2017):
 *
 * * A write that was answered well took effect at one moment between its beginning and its answer.
 * * A write that failed did so, too, or never: not after its answer.
 * * A read returns what was there at one moment between its beginning and its answer.
 *
 * What no answer has promised may be undone: by a crash, or by a replay of copies in write-back mode, the block goes back to what an
 * earlier write has left, but not behind the last write that was answered well. What a single gateway has not answered it shows
 * to nobody else (rule G2): then a write that will be answered well is not undone after it was read.
 */

export interface Operation {
  readonly kind: 'read' | 'write';
  readonly block: number;
  /** Written, or returned. Zero at the start; every write has a value of its own, except those of zeroes. */
  value: number;
  readonly startMs: number;
  /** Infinity: never answered. */
  endMs: number;
  outcome: 'ok' | 'failed' | 'pending';
  /** Known to be durable from this time on. */
  durableMs: number;
  readonly name: string;
  /** It was sent more than once: a write may have taken effect more than once before its answer. */
  sentAgain?: boolean;
}

export interface Circumstances {
  /** When what was not synced was lost. */
  readonly crashesMs: readonly number[];
  /** Copies may be written again, at any time. */
  readonly replays: boolean;
  /** Whether there are others who may read what a gateway has not answered. */
  readonly severalGateways: boolean;
  /** What is on the disk at the end, after a flush that succeeded and a last crash. Undefined: there was no such flush. */
  readonly remains: number | undefined;
}

/** Of one gateway that may be in write-back mode. */
const ordinary: Circumstances = { crashesMs: [], replays: true, severalGateways: false, remains: undefined };

/** What may have happened up to a moment. */
interface Situation {
  /** Those of the open operations that have taken effect, ascending. */
  readonly done: readonly number[];
  /**
   * What may be on the disk: the last one is to be seen, the others lie under it. An open write as its place in the history, what was
   * answered as -1 less its value.
   */
  readonly layers: readonly number[];
}

/** More would mean that the search is of no use; it is a fault of the simulation. */
const situationsMax = 50_000;
/** Stands for every value that nobody has read: which of them was there makes no difference. */
const unread = 2 ** 52;

/** Undefined: the block's history holds. Otherwise what is wrong with it, in one line. */
export function judgeBlock(history: readonly Operation[], circumstances = ordinary): string | undefined {
  return new Search(history, circumstances).run();
}

interface Moment {
  readonly atMs: number;
  /** What comes first at the same time: beginnings, crashes, ends. */
  readonly rank: 0 | 1 | 2;
  readonly place: number;
}

class Search {
  readonly #operations: readonly Operation[];
  readonly #circumstances: Circumstances;
  #open: number[] = [];
  #situations: Situation[] = [{ done: [], layers: [layerOf(0)] }];

  constructor(history: readonly Operation[], circumstances: Circumstances) {
    this.#circumstances = circumstances;
    const read = new Set([circumstances.remains]);
    for (const { kind, outcome, value } of history) if (kind === 'read' && outcome === 'ok') read.add(value);
    const all = history.flatMap((operation): Operation[] =>
      operation.sentAgain === true ? [operation, { ...operation, outcome: 'failed' }] : [operation],
    );
    // What failed and was never seen explains nothing.
    const relevant = all.filter(
      ({ kind, outcome, value }) => outcome === 'ok' || (kind === 'write' && read.has(value)),
    );
    this.#operations = relevant.map((operation) =>
      read.has(operation.value) ? operation : { ...operation, value: unread },
    );
  }

  run(): string | undefined {
    for (const { rank, place } of this.#moments()) {
      if (rank === 0) this.#open.push(place);
      else if (rank === 1) this.#crash();
      else {
        const fault = this.#end(place);
        if (fault !== undefined) return fault;
      }
      if (this.#situations.length > situationsMax) return 'too many orders are possible: the checker gives up';
    }
    return this.#judgeRemains();
  }

  #moments(): Moment[] {
    const moments: Moment[] = this.#circumstances.crashesMs.map((atMs) => ({ atMs, rank: 1, place: 0 }));
    for (const [place, { startMs, endMs }] of this.#operations.entries()) {
      moments.push({ atMs: startMs, rank: 0, place }, { atMs: endMs, rank: 2, place });
    }
    return moments.sort((a, b) => a.atMs - b.atMs || a.rank - b.rank);
  }

  /** Open operations may have taken effect just before: a read may have seen what is lost now. */
  #crash(): void {
    const before = this.#situations.flatMap((situation) => this.#explore(situation, () => false).all);
    this.#situations = distinct(before.flatMap((situation) => [situation, ...this.#undone(situation)]));
  }

  /** `place` is answered: what remains possible has it done, unless it failed. */
  #end(place: number): string | undefined {
    const operation = this.#operations[place];
    if (operation === undefined) return undefined;
    const isWrite = operation.kind === 'write';
    const isOk = operation.outcome === 'ok';
    const isDone = ({ done }: Situation) => done.includes(place);
    const explained = this.#situations.flatMap((situation) => this.#explore(situation, isDone).reached);
    // Where replays may undo what failed, it makes no difference whether it was never done.
    if (!isOk && !this.#circumstances.replays) explained.push(...this.#situations);
    this.#open = this.#open.filter((other) => other !== place);
    if (explained.length === 0) return this.#explain(operation);
    this.#situations = distinct(
      explained.map(({ done, layers }) => ({
        done: done.filter((other) => other !== place),
        layers: isWrite ? closed(layers, place, operation.value, isOk) : layers,
      })),
    );
    return undefined;
  }

  /** `all`: what may follow `from` by effects of open operations. `reached`: those for which `isEnough`; nothing follows them. */
  #explore(from: Situation, isEnough: (situation: Situation) => boolean): { all: Situation[]; reached: Situation[] } {
    const found = new Map<string, Situation>();
    const add = (situation: Situation) => void found.set(keyOf(situation), found.get(keyOf(situation)) ?? situation);
    const reached: Situation[] = [];
    add(this.#withReads(from));
    for (const situation of found.values()) {
      if (isEnough(situation)) {
        reached.push(situation);
        continue;
      }
      if (found.size > situationsMax) throw new RangeError('too many orders are possible');
      for (const other of this.#open) {
        if (situation.done.includes(other) || this.#operations[other]?.kind !== 'write') continue;
        const done = withPlace(situation.done, other);
        add(this.#withReads({ done, layers: this.#withLayer(situation.layers, other) }));
      }
      if (this.#circumstances.replays) for (const undone of this.#undone(situation)) add(this.#withReads(undone));
    }
    return { all: [...found.values()], reached };
  }

  /** Neighbours of the same value are put in order: which of them came first makes no difference, but would make many situations. */
  #withLayer(layers: readonly number[], place: number): readonly number[] {
    const value = this.#valueOf(place);
    let height = layers.length;
    for (; height > 0; height -= 1) {
      const below = layers[height - 1] ?? -1;
      if (below < 0 || this.#valueOf(below) !== value || this.#isBefore(below, place)) break;
    }
    return layers.toSpliced(height, 0, place);
  }

  /** What will be answered well lies under what fails. */
  #isBefore(below: number, place: number): boolean {
    const isOk = (which: number) => this.#operations[which]?.outcome === 'ok';
    return isOk(below) === isOk(place) ? below < place : isOk(below);
  }

  /** A read takes effect as soon as it can: it changes nothing. */
  #withReads({ done, layers }: Situation): Situation {
    const value = this.#valueOf(layers.at(-1));
    let all = done;
    for (const place of this.#open) {
      const operation = this.#operations[place];
      if (operation?.kind === 'read' && operation.value === value && !all.includes(place)) all = withPlace(all, place);
    }
    return { done: all, layers };
  }

  /** What is left when the uppermost layers are lost. */
  #undone({ done, layers }: Situation): Situation[] {
    const situations: Situation[] = [];
    let still = done;
    for (let height = layers.length - 1; height > 0; height -= 1) {
      const lost = layers[height];
      if (lost !== undefined && this.#open.includes(lost)) {
        if (this.#operations[lost]?.outcome === 'ok' && !this.#circumstances.severalGateways) break;
        still = still.filter((place) => place !== lost); // it may take effect again
      }
      situations.push({ done: still, layers: layers.slice(0, height) });
    }
    return situations;
  }

  #valueOf(layer = layerOf(0)): number | undefined {
    return layer < 0 ? -1 - layer : this.#operations[layer]?.value;
  }

  #judgeRemains(): string | undefined {
    const { remains } = this.#circumstances;
    if (remains === undefined) return undefined;
    const possible = this.#situations.flatMap(({ layers }) => layers.map((layer) => this.#valueOf(layer)));
    if (possible.includes(remains)) return undefined;
    return `after the last flush and crash the disk holds ${remains}, possible is ${listed(possible)}`;
  }

  #explain(operation: Operation): string {
    const { name, value } = operation;
    const unexplained = `${name} = ${value} is not explained by any order`;
    const newer = this.#newerThan(operation);
    if (newer !== undefined) return `${unexplained}: ${newer.name} had been acknowledged after it`;
    const possible = listed(this.#situations.map(({ layers }) => this.#valueOf(layers.at(-1))));
    const writes = this.#open.map((place) => this.#operations[place]?.name).join(', ');
    return `${unexplained}: ${possible} was there${writes === '' ? '' : `, then came ${writes}`}`;
  }

  /** The plain case: a write that was acknowledged before the read, and began after the write of its value was over. */
  #newerThan(read: Operation): Operation | undefined {
    const writes = this.#operations.filter(({ kind }) => kind === 'write');
    const source = writes.findLast(({ value, startMs }) => value === read.value && startMs < read.endMs);
    const sourceEndMs = source?.endMs ?? Number.NEGATIVE_INFINITY;
    return writes.find(
      ({ outcome, startMs, endMs }) => outcome === 'ok' && startMs > sourceEndMs && endMs < read.startMs,
    );
  }
}

function listed(values: readonly (number | undefined)[]): string {
  return [...new Set(values)].map((value) => (value === unread ? 'what nobody has read' : value)).join(' or ');
}

function layerOf(value: number): number {
  return -1 - value;
}

/** The write at `place` was answered. Nothing goes back behind one that was answered well. */
function closed(layers: readonly number[], place: number, value: number, isOk: boolean): readonly number[] {
  const depth = layers.lastIndexOf(place);
  if (depth < 0) return layers;
  const named = layers.with(depth, layerOf(value));
  const secured = isOk ? named.slice(depth) : named;
  return secured.filter((layer, index) => layer >= 0 || layer !== secured[index - 1]);
}

function withPlace(done: readonly number[], place: number): readonly number[] {
  return [...done, place].sort((a, b) => a - b);
}

function keyOf({ done, layers }: Situation): string {
  return `${done.join()}/${layers.join()}`;
}

function distinct(situations: readonly Situation[]): Situation[] {
  return [...new Map(situations.map((situation) => [keyOf(situation), situation])).values()];
}

/**
 * Whether `value` may be what remains of the block after everybody has crashed, whatever was flushed: every durable write is there, or one
 * that is not older. Undefined: it may.
 */
export function judgeRemains(history: readonly Operation[], value: number): string | undefined {
  const writes = history.filter((operation) => operation.kind === 'write');
  const isDurable = (write: Operation) => write.durableMs < Number.POSITIVE_INFINITY;
  const explains = (sourceEndMs: number) => !writes.some((write) => isDurable(write) && write.startMs > sourceEndMs);
  if (value === 0 && explains(Number.NEGATIVE_INFINITY)) return undefined;
  if (writes.some((write) => write.value === value && explains(write.endMs))) return undefined;
  return `after the last crash the disk holds ${value}: a durable write is lost`;
}
