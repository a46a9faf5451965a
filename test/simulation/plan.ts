/** What happens in one run, as data: made from a seed, printed, and shrunk. */
import type { StorageKind } from './storage.js';
import { Random } from './world.js';

export interface Step {
  readonly op: 'write' | 'fua' | 'read' | 'flush' | 'zero' | 'trim';
  readonly block: number;
  readonly blocks: number;
  /** Before the step. */
  readonly pauseMs: number;
  /** The request is sent again when it has not been answered for so long. */
  readonly resendAfterMs: number | undefined;
}

export type Fault = {
  readonly atMs: number;
  readonly lastsMs: number;
  readonly host: number;
  readonly gateway: number;
  readonly what:
    | 'kill'
    | 'crash'
    | 'stop'
    | 'pause'
    | 'cut'
    | 'reset'
    | 'gateway-kill'
    | 'take-over'
    | 'sync-error'
    | 'write-error'
    | 'full';
};

export interface Plan {
  readonly seed: number;
  readonly storage: StorageKind;
  readonly hosts: number;
  readonly gateways: number;
  readonly writeBack: boolean;
  /** Write-back's budget, in blocks. */
  readonly budgetBlocks: number;
  readonly blocks: number;
  readonly ioTimeoutMs: number;
  /** How often something holds a message back for seconds. */
  readonly heldBack: number;
  readonly clockRates: readonly number[];
  /** One list of steps for each client; client n talks to gateway n modulo their number. */
  readonly clients: readonly (readonly Step[])[];
  readonly faults: readonly Fault[];
}

const writes = ['write', 'fua', 'zero', 'trim'] as const;

export function planFor(seed: number): Plan {
  const random = new Random(seed * 2 + 1);
  const storage = random.pick(['own', 'fenced', 'fenced', 'shared', 'shared'] as const);
  const writeBack = random.chance(0.6);
  const hosts = storage === 'own' ? 1 : 2;
  const gateways = !writeBack && random.chance(0.4) ? 2 : 1;
  const blocks = random.whole(gateways, 4);
  const clients = Array.from({ length: random.whole(gateways, 4) }, (_, client) =>
    Array.from({ length: random.whole(5, 25) }, () => stepFor(random, blocks, gateways, client % gateways)),
  );
  const lengthMs = Math.max(...clients.map((steps) => steps.reduce((sum, step) => sum + step.pauseMs + 20, 0)));
  const faults = Array.from({ length: random.whole(0, 6) }, () => faultFor(random, storage, hosts, gateways, lengthMs));
  return {
    seed,
    storage,
    hosts,
    gateways,
    writeBack,
    budgetBlocks: random.pick([4, 8, 1000]),
    blocks,
    ioTimeoutMs: random.pick([30_000, 30_000, 3010]),
    heldBack: random.pick([0.01, 0.01, 0.1]),
    clockRates: Array.from({ length: 4 }, () => 1 + random.between(-100e-6, 100e-6)),
    clients,
    faults: faults.sort((a, b) => a.atMs - b.atMs),
  };
}

/**
 * Several gateways write each its own blocks, and read all: a write that is tried again after another gateway's write to the same bytes
 * would undo that, as with any disk that several hosts share (docs/reliability.md).
 */
function stepFor(random: Random, blocks: number, gateways: number, gateway: number): Step {
  const op = random.pick([...writes, ...writes, 'write', 'write', 'read', 'read', 'read', 'read', 'flush'] as const);
  const isRead = op === 'read' || gateways === 1;
  const own = Array.from({ length: blocks }, (_, block) => block).filter(
    (block) => isRead || block % gateways === gateway,
  );
  const block = random.pick(own);
  return {
    op,
    block,
    blocks: isRead && random.chance(0.2) ? random.whole(1, blocks - block) : 1,
    pauseMs: random.chance(0.15) ? random.between(100, 2500) : random.between(0, 15),
    resendAfterMs: random.chance(0.1) ? random.between(100, 10_000) : undefined,
  };
}

function faultFor(random: Random, storage: StorageKind, hosts: number, gateways: number, lengthMs: number): Fault {
  const everywhere = [
    'kill',
    'kill',
    'stop',
    'pause',
    'pause',
    'cut',
    'cut',
    'reset',
    'gateway-kill',
    'gateway-kill',
    'crash',
    'crash',
    'sync-error',
    'write-error',
    'full',
  ] as const;
  return {
    atMs: random.between(0, lengthMs),
    lastsMs: random.chance(0.3) ? random.between(3000, 20_000) : random.between(1, 3000),
    host: random.whole(0, hosts - 1),
    gateway: random.whole(0, gateways - 1),
    what: storage === 'fenced' && random.chance(0.15) ? 'take-over' : random.pick(everywhere),
  };
}
