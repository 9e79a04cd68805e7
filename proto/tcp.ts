import { createServer, isIP, type Server, Socket } from 'node:net';
import { systemClock, type Timer } from '../common/clock.js';
import { adoptInPlace } from './in-place-socket.js';

/**
 * A connection that does not stand after so long is given up, and whoever dials tries anew: the kernel repeats a lost
 * SYN after 1, 3, 7, ... seconds, so that an attempt begun while the network was cut would outlast the cut by as much.
 */
export const CONNECT_TIMEOUT_MS = 1_000;

/** Connects a socket over TCP; a connection that does not come to stand within CONNECT_TIMEOUT_MS ends with an error. */
export function connectTcp(host: string, port: number, socket: Socket = new Socket()): Socket {
  socket.connect({ host, port });
  let timer: Timer | undefined;
  const giveUp = (): void => {
    // This process may have been late itself: what the kernel has to say is heard first.
    setImmediate(() => {
      if (socket.connecting) socket.destroy(new Error(`${host}:${port} does not answer`));
    });
  };
  const begin = (): void => {
    timer ??= systemClock.after(CONNECT_TIMEOUT_MS, giveUp, { weak: true });
  };
  // The time of looking a name up does not count.
  if (isIP(host) !== 0) begin();
  else socket.once('lookup', begin);
  const stop = (): void => timer?.cancel();
  socket.once('connect', stop);
  socket.once('close', stop);
  return socket;
}

/** A server whose sockets can be read in place. */
export function serveTcp(onSocket: (socket: Socket) => void): Server {
  return createServer({ pauseOnConnect: true }, (socket) => onSocket(adoptInPlace(socket)));
}
