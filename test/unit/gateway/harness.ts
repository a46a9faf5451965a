/** A gateway over two servers in whose place a test decides, under a clock that stands still. */
import { BufferPool } from '../../../src/base/buffer-pool.js';
import type { Failure } from '../../../src/base/failure.js';
import type { GatewayEvent } from '../../../src/gateway/events.js';
import { Gateway, type GatewayOptions } from '../../../src/gateway/gateway.js';
import { noLedger } from '../../../src/gateway/ledger.js';
import { Session } from '../../../src/gateway/session.js';
import { FakeClock, settled } from '../../support/fake-clock.js';
import { ScriptedBackend } from '../../support/scripted-backend.js';

export function setUp(options: Partial<GatewayOptions> = {}) {
  const clock = new FakeClock();
  const a = new ScriptedBackend('10.0.0.1', clock);
  const b = new ScriptedBackend('10.0.0.2', clock);
  const buffers = new BufferPool(1 << 20);
  const gateway = new Gateway([a, b], {
    clock,
    session: new Session('s', 1),
    ledger: noLedger,
    buffers,
    readOnly: false,
    sizeBytes: undefined,
    requestTimeoutMs: 3000,
    ioTimeoutMs: 30_000,
    writeBack: undefined,
    refusalProvesDeath: true,
    ...options,
  });
  const events: GatewayEvent[] = [];
  gateway.events.subscribe((event) => events.push(event));
  const selected = () => events.filter((event) => event.type === 'selected').map((event) => event.server);
  const write = (offset: number, length: number, fua = false) => gateway.write(offset, buffers.take(length), fua);
  return { clock, a, b, buffers, gateway, events, selected, write };
}

/** How `promise` stands after everything that could happen by itself has happened. */
export async function state(promise: Promise<unknown>): Promise<string> {
  let how = 'pending';
  promise.then(
    () => {
      how = 'done';
    },
    (error: Failure) => {
      how = error.code;
    },
  );
  await settled();
  return how;
}
