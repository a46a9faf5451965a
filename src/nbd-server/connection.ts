/**
 * One client: the handshake, then the transmission phase, on one socket.
 *
 *     negotiating ──GO · EXPORT_NAME──▶ transmission ──last reply──▶ closing ──▶ closed
 *         └──────────ABORT · fault─────────────────────────────────────▲            ▲
 *         └──────────time-out · too slow · broken socket, from every state──────────┘
 *
 * Promise: whatever the client sends or does not send, reads or does not read, the connection costs bounded memory, and does not keep
 * others waiting for longer than `contendedSecondsMax`.
 */
import type { Socket } from 'node:net';
import type { BufferPool } from '../base/buffer-pool.js';
import type { Volume } from '../base/volume.js';
import { encodeGreeting } from '../nbd/handshake.js';
import { HandshakeReader } from '../nbd/handshake-reader.js';
import { type Agreement, type ExportOffer, negotiate, type NegotiationState } from '../nbd/negotiation.js';
import type { ByteBudget } from '../base/byte-budget.js';
import { Transmission } from './transmission.js';

export interface ConnectionContext {
  readonly volume: Volume;
  readonly buffers: BufferPool;
  readonly budget: ByteBudget;
  /** What LIST and INFO show. */
  readonly exportName: string;
  readonly exportDescription: string;
}

/** How long a handshake may take. @public */
export const handshakeSecondsMax = 10;
/** How long a client may be silent in the middle of a payload, or leave the last replies unread. @public */
export const stallSecondsMax = 30;
/** The same, while another client waits for bytes that this one holds. @public */
export const contendedSecondsMax = 5;
/** What a client must send or read in that time. @public */
export const contendedBytesMin = 1024 * 1024;

/** Seconds are counted by {@link Connection.secondPassed}: a process that was stopped meanwhile must not blame its clients. */
type State =
  | { readonly at: 'negotiating'; readonly reader: HandshakeReader; negotiation: NegotiationState; seconds: number }
  /** `seconds`, `movedBytes`: since when, and how far, too little has moved. */
  | { readonly at: 'transmission'; readonly transmission: Transmission; seconds: number; movedBytes: number }
  | { readonly at: 'closing'; seconds: number }
  | { readonly at: 'closed' };

export class Connection {
  readonly #socket: Socket;
  readonly #context: ConnectionContext;
  readonly #onClosed: (fault: string | undefined) => void;
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
    socket.on('end', () => this.#end());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#closed());
    if (agreement !== undefined) {
      this.#state = this.#transmit(agreement);
      return;
    }
    this.#state = { at: 'negotiating', reader: new HandshakeReader(), negotiation: { at: 'greeted' }, seconds: 0 };
    socket.write(encodeGreeting());
  }

  /** Takes what came from the socket. If the flow is paused then, the chunk must not change until it goes on. */
  receive(chunk: Buffer): void {
    const state = this.#state;
    if (state.at === 'transmission') state.transmission.push(chunk);
    else if (state.at === 'negotiating') this.#negotiate(state, chunk);
  }

  /** To be called once a second: ends the connection if the client takes too long. */
  secondPassed(): void {
    const state = this.#state;
    switch (state.at) {
      case 'negotiating':
        state.seconds += 1;
        if (state.seconds > handshakeSecondsMax) this.#cut(`no end of the handshake within ${handshakeSecondsMax} s`);
        return;
      case 'transmission':
        return this.#checkPace(state);
      case 'closing':
        state.seconds += 1;
        if (state.seconds > stallSecondsMax) this.#cut('the last replies were not read');
        return;
      case 'closed':
        return;
    }
  }

  /** Ends it at once: what is in flight stays unanswered. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** A client that leaves its replies unread costs little, and may have its reasons: until others wait for what it holds. */
  #checkPace(state: Extract<State, { at: 'transmission' }>): void {
    const { transmission } = state;
    const isContended = this.#context.budget.isWanted;
    const bytes = transmission.movedBytes - state.movedBytes;
    if (!transmission.awaitsClient || bytes >= (isContended ? contendedBytesMin : 1)) {
      state.seconds = 0;
      state.movedBytes = transmission.movedBytes;
      return;
    }
    state.seconds += 1;
    if (isContended && state.seconds > contendedSecondsMax) {
      this.#cut(`less than ${contendedBytesMin} bytes in ${contendedSecondsMax} s while others wait`);
    }
    if (state.seconds <= stallSecondsMax) return;
    if (transmission.isReceiving) this.#cut(`silent for ${stallSecondsMax} s in the middle of a request`);
  }

  #negotiate(state: Extract<State, { at: 'negotiating' }>, chunk: Buffer): void {
    const { volume, exportName, exportDescription } = this.#context;
    const { sizeBytes, readOnly } = volume;
    const offer: ExportOffer = { name: exportName, description: exportDescription, sizeBytes, readOnly };
    for (const message of state.reader.push(chunk)) {
      const step = negotiate(state.negotiation, message, offer);
      state.negotiation = step.state;
      if (step.send.length > 0) this.#socket.write(Buffer.concat(step.send));
      if (step.state.at === 'ended') {
        this.#close(step.state.fault ?? undefined);
        return;
      }
      if (step.state.at === 'transmission') {
        const next = this.#transmit(step.state.agreement);
        this.#state = next;
        next.transmission.push(Buffer.from(state.reader.rest()));
        return;
      }
    }
  }

  #transmit(agreement: Agreement): Extract<State, { at: 'transmission' }> {
    const { volume, buffers, budget } = this.#context;
    const socket = this.#socket;
    const transmission = new Transmission(socket, {
      volume,
      buffers,
      budget,
      agreement,
      flow: { pause: () => void socket.pause(), resume: () => void socket.resume() },
      onOver: (fault) => this.#close(fault),
    });
    return { at: 'transmission', transmission, seconds: 0, movedBytes: 0 };
  }

  /** The client has closed its side. */
  #end(): void {
    if (this.#state.at === 'transmission') this.#state.transmission.end();
    else this.#close(undefined);
  }

  /** Sends what is left to be sent, and closes. */
  #close(fault: string | undefined): void {
    if (this.#state.at === 'closing' || this.#state.at === 'closed') return;
    this.#state = { at: 'closing', seconds: 0 };
    this.#fault = fault;
    this.#socket.destroySoon();
  }

  #cut(fault: string): void {
    this.#fault = fault;
    this.#socket.destroy();
  }

  #closed(): void {
    const state = this.#state;
    if (state.at === 'closed') return;
    this.#state = { at: 'closed' };
    if (state.at === 'transmission') state.transmission.abort();
    this.#onClosed(this.#fault);
  }
}
