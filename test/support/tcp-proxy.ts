/**
 * A TCP proxy on loopback that does to a connection what networks do: cut it, delay it, hold it back and deliver it later
 * (also when the sender has gone), truncate it, corrupt it. What holds for `toServer` and `toClient` holds for bytes that arrive from
 * then on.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface Rules {
  /** Nothing passes; what arrives is kept, and passes when this is undone. */
  held?: boolean;
  /** Each piece passes so much later, milliseconds. */
  delayMs?: number;
  /** After so many bytes of a connection in this direction, both sides are closed. */
  truncateAfterBytes?: number;
  /** Changes what passes. `at`: the position of the piece in the connection's bytes of this direction. */
  corrupt?: (piece: Buffer, at: number) => Buffer;
}

type Direction = 'toServer' | 'toClient';

export class TcpProxy {
  readonly port: number;
  toServer: Rules = {};
  toClient: Rules = {};
  /** Accepted so far. */
  connections = 0;
  readonly #listener: Server;
  readonly #links = new Set<Link>();
  #targetPort: number;

  private constructor(listener: Server, port: number, targetPort: number) {
    this.#listener = listener;
    this.port = port;
    this.#targetPort = targetPort;
    listener.on('connection', (client) => this.#accept(client));
  }

  /** Forwards 127.0.0.1 to `targetPort` of 127.0.0.1. */
  static async start(targetPort: number): Promise<TcpProxy> {
    const listener = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => listener.once('error', reject).listen(0, '127.0.0.1', resolve));
    const address = listener.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
    return new TcpProxy(listener, address.port, targetPort);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Open connections. */
  get open(): number {
    return this.#links.size;
  }

  /** What has arrived for the server and has not passed. */
  get heldBytes(): number {
    return [...this.#links].reduce((sum, link) => sum + link.heldBytes, 0);
  }

  /** Connections that are accepted from now on go to another port. */
  retarget(port: number): void {
    this.#targetPort = port;
  }

  /** Resets every connection; what is held is lost. */
  cut(): void {
    for (const link of [...this.#links]) link.cut();
  }

  /** Resets the client's side of every connection; what is held for the server stays, and passes when it is let go. */
  cutClients(): void {
    for (const link of [...this.#links]) link.cutClient();
  }

  /** Changes the rules, and lets pass what they do not hold back any more. */
  change(rules: { toServer?: Rules; toClient?: Rules }): void {
    this.toServer = rules.toServer ?? {};
    this.toClient = rules.toClient ?? {};
    for (const link of [...this.#links]) link.pump();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#listener.close(resolve));
    this.cut();
    await closed;
  }

  #accept(client: Socket): void {
    this.connections += 1;
    const server = connect({ host: '127.0.0.1', port: this.#targetPort, allowHalfOpen: true });
    const link = new Link(client, server, (direction) => this[direction]);
    this.#links.add(link);
    link.onClosed = () => this.#links.delete(link);
  }
}

/** One way of a connection: what has arrived and not passed. `end`: the sender has closed behind it. */
interface Way {
  readonly pieces: Buffer[];
  received: number;
  isEnded: boolean;
  isEndPassed: boolean;
}

class Link {
  onClosed: () => void = () => undefined;
  readonly #rules: (direction: Direction) => Rules;
  readonly #target: Readonly<Record<Direction, Socket>>;
  readonly #ways: Readonly<Record<Direction, Way>> = { toServer: newWay(), toClient: newWay() };
  #isCut = false;

  constructor(client: Socket, server: Socket, rules: (direction: Direction) => Rules) {
    this.#rules = rules;
    this.#target = { toServer: server, toClient: client };
    this.#listen(client, 'toServer');
    this.#listen(server, 'toClient');
  }

  #listen(source: Socket, direction: Direction): void {
    source.setNoDelay(true);
    source.on('data', (piece) => this.#arrive(direction, piece));
    const ended = (): void => this.#ended(direction);
    source.on('end', ended);
    source.on('close', ended);
    // A reset passes as a reset, except for what is held.
    source.on('error', () => {
      if (this.#rules(direction).held === true) ended();
      else this.cut();
    });
  }

  cut(): void {
    if (this.#isCut) return;
    this.#isCut = true;
    this.#target.toServer.resetAndDestroy();
    this.#target.toClient.resetAndDestroy();
    this.onClosed();
  }

  get heldBytes(): number {
    return this.#ways.toServer.pieces.reduce((sum, piece) => sum + piece.length, 0);
  }

  cutClient(): void {
    this.#target.toClient.resetAndDestroy();
  }

  #arrive(direction: Direction, piece: Buffer): void {
    const { delayMs } = this.#rules(direction);
    if (delayMs === undefined) this.#take(direction, piece);
    else setTimeout(() => this.#take(direction, piece), delayMs);
  }

  #take(direction: Direction, piece: Buffer): void {
    const { corrupt, truncateAfterBytes } = this.#rules(direction);
    const way = this.#ways[direction];
    const room = (truncateAfterBytes ?? Number.POSITIVE_INFINITY) - way.received;
    const at = way.received;
    way.received += piece.length;
    const passed = piece.subarray(0, Math.max(0, Math.min(room, piece.length)));
    way.pieces.push(corrupt === undefined ? passed : corrupt(passed, at));
    this.pump();
    if (room <= piece.length) {
      this.#target.toClient.end();
      this.#target.toServer.destroy();
    }
  }

  #ended(direction: Direction): void {
    const end = (): void => {
      this.#ways[direction].isEnded = true;
      this.pump();
    };
    const { delayMs } = this.#rules(direction);
    if (delayMs === undefined) end();
    else setTimeout(end, delayMs);
  }

  pump(): void {
    for (const direction of ['toServer', 'toClient'] as const) this.#pumpWay(direction);
    const { toServer, toClient } = this.#ways;
    if (!toServer.isEndPassed || !toClient.isEndPassed || this.#isCut) return;
    this.#isCut = true;
    this.onClosed();
  }

  #pumpWay(direction: Direction): void {
    if (this.#rules(direction).held === true || this.#isCut) return;
    const way = this.#ways[direction];
    const target = this.#target[direction];
    for (const piece of way.pieces.splice(0)) if (target.writable) target.write(piece);
    if (!way.isEnded || way.isEndPassed) return;
    way.isEndPassed = true;
    if (target.writable) target.end();
  }
}

function newWay(): Way {
  return { pieces: [], received: 0, isEnded: false, isEndPassed: false };
}
