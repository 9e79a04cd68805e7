import { EventEmitter } from 'node:events';
import type { Server, Socket } from 'node:net';
import type { Sockets } from '../../proto/frames.js';
import type { Endpoint, Network } from './network.js';
import type { SimProcess } from './process.js';

const ENDED = 'ended by the other side';

/** The part of a node:net socket that frames and streams use; what is written between cork and uncork arrives together. */
class SimSocket extends EventEmitter {
  readonly #end: Endpoint;
  #corked: Buffer[] | undefined;
  #held: Buffer[] | undefined;
  #destroyed = false;

  constructor(end: Endpoint) {
    super();
    this.#end = end;
    end.receiver = {
      message: (bytes) => {
        if (this.#held) this.#held.push(bytes);
        else this.emit('data', bytes);
      },
      closed: (reason) => {
        if (this.#destroyed) return;
        this.#destroyed = true;
        if (reason === ENDED) this.emit('end');
        else this.emit('error', new Error(reason));
        this.emit('close');
      },
    };
  }

  setNoDelay(): void {}

  setKeepAlive(): void {}

  get writableLength(): number {
    return this.#end.stalled.reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
  }

  cork(): void {
    this.#corked ??= [];
  }

  uncork(): void {
    const parts = this.#corked;
    this.#corked = undefined;
    // A copy: the writer may reuse its buffers once they are with the system.
    if (parts && parts.length > 0 && !this.#destroyed) this.#end.send(Buffer.concat(parts));
  }

  /** The system takes everything at once. */
  write(bytes: Buffer, taken?: () => void): boolean {
    if (this.#corked) this.#corked.push(bytes);
    else if (!this.#destroyed) this.#end.send(Buffer.from(bytes));
    taken?.();
    return true;
  }

  end(): void {
    if (!this.#destroyed) this.#end.finish(ENDED);
  }

  pause(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const bytes of held) this.emit('data', bytes);
  }

  isPaused(): boolean {
    return this.#held !== undefined;
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#end.close(ENDED);
  }
}

class SimServer extends EventEmitter {
  readonly #network: Network;
  readonly #process: SimProcess;
  readonly #onSocket: (socket: Socket) => void;
  #address = '';

  constructor(network: Network, process: SimProcess, onSocket: (socket: Socket) => void) {
    super();
    this.#network = network;
    this.#process = process;
    this.#onSocket = onSocket;
  }

  listen(port: number, host: string, done: () => void): void {
    this.#address = `${host}:${port}`;
    this.#network.listen(this.#address, {
      process: this.#process,
      accept: (end) => this.#onSocket(asSocket(end)),
    });
    done();
  }

  address(): undefined {
    return undefined;
  }

  close(): void {
    if (this.#address) this.#network.unlisten(this.#address);
  }
}

/** The socket at one end of a stream. */
export function asSocket(end: Endpoint): Socket {
  return new SimSocket(end) as unknown as Socket;
}

/** TCP on the simulated network. */
export function simSockets(network: Network, process: SimProcess): Sockets {
  return {
    connect: (host, port) => asSocket(network.dial(process, `${host}:${port}`, { kind: 'tcp', path: '' })),
    serve: (onSocket) => new SimServer(network, process, onSocket) as unknown as Server,
  };
}
