/** What happens in one run, as data: made from a seed, printed, and shrunk. */
import { Random } from './random.js';
import type { StorageKind } from './storage.js';

export interface Step {
  readonly op: 'write' | 'fua' | 'read' | 'flush' | 'zero' | 'trim';
  readonly block: number;
  readonly blocks: number;
  /** Before the step. */
  readonly pauseMs: number;
  /** When it has not been answered for so long, it is sent again on a new connection. */
  readonly resendAfterMs: number | undefined;
}

/** What can go wrong, and how often it does in proportion. `take-over`: see {@link faultFor}. */
const weights = {
  /** Of a server's process. */
  kill: 4,
  /** SIGTERM, with the listener closed last. */
  stop: 2,
  pause: 3,
  /** A pause that ends just before the deadline of a write which came meanwhile, and which then takes as long as it may. */
  'pause-to-deadline': 3,
  /** Of a server's host: what was not synced is gone. */
  crash: 5,
  /** Between one gateway and one host. */
  cut: 4,
  reset: 2,
  'gateway-kill': 3,
  'gateway-pause': 1,
  /** A planned change of processes. */
  'hand-over': 3,
  'sync-error': 2,
  'write-error': 1,
  'read-error': 1,
  full: 1,
  /** Reads and syncs do not come back. */
  hang: 2,
} as const;

export interface Fault {
  /** It comes so long after this step of this client has begun: most of what is of interest happens while requests are on their way. */
  readonly client: number;
  readonly step: number;
  readonly afterMs: number;
  readonly lastsMs: number;
  readonly host: number;
  readonly gateway: number;
  readonly what: keyof typeof weights | 'take-over';
}

export interface NetworkPlan {
  /** How often something holds a message back for seconds. */
  readonly heldBack: number;
  /** How often an attempt to connect is made twice. */
  readonly connectedTwice: number;
  /** How often a message to a process that is gone is kept by something in between until there is another one. */
  readonly keptForSuccessor: number;
}

export interface ServerLimits {
  readonly slots: number;
  readonly waitingMax: number;
  readonly sessionsMax: number;
  readonly operationMs: number;
}

export interface Plan {
  readonly seed: number;
  readonly storage: StorageKind;
  readonly hosts: number;
  readonly gateways: number;
  readonly writeBack: boolean;
  /** Write-back's budget, in blocks. */
  readonly budgetBlocks: number;
  readonly blocks: number;
  readonly requestTimeoutMs: number;
  readonly ioTimeoutMs: number;
  readonly network: NetworkPlan;
  readonly limits: ServerLimits;
  /** First those of the hosts, then those of the gateways: they differ by up to 200 ppm. */
  readonly clockRates: readonly number[];
  /** One list of steps for each client; client n talks to gateway n modulo their number. */
  readonly clients: readonly (readonly Step[])[];
  readonly faults: readonly Fault[];
}

const clockRateErrorMax = 100e-6;
export const hostsMax = 2;
const gatewaysMax = 3;
const writes = ['write', 'fua', 'zero', 'trim'] as const;

export function planFor(seed: number): Plan {
  const random = new Random(seed * 2 + 1);
  const storage = random.pick(['own', 'fenced', 'fenced', 'shared', 'shared'] as const);
  const writeBack = random.chance(0.6);
  const hosts = storage === 'own' ? 1 : hostsMax;
  const gateways = !writeBack && random.chance(0.5) ? random.whole(2, gatewaysMax) : 1;
  const blocks = random.whole(gateways, 4);
  const clients = Array.from({ length: random.whole(gateways, 4) }, (_, client) =>
    Array.from({ length: random.whole(5, 25) }, () => stepFor(random, blocks, gateways, client % gateways)),
  );
  const faults = Array.from({ length: random.whole(0, 6) }, () => faultFor(random, storage, hosts, gateways, clients));
  const patient = random.chance(0.1);
  const plan: Plan = {
    seed,
    storage,
    hosts,
    gateways,
    writeBack,
    budgetBlocks: random.pick([2, 4, 1000, 1000]),
    blocks,
    requestTimeoutMs: patient ? 58_000 : 3000,
    ioTimeoutMs: patient ? 130_000 : random.pick([30_000, 30_000, 3010]),
    network: {
      heldBack: random.pick([0.01, 0.01, 0.1]),
      connectedTwice: random.pick([0, 0.1, 0.5]),
      keptForSuccessor: random.pick([0, 0.5]),
    },
    limits: {
      slots: random.pick([1, 2, 16]),
      waitingMax: random.chance(0.1) ? 2 : 4096,
      sessionsMax: random.chance(0.1) ? 1 : 4096,
      operationMs: random.pick([5000, 30_000]),
    },
    clockRates: Array.from(
      { length: hostsMax + gatewaysMax },
      () => 1 + random.between(-clockRateErrorMax, clockRateErrorMax),
    ),
    clients,
    faults,
  };
  if (!patient) return plan;
  // Only after a long deadline does it make a difference how far the clocks have run apart.
  const late = faultFor(random, storage, hosts, gateways, clients);
  return { ...plan, faults: [...faults, { ...late, afterMs: 0, what: 'pause-to-deadline' }] };
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
    resendAfterMs: random.chance(0.3) ? random.between(20, 6000) : undefined,
  };
}

const kinds = Object.entries(weights).flatMap(([kind, weight]) =>
  Array.from({ length: weight }, () => kind as keyof typeof weights),
);

function faultFor(
  random: Random,
  storage: StorageKind,
  hosts: number,
  gateways: number,
  clients: Plan['clients'],
): Fault {
  const client = random.whole(0, clients.length - 1);
  return {
    client,
    step: random.whole(0, (clients[client]?.length ?? 1) - 1),
    afterMs: random.chance(0.7) ? random.between(0, 6) : random.between(0, 4000),
    lastsMs: random.pick([random.between(1, 60), random.between(60, 3000), random.between(3000, 20_000)]),
    host: random.whole(0, hosts - 1),
    gateway: random.whole(0, gateways - 1),
    what: storage === 'fenced' && random.chance(0.15) ? 'take-over' : random.pick(kinds),
  };
}
