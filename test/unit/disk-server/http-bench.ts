/** The HTTP binding on a port of 127.0.0.1, over a simulated disk, in real time. */
import type { TestContext } from 'node:test';
import { systemClock } from '../../../src/base/clock.js';
import { DiskServer, type DiskServerLimits } from '../../../src/disk-server/disk-server.js';
import { noKillTimer } from '../../../src/disk-server/fence.js';
import type { FrontLimits } from '../../../src/disk-server/front.js';
import { HttpBinding } from '../../../src/disk-server/http-binding.js';
import { Gate } from '../../support/gate.js';
import { RawHttpClient } from '../../support/raw-http-client.js';
import { SimulatedMedium, type SimulatedOperation } from '../../support/simulated-disk.js';

export interface HttpBenchOptions {
  readonly medium?: SimulatedMedium;
  readonly limits?: Partial<DiskServerLimits>;
  readonly front?: Partial<FrontLimits>;
  readonly host?: string;
  readonly arrived?: () => void;
}

export class HttpBench {
  readonly medium: SimulatedMedium;
  readonly core: DiskServer;
  readonly binding: HttpBinding;
  readonly #t: TestContext;
  readonly #gates: Gate[] = [];

  private constructor(
    t: TestContext,
    { medium = new SimulatedMedium(65_536), limits = {}, front = {}, arrived = () => {} }: HttpBenchOptions,
  ) {
    this.#t = t;
    this.medium = medium;
    let instances = 0;
    const newInstance = () => `i${++instances}`;
    this.core = new DiskServer({
      ...{ clock: systemClock, openDisk: () => medium.open(), killTimer: noKillTimer, newInstance, limits },
    });
    this.binding = new HttpBinding({ core: this.core, clock: systemClock, arrived, limits: { sweepMs: 10, ...front } });
  }

  static async started(t: TestContext, options: HttpBenchOptions = {}): Promise<HttpBench> {
    const bench = new HttpBench(t, options);
    t.after(async () => {
      for (const gate of bench.#gates) gate.open();
      await bench.binding.close();
      await bench.core.stop();
    });
    await bench.core.start();
    await bench.binding.listen({ host: options.host ?? '127.0.0.1', port: 0 });
    return bench;
  }

  client(): Promise<RawHttpClient> {
    return RawHttpClient.connect(this.#t, this.binding.endpoint);
  }

  /** Holds every operation that `which` names until the gate opens, or the test is over. */
  hold(which: (operation: SimulatedOperation) => boolean): Gate {
    const gate = new Gate();
    this.#gates.push(gate);
    const before = this.medium.before;
    this.medium.before = (operation) => (which(operation) ? gate.passed : before(operation));
    return gate;
  }

  /** Resolves when `holds` does; it is looked at again and again. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A request that reads `length` bytes at `offset`; `lines`: further header lines, each with CRLF. */
export function get(offset: number, length: number, lines = ''): string {
  return `GET / HTTP/1.1\r\nHost: d\r\nRange: bytes=${offset}-${offset + length - 1}\r\n${lines}\r\n`;
}

/** The head of a request that writes there. */
export function put(offset: number, length: number, lines = `Content-Length: ${length}\r\n`): string {
  return `PUT / HTTP/1.1\r\nHost: d\r\nContent-Range: bytes ${offset}-${offset + length - 1}/*\r\n${lines}\r\n`;
}

export function chunk(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]);
}
