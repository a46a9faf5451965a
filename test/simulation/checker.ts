/**
 * Judges a history: what clients asked for and what they were told, block by block.
 *
 * * Linearizability of each block as a register with unique values (Gibbons and Korach, "Testing shared memories", 1997: zones of
 *   values). Lost writes, ghosts and stale reads are all violations of it.
 * * After a write that failed, its block may hold old or new bytes until it is written again: there only what a read may
 *   possibly return is checked.
 * * At the end, what is durable: every write that a flush or FUA covered is there, or a newer one is.
 */

export interface Operation {
  readonly kind: 'read' | 'write';
  readonly block: number;
  /** Written, or returned. Zero at the start; every write has a value of its own, except those of zeroes. */
  value: number;
  readonly startMs: number;
  /** Infinity: never answered (its client or its gateway died). */
  endMs: number;
  outcome: 'ok' | 'failed' | 'pending';
  /** Known to be durable from this time on. */
  durableMs: number;
  readonly name: string;
}

/** Undefined: the block's history holds. Otherwise what is wrong with it, in one line. */
export function judgeBlock(history: readonly Operation[]): string | undefined {
  const initial: Operation = {
    kind: 'write',
    block: -1,
    value: 0,
    startMs: Number.NEGATIVE_INFINITY,
    endMs: Number.NEGATIVE_INFINITY,
    outcome: 'ok',
    durableMs: Number.NEGATIVE_INFINITY,
    name: 'initial',
  };
  const writes = [initial, ...history.filter((operation) => operation.kind === 'write')];
  const reads = history.filter((operation) => operation.kind === 'read' && operation.outcome === 'ok');
  for (const read of reads) {
    // Zeroes are written again and again: one write of the value that can explain the read is enough.
    const faults = writes.filter((write) => write.value === read.value).map((source) => faultOf(read, source, writes));
    if (faults.length === 0) return `${read.name} returned ${read.value}, which nobody wrote`;
    if (faults.every((fault) => fault !== undefined)) return faults[0];
  }
  const isUnique = new Set(writes.map((write) => write.value)).size === writes.length;
  if (!isUnique || writes.some((write) => write.outcome !== 'ok')) return undefined;
  return judgeZones(writes, reads);
}

/** Why `read` cannot have returned what `source` wrote. */
function faultOf(read: Operation, source: Operation, writes: readonly Operation[]): string | undefined {
  if (source.startMs > read.endMs) return `${read.name} returned ${source.name}, which had not begun`;
  const newer = writes.find((write) => replaces(write, source) && write.endMs < read.startMs);
  if (newer === undefined) return undefined;
  return `${read.name} returned ${source.name} = ${source.value}, though ${newer.name} had been acknowledged after it`;
}

/** `newer` was acknowledged, and began when `older` was over. */
function replaces(newer: Operation, older: Operation): boolean {
  return newer.outcome === 'ok' && newer.startMs > older.endMs;
}

interface Zone {
  readonly name: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly forward: boolean;
}

function judgeZones(writes: readonly Operation[], reads: readonly Operation[]): string | undefined {
  const zones: Zone[] = [];
  for (const write of writes) {
    const cluster = [write, ...reads.filter((read) => read.value === write.value)];
    const firstEnd = Math.min(...cluster.map((operation) => operation.endMs));
    const lastStart = Math.max(...cluster.map((operation) => operation.startMs));
    const forward = firstEnd < lastStart;
    zones.push({
      name: write.name,
      fromMs: Math.min(firstEnd, lastStart),
      toMs: Math.max(firstEnd, lastStart),
      forward,
    });
  }
  for (const [index, a] of zones.entries()) {
    for (const b of zones.slice(index + 1)) {
      if (a.forward && b.forward && a.fromMs < b.toMs && b.fromMs < a.toMs)
        return `${a.name} and ${b.name} were each read after the other`;
      if (a.forward && !b.forward && a.fromMs < b.fromMs && b.toMs < a.toMs)
        return `${b.name} fell between a write and a read of ${a.name}`;
      if (b.forward && !a.forward && b.fromMs < a.fromMs && a.toMs < b.toMs)
        return `${a.name} fell between a write and a read of ${b.name}`;
    }
  }
  return undefined;
}

/** Whether `value` may be what remains of the block after everybody has crashed. Undefined: it may. */
export function judgeRemains(history: readonly Operation[], value: number): string | undefined {
  const writes = history.filter((operation) => operation.kind === 'write');
  const isDurable = (write: Operation) => write.durableMs < Number.POSITIVE_INFINITY;
  const explains = (sourceEndMs: number) => !writes.some((write) => isDurable(write) && write.startMs > sourceEndMs);
  if (value === 0 && explains(Number.NEGATIVE_INFINITY)) return undefined;
  if (writes.some((write) => write.value === value && explains(write.endMs))) return undefined;
  return `after the last crash the disk holds ${value}: a durable write is lost`;
}
