/**
 * The connections to one server. HTTP/1.1 answers in order, so that a slow request holds back all behind it: requests
 * take lanes by their class. A server that does not keep connections (the old one serves a single connection at a time, and an
 * idle one blocks it for everybody) gets one connection, for one request, at a time.
 *
 *     one-at-a-time ──(answer in HTTP/1.1, connection kept)──> lanes ──(first answer on a connection ends it)──> one-at-a-time
 *
 * Promise: at most six connections that take requests, more than one only to a server that keeps them; no connection is used
 * that the server may be about to close.
 */
import type { Clock, Timer } from '../base/clock.js';
import { Failure } from '../base/failure.js';
import { Connection, type ConnectionOwner, type Dial, type Exchange, type LaneName } from './connection.js';

interface Lane {
  readonly connections: Connection[];
  readonly connectionsMax: number;
}

/** A further connection of a lane is made when each one has more than this to move. */
const spreadBytes = 16 * 1024;
/** How often idle connections are looked at. */
const sweepIntervalMs = 1000;

type Mode =
  | { readonly at: 'one-at-a-time'; running: Connection | undefined; readonly queue: Exchange[] }
  | { readonly at: 'lanes' }
  /** Another server has taken its place: what is on the way may come to its end. */
  | { readonly at: 'over' };

export class Lanes implements ConnectionOwner {
  readonly #dial: Dial;
  readonly #clock: Clock;
  readonly #lanes: Readonly<Record<LaneName, Lane>> = {
    'small-reads': { connections: [], connectionsMax: 2 },
    'large-reads': { connections: [], connectionsMax: 1 },
    writes: { connections: [], connectionsMax: 2 },
    slow: { connections: [], connectionsMax: 1 },
  };
  /** Those that take no more requests and have not closed. */
  readonly #retiring = new Set<Connection>();
  #mode: Mode = { at: 'one-at-a-time', running: undefined, queue: [] };
  #sweep: Timer | undefined = undefined;

  constructor(dial: Dial, clock: Clock) {
    this.#dial = dial;
    this.#clock = clock;
  }

  send(exchange: Exchange): void {
    const mode = this.#mode;
    switch (mode.at) {
      case 'lanes':
        this.#pick(this.#lanes[exchange.lane]).send(exchange);
        return;
      case 'one-at-a-time':
        mode.queue.push(exchange);
        this.#runNext();
        return;
      case 'over':
        exchange.fail(new Failure('connection-lost', 'the server has moved'), true);
        return;
    }
  }

  /** Takes over a connection on which a probe was answered: what that told of the server holds from now on. */
  adopt(connection: Connection): void {
    connection.owner = this;
    if (!connection.isPersistent) {
      this.#enterOneAtATime(undefined);
      return;
    }
    this.#enterLanes();
    const lane = this.#lanes['small-reads'];
    if (lane.connections.length === 0 && connection.isUsable(this.#clock.nowMs())) {
      lane.connections.push(connection);
      this.#armSweep();
    } else this.#retire(connection);
  }

  /** Takes no more requests. What is queued has not been sent; what has been sent may come to its end. */
  finish(): void {
    const mode = this.#mode;
    this.#mode = { at: 'over' };
    this.#retireAll(undefined);
    if (mode.at !== 'one-at-a-time') return;
    if (mode.running !== undefined) this.#retire(mode.running);
    for (const exchange of mode.queue.splice(0)) this.send(exchange);
  }

  /** Closes every connection now; all exchanges end with `failure`. It can be used again at once. */
  abandon(failure: Failure): void {
    const mode = this.#mode;
    const connections = [...this.#retiring, ...Object.values(this.#lanes).flatMap((lane) => lane.connections)];
    if (mode.at === 'one-at-a-time' && mode.running !== undefined) connections.push(mode.running);
    const queue = mode.at === 'one-at-a-time' ? mode.queue.splice(0) : [];
    if (mode.at !== 'over') this.#mode = { at: 'one-at-a-time', running: undefined, queue: [] };
    for (const connection of connections) connection.destroy(failure);
    for (const exchange of queue) exchange.fail(failure, false);
    this.#sweep?.cancel();
    this.#sweep = undefined;
  }

  answered(connection: Connection): void {
    if (this.#mode.at === 'one-at-a-time' && connection.isPersistent) {
      if (this.#mode.running !== connection) return;
      this.#lanes['small-reads'].connections.push(connection);
      this.#enterLanes();
    } else if (this.#mode.at === 'lanes' && !connection.isPersistent) this.#enterOneAtATime(connection);
  }

  idle(_connection: Connection): void {
    this.#armSweep();
  }

  closed(connection: Connection, leftover: readonly Exchange[], dialFailure: Failure | undefined): void {
    this.#retiring.delete(connection);
    for (const lane of Object.values(this.#lanes)) removeFrom(lane.connections, connection);
    const mode = this.#mode;
    if (mode.at === 'one-at-a-time' && mode.running === connection) {
      mode.running = undefined;
      // Nobody is there: each one that waits would only find the same.
      if (dialFailure !== undefined) for (const exchange of mode.queue.splice(0)) exchange.fail(dialFailure, true);
    }
    for (const exchange of leftover) this.send(exchange);
    this.#runNext();
  }

  #enterLanes(): void {
    const mode = this.#mode;
    if (mode.at !== 'one-at-a-time') return;
    this.#mode = { at: 'lanes' };
    // It belongs to a lane if it was the one that told; otherwise it ends with what is on it.
    if (mode.running !== undefined && !this.#isInLane(mode.running)) this.#retire(mode.running);
    for (const exchange of mode.queue.splice(0)) this.send(exchange);
  }

  #isInLane(connection: Connection): boolean {
    return Object.values(this.#lanes).some((lane) => lane.connections.includes(connection));
  }

  /** `last`: the connection that told it, which is about to close. */
  #enterOneAtATime(last: Connection | undefined): void {
    if (this.#mode.at !== 'lanes') return;
    this.#mode = { at: 'one-at-a-time', running: last, queue: [] };
    this.#retireAll(last);
  }

  #runNext(): void {
    const mode = this.#mode;
    if (mode.at !== 'one-at-a-time' || mode.running !== undefined) return;
    const exchange = mode.queue.shift();
    if (exchange === undefined) return;
    mode.running = new Connection(this.#dial, this.#clock, this);
    mode.running.send(exchange);
  }

  #pick(lane: Lane): Connection {
    const nowMs = this.#clock.nowMs();
    let best: Connection | undefined;
    for (const connection of lane.connections) {
      if (!connection.isUsable(nowMs)) continue;
      if (best === undefined || connection.outstandingBytes < best.outstandingBytes) best = connection;
    }
    if (best !== undefined && best.outstandingBytes <= spreadBytes) return best;
    if (lane.connections.length === lane.connectionsMax) {
      if (best !== undefined) return best;
      this.#retireUnusable(lane, nowMs);
    }
    const connection = new Connection(this.#dial, this.#clock, this);
    lane.connections.push(connection);
    return connection;
  }

  #retireUnusable(lane: Lane, nowMs: number): void {
    for (const connection of [...lane.connections]) {
      if (connection.isUsable(nowMs)) continue;
      removeFrom(lane.connections, connection);
      this.#retire(connection);
    }
  }

  #retireAll(except: Connection | undefined): void {
    for (const lane of Object.values(this.#lanes)) {
      for (const connection of lane.connections.splice(0)) if (connection !== except) this.#retire(connection);
    }
  }

  #retire(connection: Connection): void {
    this.#retiring.add(connection);
    connection.retire();
  }

  /** Closes what has been idle for too long, so that the server need not. */
  #armSweep(): void {
    this.#sweep ??= this.#clock.after(sweepIntervalMs, () => {
      this.#sweep = undefined;
      const nowMs = this.#clock.nowMs();
      let remaining = 0;
      for (const lane of Object.values(this.#lanes)) {
        this.#retireUnusable(lane, nowMs);
        remaining += lane.connections.length;
      }
      if (remaining > 0) this.#armSweep();
    });
  }
}

function removeFrom(connections: Connection[], connection: Connection): void {
  const index = connections.indexOf(connection);
  if (index >= 0) connections.splice(index, 1);
}
