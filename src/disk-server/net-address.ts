/** Addresses of sockets as this project writes them: an IPv4 address that came through an IPv6 socket is an IPv4 address. */
import type { Socket } from 'node:net';

export function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
}

/** `ADDRESS:PORT`, or `[ADDRESS]:PORT` for IPv6. */
export function endpointOf(address: string, port: number): string {
  const plain = plainAddress(address);
  return plain.includes(':') ? `[${plain}]:${port}` : `${plain}:${port}`;
}

/** The address that the client has connected to. Undefined: the connection is gone. */
export function localEndpoint({ localAddress, localPort }: Socket): string | undefined {
  return localAddress === undefined || localPort === undefined ? undefined : endpointOf(localAddress, localPort);
}
