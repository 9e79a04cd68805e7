import { Socket, type SocketConstructorOpts } from 'node:net';

/**
 * TCP sockets whose bytes arrive in memory of the reader's choice. A plain socket allocates 64 KiB for every read and
 * hands the bytes over in it: a large payload is then copied once more, and the garbage collector, which counts such
 * memory, marks the heap again every few dozen megabytes. Here the kernel copies a payload to where it stays.
 */

/** Where a socket's bytes go. */
export interface ByteSink {
  /** Memory for the next read, not empty. It stays as it is until filled() says how much of it was used. */
  room(): Buffer;
  /** So many bytes were put at the begin of what room() gave last. */
  filled(bytes: number): void;
}

/** Takes what comes before there is a sink: nothing, as sinks are set in the turn that makes the socket. */
const NO_ROOM = Buffer.alloc(1);

export class InPlaceSocket extends Socket {
  /** Set it in the turn in which the socket was made or handed out. */
  readonly reads: { sink: ByteSink | undefined };

  constructor(options: SocketConstructorOpts = {}) {
    const reads: { sink: ByteSink | undefined } = { sink: undefined };
    const onread = {
      // Asked for once while the socket is made, when there is no sink yet, and after every read.
      buffer: (): Buffer => reads.sink?.room() ?? NO_ROOM,
      callback: (bytes: number, target: Uint8Array): boolean => {
        if (target === NO_ROOM) reads.sink?.room().set(target.subarray(0, bytes));
        reads.sink?.filled(bytes);
        return true;
      },
    };
    super({ ...options, onread } as SocketConstructorOpts);
    this.reads = reads;
  }
}

/** The socket that node:net made for an accepted connection, as node:net would not make one with `onread`. */
interface WithHandle {
  _handle?: unknown;
}

/**
 * Takes an accepted connection over. Not documented by node:net are the field `_handle` and the option `handle`; where
 * they are gone the socket stays what it is, and is read by its 'data' events.
 * @param socket made by a server with `pauseOnConnect`: nothing was read from it
 */
export function adoptInPlace(socket: Socket): Socket {
  const holder = socket as unknown as WithHandle;
  const handle = holder._handle;
  if (!handle) {
    socket.resume();
    return socket;
  }
  holder._handle = null;
  socket.destroy(); // an empty shell: the server does not count it any more
  return new InPlaceSocket({ handle } as SocketConstructorOpts);
}

/** Reads a socket's bytes into the sink. @returns false when the socket cannot: listen for 'data' */
export function readInPlace(socket: Socket, sink: ByteSink): boolean {
  if (!(socket instanceof InPlaceSocket)) return false;
  socket.reads.sink = sink;
  return true;
}
