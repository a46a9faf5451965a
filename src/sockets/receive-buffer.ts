/**
 * Receives from an accepted socket into a buffer that is used again and again, where Node would make one for each chunk: a third less
 * CPU time for large payloads. Node has this (`onread`) for sockets that connect, not for those that a server accepts, so the handle
 * moves from the accepted socket to one made here.
 * Promise: should Node not be as expected inside, it is received the ordinary way.
 */
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';

/** What Node's sockets have inside. */
interface Inside {
  _handle?: { readonly useUserBuffer?: unknown } | null;
}

/**
 * The socket to use in place of `accepted`, which a server made with `pauseOnConnect`. `receive` takes each chunk, which lies in `buffer`
 * and is overwritten by the next one: of this socket, which can be paused, and of every other that receives into the same buffer.
 */
export function receiveInto(accepted: Socket, buffer: Buffer, receive: (chunk: Buffer) => void): Socket {
  const inside: Inside = accepted as unknown as Inside;
  const handle = inside._handle;
  if (typeof handle?.useUserBuffer !== 'function') return receiveChunks(accepted, receive);
  const options: SocketConstructorOpts & Pick<ConnectOpts, 'onread'> & { handle: unknown } = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer,
      callback: (bytes) => {
        receive(buffer.subarray(0, bytes));
        return true;
      },
    },
  };
  const socket = new Socket(options);
  if ((socket as unknown as Inside)._handle !== handle) return receiveChunks(accepted, receive);
  inside._handle = null; // or it would be closed twice
  // The server counts the one that it accepted.
  socket.once('close', () => void accepted.destroy());
  return socket;
}

function receiveChunks(socket: Socket, receive: (chunk: Buffer) => void): Socket {
  socket.on('data', receive);
  socket.resume();
  return socket;
}
