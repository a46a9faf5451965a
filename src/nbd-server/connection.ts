/**
 * One client: the handshake, then the transmission phase, on one socket.
 *
 *     negotiating ──GO · EXPORT_NAME──▶ transmission ──▶ closed
 *         └──ABORT · fault · time-out──────────────────────▲
 *
 * Promise: whatever the client sends or does not send, the connection costs bounded memory and bounded time until it is closed.
 */
import type { Socket } from 'node:net';
import type { BufferPool } from '../base/buffer-pool.js';
import type { Clock } from '../base/clock.js';
import type { Volume } from '../base/volume.js';
import { encodeGreeting } from '../nbd/handshake.js';
import { HandshakeReader } from '../nbd/handshake-reader.js';
import { type Agreement, type ExportOffer, negotiate, type NegotiationState } from '../nbd/negotiation.js';
import type { ByteBudget } from './byte-budget.js';
import { Transmission } from './transmission.js';

export interface ConnectionContext {
  readonly clock: Clock;
  readonly volume: Volume;
  readonly buffers: BufferPool;
  readonly budget: ByteBudget;
  /** What LIST and INFO show. */
  readonly exportName: string;
  readonly exportDescription: string;
}

/** How long a handshake may take. */
export const handshakeTimeoutMs = 10_000;
/** How long a client may be silent in the middle of a payload. */
export const payloadTimeoutMs = 30_000;

type State =
  | { readonly at: 'negotiating'; readonly reader: HandshakeReader; negotiation: NegotiationState }
  | { readonly at: 'transmission'; readonly transmission: Transmission }
  | { readonly at: 'closed' };

export class Connection {
  readonly #socket: Socket;
  readonly #context: ConnectionContext;
  readonly #onClosed: (fault: string | undefined) => void;
  readonly #startedAtMs: number;
  #lastChunkAtMs: number;
  #state: State;
  #fault: string | undefined;

  /** `agreement`: already connected and agreed, as the kernel's sockets are; undefined: begins with the handshake. */
  constructor(
    socket: Socket,
    context: ConnectionContext,
    onClosed: (fault: string | undefined) => void,
    agreement?: Agreement,
  ) {
    this.#socket = socket;
    this.#context = context;
    this.#onClosed = onClosed;
    this.#startedAtMs = context.clock.nowMs();
    this.#lastChunkAtMs = this.#startedAtMs;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('end', () => this.#end());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#closed());
    if (agreement !== undefined) {
      this.#state = { at: 'transmission', transmission: this.#transmit(agreement) };
      return;
    }
    this.#state = { at: 'negotiating', reader: new HandshakeReader(), negotiation: { at: 'greeted' } };
    socket.write(encodeGreeting());
  }

  /** Ends the connection if the client takes too long. Called now and then. */
  checkTimes(): void {
    const nowMs = this.#context.clock.nowMs();
    const state = this.#state;
    if (state.at === 'negotiating' && nowMs - this.#startedAtMs > handshakeTimeoutMs) {
      this.#close(`no end of the handshake within ${handshakeTimeoutMs / 1000} s`);
    } else if (
      state.at === 'transmission' &&
      state.transmission.isReceiving &&
      nowMs - this.#lastChunkAtMs > payloadTimeoutMs
    ) {
      this.#close(`silent for ${payloadTimeoutMs / 1000} s in the middle of a request`);
    }
  }

  /** Ends it at once: what is in flight stays unanswered. */
  destroy(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#lastChunkAtMs = this.#context.clock.nowMs();
    const state = this.#state;
    if (state.at === 'transmission') state.transmission.push(chunk);
    else if (state.at === 'negotiating') this.#negotiate(state, chunk);
  }

  #negotiate(state: Extract<State, { at: 'negotiating' }>, chunk: Buffer): void {
    // It is closing, and more had arrived already.
    if (state.negotiation.at === 'ended') return;
    const { volume, exportName, exportDescription } = this.#context;
    const { sizeBytes, readOnly } = volume;
    const offer: ExportOffer = { name: exportName, description: exportDescription, sizeBytes, readOnly };
    for (const message of state.reader.push(chunk)) {
      const step = negotiate(state.negotiation, message, offer);
      state.negotiation = step.state;
      for (const bytes of step.send) this.#socket.write(bytes);
      if (step.state.at === 'ended') {
        this.#close(step.state.fault ?? undefined);
        return;
      }
      if (step.state.at === 'transmission') {
        const transmission = this.#transmit(step.state.agreement);
        this.#state = { at: 'transmission', transmission };
        transmission.push(Buffer.from(state.reader.rest()));
        return;
      }
    }
  }

  #transmit(agreement: Agreement): Transmission {
    const { volume, buffers, budget } = this.#context;
    const socket = this.#socket;
    const flow = { pause: () => void socket.pause(), resume: () => void socket.resume() };
    return new Transmission(socket, {
      volume,
      buffers,
      budget,
      agreement,
      flow,
      onOver: (fault) => this.#close(fault),
    });
  }

  /** The client has closed its side. */
  #end(): void {
    if (this.#state.at === 'transmission') this.#state.transmission.end();
    else this.#close(undefined);
  }

  /** Sends what is left to be sent, and closes. */
  #close(fault: string | undefined): void {
    this.#fault ??= fault;
    this.#socket.destroySoon();
  }

  #closed(): void {
    const state = this.#state;
    this.#state = { at: 'closed' };
    if (state.at === 'transmission') state.transmission.abort();
    if (state.at !== 'closed') this.#onClosed(this.#fault);
  }
}
