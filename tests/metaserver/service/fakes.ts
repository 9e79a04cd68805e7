import assert from 'node:assert/strict';
import type { Clock, Timer } from '../../../common/clock.js';
import type {
  MembershipProgress,
  MetaQuotas,
  MetaReplica,
  MetaState,
  ReclaimItem,
  ReclaimKey,
  ReplicaStatus,
  SessionRecord,
} from '../../../metaserver/service/ports.js';
import { errorCode, HoldfastError } from '../../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Fence,
  ReplicaState,
} from '../../../proto/gen/cluster.js';
import {
  Attr,
  Command,
  CommandResult,
  type InitCluster,
  type Mutation,
  MutationReply,
  type OpenSession,
  type ReadReply,
  type ReadRequest,
} from '../../../proto/gen/meta.js';
import { S_IFMT, S_IFREG } from '../../../proto/types.js';

/** Virtual time: timers run in order inside `advance`. */
export class FakeClock implements Clock {
  #now = 0;
  #nextId = 1;
  readonly #timers = new Map<number, { at: number; every: number; fn: () => void }>();

  now(): number {
    return this.#now;
  }

  wall(): { sec: number; nsec: number } {
    return { sec: 1_000_000 + Math.floor(this.#now / 1000), nsec: 0 };
  }

  after(ms: number, fn: () => void): Timer {
    return this.#add(ms, 0, fn);
  }

  every(ms: number, fn: () => void): Timer {
    return this.#add(ms, ms, fn);
  }

  /** Lets `ms` pass, a timer at a time, and promises settle behind each. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      const next = [...this.#timers].sort((a, b) => a[1].at - b[1].at || a[0] - b[0])[0];
      if (!next || next[1].at > end) break;
      const [id, timer] = next;
      this.#now = Math.max(this.#now, timer.at);
      if (timer.every > 0) timer.at = this.#now + timer.every;
      else this.#timers.delete(id);
      timer.fn();
      await settled();
    }
    this.#now = end;
    await settled();
  }

  /** Time passes while this process is stopped: timers are late. */
  pause(ms: number): void {
    this.#now += ms;
  }

  #add(ms: number, every: number, fn: () => void): Timer {
    const id = this.#nextId++;
    this.#timers.set(id, { at: this.#now + ms, every, fn });
    return { cancel: () => void this.#timers.delete(id) };
  }
}

/** Lets all promises that are due settle. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export const INIT: InitCluster = {
  clusterId: 'c1',
  replicas: 3,
  minInSync: 2,
  chunkSize: 4096,
  pgCount: 6,
  chunkservers: 3,
  rootUid: 0,
  rootGid: 0,
};

/** A state machine of the barest kind: flat files by name, sessions with their results, the map by simple rules. */
export class FakeState implements MetaState {
  readonly sessionRecords = new Map<number, SessionRecord>();
  readonly inodes = new Map<number, Attr>();
  readonly names = new Map<string, number>();
  readonly results = new Map<string, CommandResult>();
  readonly rows = new Map<string, ReclaimItem>();
  /** Every command applied, by name. */
  readonly applied: string[] = [];
  #init: InitCluster | undefined;
  #nextIno = 2;
  #lastSession = 99;
  readonly #map: ClusterMap = {
    version: 0,
    clusterId: '',
    replicas: 0,
    minInSync: 0,
    chunkSize: 0,
    servers: [],
    pgs: [],
  };

  isReserved(): boolean {
    return false;
  }
  view(): Promise<never> {
    return Promise.reject(new HoldfastError('UNAVAILABLE', 'no store'));
  }
  cluster(): InitCluster | undefined {
    return this.#init;
  }
  map(): ClusterMap {
    return structuredClone(this.#map);
  }
  mapVersion(): number {
    return this.#map.version;
  }
  session(id: number): SessionRecord | undefined {
    return this.sessionRecords.get(id);
  }
  sessions(): SessionRecord[] {
    return [...this.sessionRecords.values()];
  }
  readonly toFence = new Set<number>();
  fencing(): number[] {
    return [...this.toFence];
  }
  fence(): Fence {
    return { version: this.applied.length, upto: this.#lastSession, live: [...this.sessionRecords.keys()] };
  }
  quotas(): MetaQuotas {
    const rules = this.quotaRules;
    return {
      rules: () => rules,
      list: () => [],
      reserved: () => ({ bytes: 0, inodes: 0, sessions: [] }),
      stepInodes: () => [],
      room: () => ({ bytes: undefined, inodes: undefined }),
    };
  }
  readonly quotaRules = { rules: [] };
  usage(): { inodes: number; orphans: number } {
    return { inodes: this.inodes.size, orphans: this.rows.size };
  }
  reclaims(after: ReclaimKey | undefined, limit: number): ReclaimItem[] {
    const behind = (row: ReclaimItem): boolean =>
      !after || row.ino > after.ino || (row.ino === after.ino && row.truncateSeq > after.truncateSeq);
    return [...this.rows.values()]
      .sort((a, b) => a.ino - b.ino || a.truncateSeq - b.truncateSeq)
      .filter(behind)
      .slice(0, limit);
  }

  read({ op }: ReadRequest): ReadReply {
    if (op?.$case === 'statFs') {
      const value = {
        totalBytes: 0,
        freeBytes: 0,
        availBytes: 0,
        inodesUsed: this.inodes.size,
        inodesFree: 7,
      };
      return { result: { $case: 'statFs', value }, leases: [] };
    }
    assert.ok(op?.$case === 'lookup' || op?.$case === 'open' || op?.$case === 'getAttr');
    const ino = op.$case === 'lookup' ? this.names.get(String(op.value.name)) : op.value.ino;
    const attr = this.inodes.get(ino ?? 0);
    if (!attr) throw new HoldfastError('ENOENT');
    return { result: { $case: 'attr', value: { ...attr } }, leases: [] };
  }

  apply({ body }: Command): CommandResult {
    assert.ok(body);
    this.applied.push(body.$case);
    switch (body.$case) {
      case 'initCluster':
        this.#init = body.value;
        this.#map.clusterId = body.value.clusterId;
        this.#map.replicas = body.value.replicas;
        return this.#mapChanged();
      case 'openSession':
        return this.#openSession(body.value);
      case 'expireSession':
        if (this.sessionRecords.delete(body.value.session)) this.toFence.add(body.value.session);
        return CommandResult.create({});
      case 'sessionFenced':
        this.toFence.delete(body.value.session);
        return CommandResult.create({});
      case 'mutation':
        return this.#mutation(body.value);
      case 'reclaimDone':
        for (const { ino, truncateSeq } of [body.value, ...(body.value.also?.items ?? [])])
          this.rows.delete(`${ino}/${truncateSeq}`);
        return CommandResult.create({});
      case 'putChunkServer':
        return this.#putServer(body.value.server as ChunkServerInfo);
      case 'serverDown':
        return this.#setServer(body.value.server, false, ReplicaState.REPLICA_OUT);
      case 'replicaDrop':
        return this.#setReplica(body.value.pg, body.value.server, ReplicaState.REPLICA_OUT);
      case 'replicaInSync':
        return this.#setReplica(body.value.pg, body.value.server, ReplicaState.REPLICA_IN_SYNC);
      case 'createPgs':
        this.#map.pgs = body.value.pgs;
        return this.#mapChanged();
      default:
        throw new Error(`no ${body.$case} here`);
    }
  }

  addRow(row: ReclaimItem): void {
    this.rows.set(`${row.ino}/${row.truncateSeq}`, row);
  }

  #openSession({
    clientUuid,
    hostname,
    mountPoint,
    place = '',
    wantsLeases = false,
  }: OpenSession): CommandResult {
    const present = this.sessions().find((session) => session.clientUuid === clientUuid);
    const id = present?.id ?? ++this.#lastSession;
    this.sessionRecords.set(id, { id, clientUuid, hostname, mountPoint, place, wantsLeases });
    return CommandResult.create({ session: id });
  }

  #mutation({ session, seq, op }: Mutation): CommandResult {
    if (!this.sessionRecords.has(session)) return failure('SESSION_EXPIRED');
    const key = `${session}/${seq}`;
    const stored = this.results.get(key);
    if (stored) return { ...structuredClone(stored), repeated: true };
    let result = CommandResult.create({
      mutation: MutationReply.create({ result: { $case: 'ok', value: {} } }),
    });
    if (op?.$case === 'makeNode') {
      const name = String(op.value.name);
      if (this.names.has(name)) result = failure('EEXIST');
      else {
        const { ino = this.#nextIno++, mode: asked } = op.value;
        const mode = (asked & S_IFMT) === 0 ? S_IFREG | asked : asked;
        const attr = Attr.create({ ino, mode, nlink: 1 });
        this.inodes.set(attr.ino, attr);
        this.names.set(name, attr.ino);
        const reply = { result: { $case: 'attr' as const, value: attr }, created: true };
        result = CommandResult.create({ mutation: MutationReply.create(reply) });
      }
    } else if (op?.$case === 'unlink') {
      const ino = this.names.get(String(op.value.name)) as number;
      (this.inodes.get(ino) as Attr).nlink = 0;
      this.names.delete(String(op.value.name));
      this.addRow({ ino, truncateSeq: 0, from: 0, size: 1, chunkSize: 4096 });
    } else if (op?.$case === 'commitWrite') {
      (this.inodes.get(op.value.ino) as Attr).size = op.value.newSize;
    } else if (op?.$case === 'closeSession') this.sessionRecords.delete(session);
    this.results.set(key, structuredClone(result));
    return result;
  }

  #putServer(server: ChunkServerInfo): CommandResult {
    this.#map.servers = [...this.#map.servers.filter((other) => other.id !== server.id), server];
    for (const pg of this.#map.pgs) {
      for (const replica of pg.replicas) {
        if (replica.server === server.id && replica.state === ReplicaState.REPLICA_OUT) {
          replica.state = ReplicaState.REPLICA_RECOVERING;
          pg.epoch++;
        }
      }
    }
    return this.#mapChanged();
  }

  #setServer(id: number, alive: boolean, state: ReplicaState): CommandResult {
    for (const server of this.#map.servers) if (server.id === id) server.alive = alive;
    for (const pg of this.#map.pgs) this.#setReplica(pg.id, id, state);
    return this.#mapChanged();
  }

  #setReplica(pg: number, server: number, state: ReplicaState): CommandResult {
    const group = this.#map.pgs[pg];
    assert.ok(group);
    group.epoch++;
    for (const replica of group.replicas) if (replica.server === server) replica.state = state;
    return this.#mapChanged();
  }

  #mapChanged(): CommandResult {
    this.#map.version++;
    return CommandResult.create({ mapChanged: true });
  }
}

function failure(name: 'EEXIST' | 'SESSION_EXPIRED'): CommandResult {
  return CommandResult.create({ error: errorCode(name), errorText: name });
}

/** A replica of one: a proposal is applied a turn later, unless it is held back or made to fail. */
export class FakeReplica implements MetaReplica {
  readonly state: FakeState;
  lease = true;
  /** Proposals wait in `held` while this is set. */
  hold = false;
  readonly held: (() => void)[] = [];
  /** The next proposals fail with these. */
  readonly failures: HoldfastError[] = [];
  barriers = 0;
  onBarrier: () => void = () => {};
  leaderAddress = '';
  #leads = false;
  readonly #leadership: ((leads: boolean) => void)[] = [];
  readonly #applied: (() => void)[] = [];

  constructor(state: FakeState) {
    this.state = state;
  }

  lead(leads: boolean): void {
    this.#leads = leads;
    for (const listener of this.#leadership) listener(leads);
  }

  async propose(bytes: Buffer): Promise<CommandResult> {
    if (!this.#leads) throw new HoldfastError('NOT_LEADER');
    const failed = this.failures.shift();
    if (failed) throw failed;
    if (this.hold) await new Promise<void>((resolve) => this.held.push(resolve));
    else await Promise.resolve();
    const result = this.state.apply(Command.decode(bytes));
    for (const listener of this.#applied) listener();
    return result;
  }

  release(): void {
    this.hold = false;
    for (const go of this.held.splice(0)) go();
  }

  canReadNow(): boolean {
    return this.#leads && this.lease;
  }

  async readBarrier(): Promise<void> {
    this.barriers++;
    this.onBarrier();
    await settled();
    if (!this.#leads) throw new HoldfastError('NOT_LEADER');
  }

  status(): ReplicaStatus {
    const member = {
      id: 1,
      address: 'a:1',
      alive: true,
      role: 'unknown' as const,
      matchIndex: 5,
      diskUuid: 'd',
    };
    return {
      id: 1,
      role: this.#leads ? 'leader' : 'follower',
      term: 3,
      leader: this.#leads ? 1 : 2,
      leaderAddress: this.leaderAddress,
      commitIndex: 9,
      appliedIndex: 8,
      firstIndex: 1,
      members: [member],
      problems: [],
    };
  }

  onLeadership(listener: (leads: boolean) => void): void {
    this.#leadership.push(listener);
    if (this.#leads) listener(true);
  }

  onApplied(listener: () => void): void {
    this.#applied.push(listener);
  }

  /** What addServer() and removeServer() were asked for, and what they answer or throw. */
  readonly membershipCalls: string[] = [];
  membership: MembershipProgress | HoldfastError = { stage: 'waiting', match: 0, commit: 9, voters: 3 };

  addServer(server: number, address: string): MembershipProgress {
    return this.#change(`add ${server} ${address}`);
  }

  removeServer(server: number): MembershipProgress {
    return this.#change(`remove ${server}`);
  }

  #change(call: string): MembershipProgress {
    if (!this.#leads) throw new HoldfastError('NOT_LEADER');
    this.membershipCalls.push(call);
    if (this.membership instanceof HoldfastError) throw this.membership;
    return this.membership;
  }

  transferred: number[] = [];
  async transferLeader(to: number): Promise<void> {
    this.transferred.push(to);
  }
}
