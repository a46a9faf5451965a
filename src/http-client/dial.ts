/**
 * Makes connections: TCP, a tunnel through a proxy, TLS.
 * Promise: each attempt is bounded in time and can be given up; what fails is a `Failure`, and no socket of a failed or
 * given-up attempt stays open. Nothing of a request is ever sent here: after a failed dial it is certainly not applied.
 */
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Clock, Timer } from '../base/clock.js';
import { asFailure, Failure } from '../base/failure.js';
import { type ResponseHandler, ResponseParser } from './response-parser.js';
import { formatEndpoint } from './target.js';

/** Receives `bytes[0, end)`, which are reused after the call. */
export type Receive = (bytes: Buffer, end: number) => void;

export interface DialOptions {
  readonly clock: Clock;
  /** For each attempt: TCP, tunnel and TLS each, milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Where the bytes of plain connections are received; one buffer serves all, because whoever gets them keeps none. */
export interface Reception {
  readonly buffer: Buffer;
  readonly receive: Receive;
}

/** How much earlier the address before it starts (RFC 8305, section 5). */
const headStartMs = 250;

/**
 * Waits for `settled`, the socket's error or close, the time-out or the signal, whatever comes first; destroys the socket
 * unless it was `settled`. `what` begins the message of the failure.
 */
function settle<T>(
  socket: Socket,
  what: string,
  options: DialOptions,
  start: (settled: (value: T) => void, failed: (failure: Failure) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const { clock, timeoutMs, signal } = options;
    const end = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      socket.off('error', onError);
      socket.off('close', onClose);
    };
    const fail = (failure: Failure): void => {
      end();
      discard(socket);
      reject(failure);
    };
    const onAbort = (): void => fail(new Failure('connection-lost', `${what}: given up`));
    const onError = (error: Error): void => fail(connectFailure(what, error));
    const onClose = (): void => fail(new Failure('connection-lost', `${what}: closed`));
    const timer = clock.after(timeoutMs, () => fail(new Failure('connection-lost', `${what}: timed out`)));
    signal.addEventListener('abort', onAbort);
    socket.on('error', onError);
    socket.on('close', onClose);
    if (signal.aborted) return onAbort();
    start((value) => {
      end();
      resolve(value);
    }, fail);
  });
}

/** Closes a socket that nobody wants any more; it may still report errors, in which nobody is interested. */
export function discard(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.destroy();
}

/** Connects to one address. With `reception` the socket's data goes there, otherwise it has to be listened for. */
function dialAddress(
  address: string,
  port: number,
  options: DialOptions,
  reception: Reception | undefined,
): Promise<Socket> {
  const what = `connect to ${formatEndpoint(address, port)}`;
  const socket = connect({
    host: address,
    port,
    noDelay: true,
    ...(reception === undefined ? {} : { onread: onRead(reception) }),
  });
  return settle(socket, what, options, (settled) => socket.once('connect', () => settled(socket)));
}

function onRead({ buffer, receive }: Reception): { buffer: Buffer; callback: (count: number) => boolean } {
  return {
    buffer,
    callback(count) {
      receive(buffer, count);
      return true;
    },
  };
}

export interface Dialled {
  readonly socket: Socket;
  readonly address: string;
}

/**
 * Connects to one of `addresses`, of which there is at least one: the first, and the next one whenever the one before has
 * failed or has been silent for a moment. `connection-refused` only if all of them refused.
 */
export function dialAny(
  addresses: readonly string[],
  port: number,
  options: DialOptions,
  reception: Reception | undefined,
): Promise<Dialled> {
  return new Promise((resolve, reject) => {
    const attempts = new Set<AbortController>();
    const failures: Failure[] = [];
    let next = 0;
    let headStart: Timer | undefined;
    let isOver = false;
    const stop = (): void => {
      isOver = true;
      headStart?.cancel();
      options.signal.removeEventListener('abort', giveUp);
      for (const attempt of attempts) attempt.abort();
    };
    const giveUp = (): void => {
      stop();
      reject(new Failure('connection-lost', 'connect: given up'));
    };
    const startNext = (): void => {
      headStart?.cancel();
      const address = addresses[next];
      if (isOver || address === undefined) return;
      next += 1;
      headStart = options.clock.after(headStartMs, startNext);
      const attempt = new AbortController();
      attempts.add(attempt);
      dialAddress(address, port, { ...options, signal: attempt.signal }, reception).then(
        (socket) => {
          attempts.delete(attempt);
          if (isOver) return discard(socket);
          stop();
          resolve({ socket, address });
        },
        (failure: Failure) => {
          attempts.delete(attempt);
          failures.push(failure);
          if (failures.length === addresses.length) {
            stop();
            reject(mostTelling(failures));
          } else startNext();
        },
      );
    };
    options.signal.addEventListener('abort', giveUp);
    if (options.signal.aborted) giveUp();
    else startNext();
  });
}

function mostTelling(failures: readonly Failure[]): Failure {
  const other = failures.find((failure) => failure.code !== 'connection-refused');
  return other ?? failures[0] ?? new Failure('connection-lost', 'connect: no address');
}

export interface TlsOptions {
  /** The name or address that the certificate must be for. */
  readonly host: string;
  /** PEM. Undefined: the authorities that Node trusts. */
  readonly ca: string | undefined;
}

/** TLS over `socket`, which belongs to the result. Its certificate is always verified. */
export function secure(socket: Socket, { host, ca }: TlsOptions, options: DialOptions): Promise<Socket> {
  const encrypted = connectTls({
    socket,
    host,
    servername: isIP(host) === 0 ? host : '',
    ALPNProtocols: ['http/1.1'],
    ...(ca === undefined ? {} : { ca }),
  });
  return settle(encrypted, `TLS with ${host}`, options, (settled) =>
    encrypted.once('secureConnect', () => settled(encrypted)),
  );
}

/** Asks the proxy at the other end of `socket` for a tunnel to `authority` (RFC 9110, section 9.3.6). */
export async function tunnel(
  socket: Socket,
  authority: string,
  authorization: string | undefined,
  options: DialOptions,
): Promise<void> {
  const credentials = authorization === undefined ? '' : `Proxy-Authorization: ${authorization}\r\n`;
  try {
    await settle<void>(socket, `tunnel to ${authority}`, options, (settled, failed) => {
      const parser = new ResponseParser(tunnelHandler(authority, settled));
      socket.on('data', (bytes) => {
        try {
          parser.push(bytes);
        } catch (error) {
          failed(asFailure(error));
        }
      });
      socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`, 'latin1');
    });
  } finally {
    socket.removeAllListeners('data');
    socket.pause();
  }
}

/** Whatever the proxy sends behind its answer would be the far side's, which has nothing to say yet. */
function tunnelHandler(authority: string, settled: () => void): ResponseHandler {
  let isAnswered = false;
  return {
    awaited: () => (isAnswered ? undefined : 'CONNECT'),
    begin({ status }) {
      if (status >= 200 && status <= 299) return 0;
      const code = status === 407 ? 'access-denied' : 'server-error';
      throw new Failure(code, `tunnel to ${authority}: the proxy answers HTTP status ${status}`);
    },
    finish() {
      isAnswered = true;
      settled();
    },
  };
}

/**
 * Whether a connection to exactly this address is refused. It is closed at once where it is not; a time-out, a
 * given-up attempt and every other error count as not refused.
 */
export async function isRefused(address: string, port: number, options: DialOptions): Promise<boolean> {
  try {
    const socket = await dialAddress(address, port, options, undefined);
    discard(socket);
    return false;
  } catch (error) {
    return asFailure(error).code === 'connection-refused';
  }
}

function connectFailure(what: string, error: Error): Failure {
  const code = 'code' in error ? String(error.code) : '';
  if (code === 'ECONNREFUSED') return new Failure('connection-refused', `${what}: connection refused`);
  // TLS has sentences, system calls have codes that say more than theirs.
  const reason = /^E[A-Z]+$/.test(code) ? code : error.message.replace(/\s+/g, ' ').slice(0, 200);
  return new Failure('connection-lost', `${what}: ${reason}`, { cause: error });
}
