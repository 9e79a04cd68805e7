import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import type {
  RaftEnvelope,
  RaftHello,
  RaftMember,
  RaftMessage,
  SnapshotChunk,
} from '../../proto/gen/raft.js';
import { type RaftAccepted, RaftServiceDefinition } from '../../proto/gen/raft.js';
import { type RpcDialer, type RpcServices, tcpChannel } from '../../proto/rpc.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';
import { isDiskUuid, memberIdOf, type ReplicaIdentity } from './format.js';
import { messageProblem } from './message-check.js';
import { PeerLink, type PeerStream } from './peer-link.js';

/** A server that dialled must say hello within this time. */
const HELLO_WAIT_MS = 5_000;

export interface Peer {
  /** Number of the metaserver. */
  id: number;
  /** host:port */
  address: string;
}

/** What the network tells its replica. Servers have numbers; members (servers with the disk they have now) have ids. */
export interface PeerEvents {
  onMessage(message: RaftMessage): void;
  /** Messages can be sent to this member. */
  onUp(member: number): void;
  /** A connection to or from this member broke, or cannot be made. */
  onDown(member: number): void;
  /** A stream that carries a snapshot; the first chunk follows through the returned function. */
  onSnapshot(from: number, stream: PeerStream): (chunk: SnapshotChunk) => void;
}

export interface PeersOptions {
  identity: ReplicaIdentity;
  /** The servers as configured; this one may be among them and is left out. */
  peers: readonly Peer[];
  /** How this server presents itself to those that dial it. */
  present(): RaftAccepted;
  clock: Clock;
  prng: Prng;
  log: Logger;
  /** Default: gRPC. */
  dial?: RpcDialer;
  events: PeerEvents;
}

/** A server that answers, and what it said of itself. */
export interface PresentPeer {
  server: number;
  member: number;
  address: string;
  answer: RaftAccepted;
}

/**
 * The streams between this server and the others: it sends on those it dialled and receives on those the others dialled.
 * Messages may be lost, at most; one stream keeps their order.
 *
 * A link belongs to a server and its address; messages are between members. A message for a disk that its server no longer has
 * is dropped, as is one in the name of a disk that its sender does not have.
 */
export class Peers {
  readonly #options: PeersOptions;
  /** By server. */
  readonly #links = new Map<number, PeerLink>();
  readonly #configured = new Map<number, string>();
  /** Servers that may join: their addresses. */
  readonly #admitted = new Map<number, string>();
  #roster: readonly RaftMember[] = [];
  /** What the servers said when they were dialled last. */
  readonly #answers = new Map<number, RaftAccepted>();
  /** The newest stream of messages from each member. */
  readonly #incoming = new Map<number, PeerStream>();
  readonly #accepted = new Set<PeerStream>();
  readonly #self: number;
  #started = false;
  #closed = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#self = memberIdOf(options.identity.diskUuid);
    for (const { id, address } of options.peers) this.#configured.set(id, address);
    this.#syncLinks();
  }

  /** Adds the service to a server that does not listen yet. */
  attach(server: RpcServices): void {
    const { fullName, methods } = RaftServiceDefinition;
    server.addStream(fullName, methods.channel, (stream) => this.#accept(stream));
  }

  /** Dials all peers. */
  start(): void {
    this.#started = true;
    for (const link of this.#links.values()) link.start();
  }

  /** Who the members of the configuration are. */
  setRoster(roster: readonly RaftMember[]): void {
    this.#roster = roster;
    this.#syncLinks();
  }

  /** Lets a server in that no configuration names: it may become a member. */
  admit(server: number, address: string): void {
    this.#admitted.set(server, address);
    this.#syncLinks();
  }

  /** Takes back what admit() said. */
  dismiss(server: number): void {
    if (this.#admitted.delete(server)) this.#syncLinks();
  }

  /** The others that can be dialled. */
  #knownServers(): Set<number> {
    const servers = [...this.#configured.keys(), ...this.#admitted.keys()];
    for (const { server } of this.#roster) servers.push(server);
    const { serverId } = this.#options.identity;
    return new Set(servers.filter((id) => id !== serverId && this.#addressesOf(id).length > 0));
  }

  /** One link for each server that is known from anywhere. */
  #syncLinks(): void {
    const known = this.#knownServers();
    for (const [server, link] of this.#links) {
      if (known.has(server)) continue;
      link.close();
      this.#links.delete(server);
      this.#answers.delete(server);
    }
    const { clock, prng, log, dial = tcpChannel, events } = this.#options;
    for (const server of known) {
      if (this.#links.has(server)) continue;
      const link = new PeerLink({
        addresses: () => this.#addressesOf(server),
        hello: this.hello(server),
        clock,
        prng,
        log: log.child({ peer: server }),
        dial,
        onUp: (answer) => {
          this.#answers.set(server, answer);
          for (const id of this.#membersOf(server)) {
            if (this.connected(id)) events.onUp(id);
            else events.onDown(id);
          }
        },
        onDown: () => {
          for (const id of this.#membersOf(server)) events.onDown(id);
        },
      });
      this.#links.set(server, link);
      if (this.#started && !this.#closed) link.start();
    }
  }

  #addressesOf(server: number): string[] {
    const told = [this.#configured.get(server), this.#admitted.get(server)];
    for (const member of this.#roster) if (member.server === server) told.push(member.address);
    return [...new Set(told.filter((address) => address !== undefined && address !== ''))] as string[];
  }

  /** The disks that a server has, had, or answered with. */
  #membersOf(server: number): Set<number> {
    const ids = this.#roster.filter((member) => member.server === server).map(({ id }) => id);
    const answer = this.#answers.get(server);
    return new Set(answer ? [...ids, memberIdOf(answer.diskUuid)] : ids);
  }

  /** The link on which this member can be reached, if its server has that disk now. */
  #linkTo(member: number): PeerLink | undefined {
    for (const [server, answer] of this.#answers) {
      if (memberIdOf(answer.diskUuid) === member) return this.#links.get(server);
    }
    return undefined;
  }

  /** The servers that are connected, and what they said. */
  present(): PresentPeer[] {
    const found: PresentPeer[] = [];
    for (const [server, answer] of this.#answers) {
      const link = this.#links.get(server);
      if (!link?.connected) continue;
      found.push({ server, member: memberIdOf(answer.diskUuid), address: link.address, answer });
    }
    return found;
  }

  /** Ends what the others have dialled, so that they ask again who this server is. */
  reintroduce(): void {
    for (const stream of this.#accepted) stream.destroy('the server has something new to say of itself');
  }

  /** The first message of a stream to the server `to`. */
  hello(to: number): RaftHello {
    const { clusterId, serverId, diskUuid } = this.#options.identity;
    return { protocol: PROTOCOL_VERSION, clusterId, from: serverId, to, diskUuid };
  }

  /** @returns false when the message was dropped */
  send(message: RaftMessage): boolean {
    return this.#linkTo(message.to)?.send(message) ?? false;
  }

  /** A stream for a snapshot; undefined when the member is not connected. */
  openStream(to: number): { stream: PeerStream; hello: RaftHello } | undefined {
    for (const { server, member } of this.present()) {
      const stream = member === to ? this.#links.get(server)?.openStream() : undefined;
      if (stream) return { stream, hello: this.hello(server) };
    }
    return undefined;
  }

  connected(member: number): boolean {
    return this.#linkTo(member)?.connected ?? false;
  }

  /** Whether the server answers, with whatever disk. */
  serverConnected(server: number): boolean {
    return this.#links.get(server)?.connected ?? false;
  }

  /** host:port of a server; undefined when it is not known. */
  addressOf(server: number): string | undefined {
    const link = this.#links.get(server);
    if (link?.connected) return link.address;
    return this.#addressesOf(server)[0];
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
    /** The member that dialled; 0 before its hello. */
    let from = 0;
    let server = 0;
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
        server = hello.from;
        from = memberIdOf(hello.diskUuid);
        stream.send({ body: { $case: 'accepted', value: this.#options.present() } });
        this.#links.get(server)?.hurry();
      } else if (body?.$case === 'message') {
        this.#receive(stream, from, server, body.value);
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
    if (!this.#links.has(hello.from))
      return `metaserver ${hello.from} is not a member: add it with 'holdfast metaserver add'`;
    if (!isDiskUuid(hello.diskUuid)) return `no disk uuid: '${hello.diskUuid}'`;
    return undefined;
  }

  #receive(stream: PeerStream, from: number, server: number, message: RaftMessage): void {
    const problem = messageProblem(message, from, this.#self);
    if (problem !== undefined) {
      this.#malformed(stream, from, problem);
      return;
    }
    this.#incoming.set(from, stream);
    this.#links.get(server)?.heard();
    this.#options.events.onMessage(message);
  }

  #malformed(stream: PeerStream, from: number, problem: string): void {
    this.#options.log.warn({ peer: from, address: stream.peer, problem }, 'malformed message: stream ended');
    stream.destroy(problem);
  }
}
