import { assert } from '../../common/assert.js';
import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import {
  type Attr,
  type CommandResult,
  type Hello,
  type HelloReply,
  MetaServiceDefinition,
  type Mutation,
  type MutationBatch,
  type ReadReply,
  type ReadRequest,
} from '../../proto/gen/meta.js';
import type { RpcServices } from '../../proto/rpc.js';
import { CLIENT_LEASE_MS, PROTOCOL_VERSION, SESSION_TIMEOUT_MS } from '../../proto/types.js';
import { ClientStream, type ClientStreamHost, DIR_PAGE_ENTRIES_MAX, type Session } from './client-stream.js';
import type { LeaderDuty, Leadership } from './leadership.js';
import { GREETING_TIMEOUT_MS, type MetaReplica, type MetaState, type SessionRecord } from './ports.js';
import type { Proposer } from './proposer.js';
import { ReadGate } from './read-gate.js';
import { SESSIONS_MAX, type SessionTable } from './session-table.js';

/** Streams of clients at one time, greeted or not. */
export const CLIENT_STREAMS_MAX = 8192;
/** How often silent sessions are looked for. */
export const SESSION_CHECK_INTERVAL_MS = 1000;
/** A check that comes so late means that this process was paused, and heard nobody. */
const SESSION_CHECK_LATE_MS = 3 * SESSION_CHECK_INTERVAL_MS;

/** Bytes of the whole file system, already divided by the replication. */
export interface Capacity {
  totalBytes: number;
  freeBytes: number;
  availBytes: number;
}

export interface ClientServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  sessions: SessionTable<ClientStream>;
  clock: Clock;
  log: Logger;
  serverId: number;
  /** host:port of every metaserver. */
  metaservers: string[];
  /** Undefined while too few chunkservers have reported to this leader. */
  capacity(): Capacity | undefined;
  /** Whether the data of this inode is being deleted: it cannot be opened any more. */
  isReclaiming(ino: number): boolean;
}

/** MetaService: sessions of clients, their reads and mutations, and what is pushed to them. */
export class ClientService implements LeaderDuty, ClientStreamHost {
  readonly #options: ClientServiceOptions;
  readonly #gate: ReadGate;
  readonly #streams = new Set<ClientStream>();
  /** Sessions whose ExpireSession is in the log. */
  readonly #expiring = new Set<number>();
  #timer: Timer | undefined;
  #checkedAt = 0;

  constructor(options: ClientServiceOptions) {
    this.#options = options;
    this.#gate = new ReadGate(options.replica);
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = MetaServiceDefinition;
    server.addStream(fullName, methods.connect, (rpc) => {
      const stream = new ClientStream(rpc, this);
      if (stream.ended) return;
      this.#streams.add(stream);
      this.#options.clock.after(GREETING_TIMEOUT_MS, () => stream.expectHello(), { weak: true });
      if (this.#streams.size > CLIENT_STREAMS_MAX) {
        stream.refuse(0, new HoldfastError('OVERLOADED', `more than ${CLIENT_STREAMS_MAX} client streams`));
      }
    });
  }

  begin(): void {
    const { clock, sessions, state } = this.#options;
    this.#checkedAt = clock.now();
    sessions.reset(state.sessions(), this.#checkedAt);
    this.#timer = clock.every(SESSION_CHECK_INTERVAL_MS, () => this.#checkSessions(), { weak: true });
  }

  /** Ends all streams: the clients look for the new leader and announce themselves there. */
  end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#expiring.clear();
    const error = this.#options.leadership.notLeader();
    for (const stream of [...this.#streams]) stream.refuse(0, error);
    this.#options.sessions.reset([], 0);
  }

  /** Pushes the map to every connected client. */
  pushMap(): void {
    const map = this.#options.state.map();
    for (const stream of this.#streams) stream.pushMap(map);
  }

  now(): number {
    return this.#options.clock.now();
  }

  async hello(stream: ClientStream, hello: Hello): Promise<HelloReply> {
    const { leadership, replica, state, serverId, metaservers, log } = this.#options;
    if (hello.protocol !== PROTOCOL_VERSION) {
      const text = `client speaks ${hello.protocol}, this server ${PROTOCOL_VERSION}`;
      throw new HoldfastError('VERSION', text);
    }
    await leadership.whenReady();
    await replica.readBarrier();
    const clusterId = state.cluster()?.clusterId ?? '';
    if (hello.clusterId !== '' && hello.clusterId !== clusterId) {
      throw new HoldfastError('WRONG_CLUSTER', `this is cluster ${clusterId}, not ${hello.clusterId}`);
    }
    const record = hello.session === 0 ? await this.#openSession(hello) : this.#resume(hello);
    if (!leadership.ready) throw leadership.notLeader();
    if (stream.ended) throw new HoldfastError('CONNECTION_LOST');
    this.#bind(stream, record, hello.openInodes);
    const { id, hostname, mountPoint } = record;
    log.info({ session: id, hostname, mountPoint, resumed: hello.session !== 0 }, 'client connected');
    const sessionTimeoutMs = SESSION_TIMEOUT_MS;
    const leaseMs = CLIENT_LEASE_MS;
    return { session: id, sessionTimeoutMs, leaseMs, clusterId, map: undefined, metaservers, serverId };
  }

  map(): ClusterMap {
    return this.#options.state.map();
  }

  passRead(run: () => void, fail: (error: HoldfastError) => void): boolean {
    return this.#gate.pass(run, fail);
  }

  read(session: Session, request: ReadRequest): ReadReply {
    const { state } = this.#options;
    switch (request.op?.$case) {
      case 'statFs':
        return this.#statFs(request);
      case 'open':
        return this.#open(session, request.op.value.ino, request);
      case 'readDir':
        request.op.value.maxEntries = Math.min(request.op.value.maxEntries || 1, DIR_PAGE_ENTRIES_MAX);
        return state.read(request);
      default:
        return state.read(request);
    }
  }

  mutate(mutation: Mutation): Promise<CommandResult> {
    return this.#options.proposer.propose({ $case: 'mutation', value: mutation });
  }

  mutateBatch(batch: MutationBatch): Promise<CommandResult> {
    return this.#options.proposer.propose({ $case: 'batch', value: batch });
  }

  applied(session: Session, mutation: Mutation, result: CommandResult): void {
    const { sessions } = this.#options;
    if (mutation.op?.$case === 'closeSession') {
      sessions.remove(session.record.id);
      return;
    }
    if (mutation.op?.$case !== 'makeNode' || !mutation.op.value.open) return;
    const made = result.mutation?.result;
    if (made?.$case === 'attr' && sessions.get(session.record.id) === session) {
      sessions.open(session, made.value.ino);
    }
  }

  openFiles(session: Session, opened: readonly number[], closed: readonly number[]): void {
    const { sessions } = this.#options;
    if (sessions.get(session.record.id) !== session) return;
    for (const ino of opened) sessions.open(session, ino);
    sessions.close(session, closed);
  }

  ended(stream: ClientStream, reason: string): void {
    this.#streams.delete(stream);
    const session = stream.session;
    if (session?.stream !== stream) return;
    session.stream = undefined;
    this.#options.log.info({ session: session.record.id, reason }, 'client disconnected');
  }

  async #openSession(hello: Hello): Promise<SessionRecord> {
    const { proposer, sessions } = this.#options;
    if (sessions.size >= SESSIONS_MAX)
      throw new HoldfastError('OVERLOADED', `more than ${SESSIONS_MAX} sessions`);
    if (hello.clientUuid === '') throw new HoldfastError('PROTOCOL', 'Hello without a client uuid');
    const { clientUuid, hostname, mountPoint } = hello;
    const result = await proposer.propose({
      $case: 'openSession',
      value: { clientUuid, hostname, mountPoint },
    });
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
    assert(result.session > 0, 'an opened session has a number');
    return { id: result.session, clientUuid, hostname, mountPoint };
  }

  #resume(hello: Hello): SessionRecord {
    const record = this.#options.state.session(hello.session);
    if (!record || record.clientUuid !== hello.clientUuid) throw new HoldfastError('SESSION_EXPIRED');
    return record;
  }

  /** Makes `stream` the session's only one. */
  #bind(stream: ClientStream, record: SessionRecord, openInodes: readonly number[]): void {
    const { sessions, clock } = this.#options;
    const session = sessions.add(record, clock.now());
    const former = session.stream;
    session.stream = stream;
    stream.bind(session);
    session.heardAt = clock.now();
    if (former && former !== stream) former.end('the session was taken up on another stream');
    if (!sessions.announce(session, openInodes)) throw new HoldfastError('ENOMEM', 'too many open inodes');
  }

  #open(session: Session, ino: number, request: ReadRequest): ReadReply {
    const { state, sessions, isReclaiming } = this.#options;
    const reply = state.read(request);
    const attr: Attr | undefined = reply.result?.$case === 'attr' ? reply.result.value : undefined;
    // An inode without a name can be opened again only while somebody holds it: else its data may be going already.
    if (isReclaiming(ino) || (attr?.nlink === 0 && !sessions.isOpen(ino))) throw new HoldfastError('ESTALE');
    if (!sessions.open(session, ino)) throw new HoldfastError('ENOMEM', 'too many open inodes');
    return reply;
  }

  #statFs(request: ReadRequest): ReadReply {
    const capacity = this.#options.capacity();
    if (!capacity)
      throw new HoldfastError('UNAVAILABLE', 'the chunkservers have not reported their capacity yet');
    const reply = this.#options.state.read(request);
    if (reply.result?.$case === 'statFs') Object.assign(reply.result.value, capacity);
    return reply;
  }

  #checkSessions(): void {
    const { clock, sessions } = this.#options;
    const now = clock.now();
    const late = now - this.#checkedAt;
    this.#checkedAt = now;
    if (late > SESSION_CHECK_LATE_MS) sessions.forgive(late);
    for (const entry of sessions.silent(now, SESSION_TIMEOUT_MS)) {
      if (!this.#expiring.has(entry.record.id)) void this.#expire(entry.record.id);
    }
  }

  /** A failed proposal is made again at the next check. */
  async #expire(id: number): Promise<void> {
    const { proposer, sessions, log } = this.#options;
    this.#expiring.add(id);
    try {
      await proposer.propose({ $case: 'expireSession', value: { session: id } });
      const stream = sessions.remove(id)?.stream;
      stream?.expire();
      log.warn({ session: id }, 'session expired');
    } catch (error) {
      log.debug({ session: id, error: toHoldfastError(error).errorName }, 'session not expired');
    } finally {
      this.#expiring.delete(id);
    }
  }
}
