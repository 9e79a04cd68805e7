import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import type { RaftEnvelope, RaftHello, RaftMessage, SnapshotChunk } from '../../proto/gen/raft.js';
import { RaftServiceDefinition } from '../../proto/gen/raft.js';
import { type RpcDialer, type RpcServices, tcpChannel } from '../../proto/rpc.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';
import type { ReplicaIdentity } from './format.js';
import { messageProblem } from './message-check.js';
import { PeerLink, type PeerStream } from './peer-link.js';

/** A server that dialled must say hello within this time. */
const HELLO_WAIT_MS = 5_000;

export interface Peer {
  id: number;
  /** host:port */
  address: string;
}

/** What the network tells its replica. */
export interface PeerEvents {
  onMessage(message: RaftMessage): void;
  /** Messages can be sent to this peer. */
  onUp(id: number): void;
  /** A connection to or from this peer broke. */
  onDown(id: number): void;
  /** A stream that carries a snapshot; the first chunk follows through the returned function. */
  onSnapshot(from: number, stream: PeerStream): (chunk: SnapshotChunk) => void;
}

export interface PeersOptions {
  identity: ReplicaIdentity;
  /** The other servers; this one may be among them and is left out. */
  peers: readonly Peer[];
  clock: Clock;
  prng: Prng;
  log: Logger;
  /** Default: gRPC. */
  dial?: RpcDialer;
  events: PeerEvents;
}

/**
 * The streams between this server and the others: it sends on those it dialled and receives on those the others dialled.
 * Messages may be lost, at most; one stream keeps their order.
 */
export class Peers {
  readonly #options: PeersOptions;
  readonly #links = new Map<number, PeerLink>();
  readonly #addresses = new Map<number, string>();
  /** The newest stream of messages from each peer. */
  readonly #incoming = new Map<number, PeerStream>();
  readonly #accepted = new Set<PeerStream>();
  #closed = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    const { identity, peers, clock, prng, log, dial = tcpChannel, events } = options;
    for (const { id, address } of peers) {
      this.#addresses.set(id, address);
      if (id === identity.serverId) continue;
      const link = new PeerLink({
        address,
        hello: this.hello(id),
        clock,
        prng,
        log: log.child({ peer: id }),
        dial,
        onUp: () => events.onUp(id),
        onDown: () => events.onDown(id),
      });
      this.#links.set(id, link);
    }
  }

  /** Adds the service to a server that does not listen yet. */
  attach(server: RpcServices): void {
    const { fullName, methods } = RaftServiceDefinition;
    server.addStream(fullName, methods.channel, (stream) => this.#accept(stream));
  }

  /** Dials all peers. */
  start(): void {
    for (const link of this.#links.values()) link.start();
  }

  /** The first message of a stream to `to`. */
  hello(to: number): RaftHello {
    const { clusterId, serverId, diskUuid } = this.#options.identity;
    return { protocol: PROTOCOL_VERSION, clusterId, from: serverId, to, diskUuid };
  }

  /** @returns false when the message was dropped */
  send(message: RaftMessage): boolean {
    return this.#links.get(message.to)?.send(message) ?? false;
  }

  /** A stream for a snapshot; undefined when the peer is not connected. */
  openStream(to: number): PeerStream | undefined {
    return this.#links.get(to)?.openStream();
  }

  connected(id: number): boolean {
    return this.#links.get(id)?.connected ?? false;
  }

  /** host:port of a server; undefined when it is not configured. */
  address(id: number): string | undefined {
    return this.#addresses.get(id);
  }

  close(): void {
    this.#closed = true;
    for (const link of this.#links.values()) link.close();
    for (const stream of this.#accepted) stream.destroy('server stops');
  }

  #accept(stream: PeerStream): void {
    if (this.#closed) {
      stream.destroy('server stops');
      return;
    }
    this.#accepted.add(stream);
    const { clock, log } = this.#options;
    const timer = clock.after(HELLO_WAIT_MS, () => stream.destroy('no hello'), { weak: true });
    let from = 0;
    let onChunk: ((chunk: SnapshotChunk) => void) | undefined;
    const receive = ({ body }: RaftEnvelope): void => {
      if (from === 0) {
        timer.cancel();
        const hello = body?.$case === 'hello' ? body.value : undefined;
        const reason = hello ? this.#refusal(hello) : 'the first message must be hello';
        if (!hello || reason !== undefined) {
          log.warn({ address: stream.peer, from: hello?.from, reason }, 'refused a peer');
          stream.send({ body: { $case: 'refused', value: { reason: reason ?? '' } } });
          stream.end();
          return;
        }
        from = hello.from;
        stream.send({ body: { $case: 'accepted', value: {} } });
      } else if (body?.$case === 'message') {
        this.#receive(stream, from, body.value);
      } else if (body?.$case === 'chunk') {
        onChunk ??= this.#options.events.onSnapshot(from, stream);
        onChunk(body.value);
      } else this.#malformed(stream, from, `unexpected ${body?.$case ?? 'empty'} message`);
    };
    stream.onEnd(() => {
      timer.cancel();
      this.#accepted.delete(stream);
      if (this.#closed || this.#incoming.get(from) !== stream) return;
      this.#incoming.delete(from);
      this.#options.events.onDown(from);
    });
    stream.onMessage(receive);
  }

  #refusal(hello: RaftHello): string | undefined {
    const { clusterId, serverId } = this.#options.identity;
    if (hello.protocol !== PROTOCOL_VERSION) {
      return `protocol version ${hello.protocol}; this server speaks ${PROTOCOL_VERSION}`;
    }
    if (hello.clusterId !== clusterId) return `server of cluster ${hello.clusterId}, not of ${clusterId}`;
    if (hello.to !== serverId) return `meant for metaserver ${hello.to}; this is ${serverId}`;
    if (!this.#links.has(hello.from)) return `metaserver ${hello.from} is not a member`;
    return undefined;
  }

  #receive(stream: PeerStream, from: number, message: RaftMessage): void {
    const problem = messageProblem(message, from, this.#options.identity.serverId);
    if (problem !== undefined) {
      this.#malformed(stream, from, problem);
      return;
    }
    this.#incoming.set(from, stream);
    this.#links.get(from)?.heard();
    this.#options.events.onMessage(message);
  }

  #malformed(stream: PeerStream, from: number, problem: string): void {
    this.#options.log.warn({ peer: from, address: stream.peer, problem }, 'malformed message: stream ended');
    stream.destroy(problem);
  }
}
