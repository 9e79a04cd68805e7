import type { MessageType } from '../../proto/message-stream.js';
import { type MethodInfo, type RpcDialer, type RpcServices, RpcStream } from '../../proto/rpc.js';
import type { Endpoint, Network } from './network.js';
import type { SimProcess } from './process.js';
import { asSocket } from './sockets.js';

/** Serves message streams on the simulated network; which method a connection is for is told when it is dialled. */
export class SimRpcServer implements RpcServices {
  readonly #network: Network;
  readonly #process: SimProcess;
  readonly #accept = new Map<string, (end: Endpoint) => void>();

  constructor(network: Network, process: SimProcess) {
    this.#network = network;
    this.#process = process;
  }

  addStream<Req, Res>(
    service: string,
    { name, requestType, responseType }: MethodInfo<Req, Res>,
    onStream: (stream: RpcStream<Res, Req>) => void,
  ): void {
    this.#accept.set(pathOf(service, name), (end) => onStream(streamOn(end, responseType, requestType)));
  }

  /** Administration is not simulated. */
  addUnary(): void {}

  listen(address: string): void {
    this.#network.listen(address, {
      process: this.#process,
      accept: (end) => {
        const accept = this.#accept.get(end.dialled.path);
        if (accept) accept(end);
        else end.close('no such method');
      },
    });
  }
}

/** Channels on the simulated network. */
export function simDialer(network: Network, process: SimProcess): RpcDialer {
  return (address) => ({
    openStream<Req, Res>(service: string, { name, requestType, responseType }: MethodInfo<Req, Res>) {
      const end = network.dial(process, address, { kind: 'rpc', path: pathOf(service, name) });
      return streamOn(end, requestType, responseType);
    },
    close(): void {},
  });
}

function pathOf(service: string, method: string): string {
  return `/${service}/${method}`;
}

function streamOn<Out, In>(
  end: Endpoint,
  out: MessageType<Out>,
  incoming: MessageType<In>,
): RpcStream<Out, In> {
  return new RpcStream(asSocket(end), out, incoming, end.peer.host, (fn) => end.process.soon(fn));
}
