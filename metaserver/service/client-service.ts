import { assert } from '../../common/assert.js';
import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import {
  type Attr,
  CommandResult,
  type Hello,
  type HelloReply,
  type Lease,
  type LeaseAnnouncement,
  type LeaseReturn,
  type LockRequest,
  MetaServiceDefinition,
  type Mutation,
  type MutationBatch,
  type MutationReply,
  type Open,
  type QuotaRules,
  type ReadReply,
  type ReadRequest,
  type ReserveQuota,
} from '../../proto/gen/meta.js';
import type { RpcServices } from '../../proto/rpc.js';
import { LEASES_PER_ANNOUNCEMENT_MAX, PROTOCOL_VERSION, type SessionTimes } from '../../proto/types.js';
import { withinQuota } from '../namespace/quota-room.js';
import { okReply } from '../namespace/replies.js';
import { ClientStream, type ClientStreamHost, DIR_PAGE_ENTRIES_MAX, type Session } from './client-stream.js';
import type { LeaderDuty, Leadership } from './leadership.js';
import { LeaseGate } from './lease-gate.js';
import { type LockAnswer, LockService } from './lock-service.js';
import { GREETING_TIMEOUT_MS, type MetaReplica, type MetaState, type SessionRecord } from './ports.js';
import type { CommandBody, Proposer } from './proposer.js';
import { ReadGate } from './read-gate.js';
import { SessionExpiry } from './session-expiry.js';
import { SESSIONS_MAX, type SessionTable } from './session-table.js';

/** Streams of clients at one time, greeted or not. */
export const CLIENT_STREAMS_MAX = 8192;
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
  times: SessionTimes;
  clock: Clock;
  log: Logger;
  serverId: number;
  /** host:port of every metaserver. */
  metaservers(): string[];
  /** Undefined while too few chunkservers have reported to this leader. */
  capacity(): Capacity | undefined;
  /** Whether the data of this inode is being deleted: it cannot be opened any more. */
  isReclaiming(ino: number): boolean;
  /** Resolves when no chunkserver takes anything any more from sessions that are over. @throws HoldfastError NOT_LEADER */
  shutOut(): Promise<void>;
}

/** MetaService: sessions of clients, their reads and mutations, and what is pushed to them. */
export class ClientService implements LeaderDuty, ClientStreamHost {
  readonly #options: ClientServiceOptions;
  readonly #gate: ReadGate;
  readonly #leases: LeaseGate;
  readonly #locks = new LockService();
  readonly #streams = new Set<ClientStream>();
  readonly #expiry: SessionExpiry;
  /** Tells those whose changes wait for leases that the leadership is over: the gate forgets them. */
  readonly #waitingForInodes = new Set<(error: HoldfastError) => void>();

  constructor(options: ClientServiceOptions) {
    this.#options = options;
    this.#gate = new ReadGate(options.replica);
    const { state, clock, sessions, times } = options;
    this.#leases = new LeaseGate({
      state,
      clock,
      times,
      isOpenElsewhere: (session, ino) => sessions.isOpenElsewhere(sessions.get(session), ino),
      isContested: (ino) => sessions.isContested(ino),
      recall: (session, leases) => sessions.get(session)?.stream?.recall(leases),
    });
    this.#expiry = new SessionExpiry({
      ...options,
      leases: this.#leases,
      locks: this.#locks,
      notLeader: () => options.leadership.notLeader(),
      onOver: (session) => this.#over(session),
    });
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
    const records = state.sessions();
    sessions.reset(records, clock.now());
    const fencing = state.fencing();
    this.#leases.begin(records, fencing);
    this.#openLocks();
    this.#expiry.begin(fencing);
  }

  /** Ends all streams: the clients look for the new leader and announce themselves there. */
  end(): void {
    this.#expiry.end();
    this.#leases.end();
    this.#locks.end();
    const error = this.#options.leadership.notLeader();
    for (const stream of [...this.#streams]) stream.refuse(0, error);
    for (const reject of this.#waitingForInodes) reject(error);
    this.#waitingForInodes.clear();
    this.#options.sessions.reset([], 0);
  }

  /** Pushes the map to every connected client. */
  pushMap(): void {
    const map = this.#options.state.map();
    for (const stream of this.#streams) stream.pushMap(map);
  }

  /** Tells every connected client which quotas there are. */
  pushQuotaRules(): void {
    const rules = this.quotaRules();
    for (const stream of this.#streams) stream.pushQuotaRules(rules);
  }

  quotaRules(): QuotaRules {
    return this.#options.state.quotas().rules();
  }

  /**
   * Makes a change of inodes that no client has asked for, when nobody believes anything about them.
   * @throws HoldfastError NOT_LEADER when the leadership ends before
   */
  changing<T>(inos: readonly number[], make: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waitingForInodes.add(reject);
      this.#leases.changeInodes(inos, (ended) => {
        this.#waitingForInodes.delete(reject);
        make().then(resolve, reject).finally(ended);
      });
    });
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
    const session = this.#bind(stream, record);
    this.#leases.beginAnnouncement(record);
    this.announce(session, hello, { leases: hello.leases, last: !hello.leasesFollow });
    const { id, hostname, mountPoint } = record;
    log.info({ session: id, hostname, mountPoint, resumed: hello.session !== 0 }, 'client connected');
    const { timeoutMs: sessionTimeoutMs, leaseMs } = this.#options.times;
    return {
      session: id,
      sessionTimeoutMs,
      leaseMs,
      clusterId,
      map: undefined,
      metaservers: metaservers(),
      serverId,
    };
  }

  announce(session: Session, hello: Hello, { leases, last }: LeaseAnnouncement): void {
    const { sessions } = this.#options;
    const { record } = session;
    if (sessions.get(record.id) !== session) throw new HoldfastError('SESSION_EXPIRED');
    if (leases.length > LEASES_PER_ANNOUNCEMENT_MAX)
      throw new HoldfastError('PROTOCOL', `${leases.length} leases in one message`);
    this.#leases.announce(record.id, leases, !session.announced);
    if (!last) return;
    // With the last lease: until then it counts as one that has not come, and what it has open as unknown.
    if (!sessions.announce(session, hello.openInodes, hello.writingInodes))
      throw new HoldfastError('ENOMEM', 'too many open inodes');
    this.#leases.endAnnouncement(record.id);
    this.#locks.announced(record.id, hello.locks);
    this.#openLocks();
  }

  map(): ClusterMap {
    return this.#options.state.map();
  }

  passRead(run: () => void, fail: (error: HoldfastError) => void): boolean {
    return this.#gate.pass(run, fail);
  }

  read(session: Session, request: ReadRequest, again: () => void): ReadReply | undefined {
    const { op } = request;
    if (!op) throw new HoldfastError('PROTOCOL', 'read without an operation');
    return this.#leases.read(session.record.id, op, () => this.#answer(session, request, op), again);
  }

  leasesOfRefusal(session: Session, { op }: ReadRequest, error: HoldfastError): Lease[] {
    return op ? this.#leases.leasesOfRefusal(session.record.id, op, error) : [];
  }

  leaseReturn(session: Session, { leases }: LeaseReturn): void {
    this.#leases.returned(session.record.id, leases);
  }

  lock(
    session: Session,
    request: LockRequest,
    answer: LockAnswer,
    fail: (error: HoldfastError) => void,
  ): void {
    const run = (): void => {
      try {
        this.#locks.request(session.record.id, request, answer);
      } catch (error) {
        fail(toHoldfastError(error));
      }
    };
    // Only who certainly leads may give a lock.
    this.#gate.passInOrder(run, fail);
  }

  cancelLock(session: Session, wait: number): void {
    // Behind the request that it means; when that fails, there is nothing to cancel.
    this.#gate.passInOrder(
      () => this.#locks.cancel(session.record.id, wait),
      () => {},
    );
  }

  /** What a session held goes to others; only who certainly leads may give its locks. */
  #over(id: number): void {
    this.#leases.over(id);
    const run = (): void => {
      this.#locks.over(id);
      this.#openLocks();
    };
    this.#gate.pass(run, () => {}); // the leadership is over
  }

  #openLocks(): void {
    if (this.#leases.open && this.#options.sessions.allAnnounced) this.#locks.open();
  }

  mutate(
    session: Session,
    mutation: Mutation,
    done: (result: CommandResult) => void,
    fail: (error: HoldfastError) => void,
  ): void {
    const { op } = mutation;
    if (!op) {
      fail(new HoldfastError('PROTOCOL', 'mutation without an operation'));
      return;
    }
    if (op.$case === 'closeSession' && op.value.unfinished) {
      this.#leave(session, done, fail);
      return;
    }
    this.#leases.change(session.record.id, [op], (ended) => {
      const body: CommandBody = { $case: 'mutation', value: mutation };
      this.#propose(body, ended, fail, (result) => {
        this.#applied(session, op, result);
        return done(result);
      });
    });
  }

  mutateBatch(
    session: Session,
    batch: MutationBatch,
    done: (result: CommandResult) => void,
    fail: (error: HoldfastError) => void,
  ): void {
    const ops: NonNullable<Mutation['op']>[] = [];
    for (const { op } of batch.mutations) if (op) ops.push(op);
    this.#leases.change(session.record.id, ops, (ended) =>
      this.#propose({ $case: 'batch', value: batch }, ended, fail, (result) => {
        for (const [at, each] of (result.batch?.results ?? []).entries()) {
          const op = batch.mutations[at]?.op;
          if (op) this.#applied(session, op, each);
        }
        done(result);
      }),
    );
  }

  /** As an expiry that the client asks for: see CloseSession. */
  #leave(
    { record }: Session,
    done: (result: CommandResult) => void,
    fail: (error: HoldfastError) => void,
  ): void {
    this.#expiry.left(record.id).then(
      () => done(CommandResult.create({ mutation: okReply() })),
      (error: unknown) => fail(toHoldfastError(error)),
    );
  }

  /** @param ended to be called behind `done` or `fail`, of which exactly one is called */
  #propose(
    body: CommandBody,
    ended: () => void,
    fail: (error: HoldfastError) => void,
    done: (result: CommandResult) => void,
  ): void {
    this.#options.proposer.propose(body).then(
      (result) => {
        done(result);
        ended();
      },
      (error: unknown) => {
        fail(toHoldfastError(error));
        // An outcome can be unknown only when the leadership is lost, and every lease with it.
        ended();
      },
    );
  }

  #answer(session: Session, request: ReadRequest, op: NonNullable<ReadRequest['op']>): ReadReply {
    switch (op.$case) {
      case 'statFs':
        return this.#statFs(request);
      case 'open':
        return this.#open(session, op.value, request);
      case 'readDir':
        op.value.maxEntries = Math.min(op.value.maxEntries || 1, DIR_PAGE_ENTRIES_MAX);
        return this.#options.state.read(request);
      default:
        return this.#options.state.read(request);
    }
  }

  /** Behind a mutation's application: what its answer carries, and what it means for the session. */
  #applied(
    session: Session,
    op: NonNullable<Mutation['op']>,
    { error, mutation, repeated }: CommandResult,
  ): void {
    if (error !== 0) return;
    const { sessions } = this.#options;
    const { id } = session.record;
    if (op.$case === 'closeSession') {
      sessions.remove(id);
      this.#over(id);
      return;
    }
    if (op.$case === 'reserveQuota' && mutation?.quota?.held) this.#recallQuota(id, op.value);
    if (!mutation || sessions.get(id) !== session) return;
    if (repeated) this.#renew(mutation);
    const made = mutation.result;
    if (op.$case === 'makeNode' && op.value.open && made?.$case === 'attr') {
      sessions.open(session, made.value.ino);
    }
    if (session.record.wantsLeases && !repeated) this.#leases.grantAfter(id, op, mutation);
  }

  /** What an answer of long ago says of attributes may be past: others, and this client itself, may have changed them since. */
  #renew(mutation: MutationReply): void {
    mutation.parents = [];
    if (mutation.result?.$case !== 'attr') return;
    const { ino } = mutation.result.value;
    try {
      const { result } = this.#options.state.read({ op: { $case: 'getAttr', value: { ino } } });
      if (result?.$case === 'attr') mutation.result = result;
    } catch (error) {
      // It is gone: what it was last will do.
      if (toHoldfastError(error).errorName !== 'ENOENT') throw error;
    }
  }

  /** Whether a session may know more of the inode than the leader: it is asked for that. */
  unveil(ino: number): boolean {
    return this.#leases.unveil(ino);
  }

  /** Somebody needs what others have set aside. */
  #recallQuota(needy: number, { need }: ReserveQuota): void {
    const { state, sessions } = this.#options;
    const holders = new Set(need.flatMap(({ kind, id }) => state.quotas().reserved(kind, id).sessions));
    for (const id of holders) if (id !== needy) sessions.get(id)?.stream?.recallQuota(need);
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
    const { clientUuid, hostname, mountPoint, place = '', wantsLeases = false } = hello;
    const value = { clientUuid, hostname, mountPoint, place, wantsLeases };
    const result = await proposer.propose({ $case: 'openSession', value });
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
    assert(result.session > 0, 'an opened session has a number');
    if (place !== '') this.#expiry.expireFormer(place, result.session);
    return this.#options.state.session(result.session) ?? { id: result.session, ...value };
  }

  #resume(hello: Hello): SessionRecord {
    const record = this.#options.state.session(hello.session);
    if (!record || record.clientUuid !== hello.clientUuid) throw new HoldfastError('SESSION_EXPIRED');
    return record;
  }

  /** Makes `stream` the session's only one. */
  #bind(stream: ClientStream, record: SessionRecord): Session {
    const { sessions, clock } = this.#options;
    const session = sessions.add(record, clock.now());
    const former = session.stream;
    session.stream = stream;
    stream.bind(session);
    session.heardAt = clock.now();
    if (former && former !== stream) former.end('the session was taken up on another stream');
    return session;
  }

  #open(session: Session, { ino, write }: Open, request: ReadRequest): ReadReply {
    const { state, sessions, isReclaiming } = this.#options;
    const reply = state.read(request);
    const attr: Attr | undefined = reply.result?.$case === 'attr' ? reply.result.value : undefined;
    // An inode without a name can be opened again only while somebody holds it: else its data may be going already.
    if (isReclaiming(ino) || (attr?.nlink === 0 && !sessions.isOpen(ino))) throw new HoldfastError('ESTALE');
    if (!sessions.open(session, ino)) throw new HoldfastError('ENOMEM', 'too many open inodes');
    if (write) sessions.write(session, ino);
    return reply;
  }

  #statFs(request: ReadRequest): ReadReply {
    const capacity = this.#options.capacity();
    if (!capacity)
      throw new HoldfastError('UNAVAILABLE', 'the chunkservers have not reported their capacity yet');
    const { state } = this.#options;
    const reply = state.read(request);
    const { op } = request;
    if (reply.result?.$case === 'statFs' && op?.$case === 'statFs') {
      const whole = { ...reply.result.value, ...capacity };
      reply.result.value = withinQuota(whole, state.quotas().room(op.value.ino ?? 0));
    }
    return reply;
  }
}
