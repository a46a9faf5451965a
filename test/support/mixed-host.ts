/**
 * One host of a mixed pool: a port on which nothing, the old server (a stand-in) or our http-disk-server serves the host's disk, and which
 * may serve as the other kind next.
 */
import { OldServer } from './old-server.js';
import { type Cleanup, freePort } from './processes.js';
import { type DiskServer, startDiskServer } from './stack.js';

export type Kind = 'old' | 'ours';

type State =
  | { readonly at: 'down' }
  | { readonly at: 'old'; readonly server: OldServer }
  | { readonly at: 'ours'; readonly server: DiskServer };

export class MixedHost {
  readonly port: number;
  /** Every old server that ran here, for what it has counted. */
  readonly olds: OldServer[] = [];
  readonly #context: Cleanup;
  readonly #disk: string;
  #state: State = { at: 'down' };

  private constructor(context: Cleanup, disk: string, port: number) {
    this.#context = context;
    this.#disk = disk;
    this.port = port;
  }

  /** Nothing runs there yet. */
  static async on(t: Cleanup, disk: string): Promise<MixedHost> {
    const host = new MixedHost(t, disk, await freePort());
    t.after(() => host.stop('SIGKILL'));
    return host;
  }

  static async started(t: Cleanup, disk: string, kind: Kind): Promise<MixedHost> {
    const host = await MixedHost.on(t, disk);
    await host.start(kind);
    return host;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(kind: Kind): Promise<void> {
    if (this.#state.at !== 'down') throw new Error('something runs there');
    if (kind === 'old') {
      const server = await OldServer.start(this.#disk, this.port);
      this.olds.push(server);
      this.#state = { at: 'old', server };
    } else {
      this.#state = { at: 'ours', server: await startDiskServer(this.#context, this.#disk, [], this.port) };
    }
  }

  /** Resolves when nothing listens there any more. The old one, which is no process, is always killed. */
  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const state = this.#state;
    this.#state = { at: 'down' };
    if (state.at === 'old') await state.server.close();
    if (state.at !== 'ours') return;
    if (signal === 'SIGKILL') await state.server.program.kill();
    else await state.server.program.stop();
  }
}
