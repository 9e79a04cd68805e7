import type { Clock } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import {
  AdminServiceDefinition,
  type MembershipReply,
  type SessionStatus,
  type StatusReply,
} from '../../proto/gen/admin.js';
import type { Empty } from '../../proto/gen/cluster.js';
import type { RpcServices } from '../../proto/rpc.js';
import type { ChunkServerRegistry } from '../cluster/chunk-server-registry.js';
import type { ClientStream } from './client-stream.js';
import type { Leadership } from './leadership.js';
import type { MembershipProgress, MetaReplica, MetaState } from './ports.js';
import type { SessionTable } from './session-table.js';

/** Sessions that one status answer lists: keeps it within the message limit. */
export const STATUS_SESSIONS_MAX = 4096;
/** Numbers of metaservers go up to it. */
const METASERVER_ID_MAX = 64;

export interface AdminServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  leadership: Leadership;
  registry: ChunkServerRegistry;
  sessions: SessionTable<ClientStream>;
  clock: Clock;
  /** Of the data directory; the state machine may not know it yet. */
  clusterId: string;
  /** Resident memory of this process, bytes. */
  rssBytes(): number;
  notes(): string[];
}

/** AdminService: what `holdfast status` shows. Any metaserver answers for itself; the leader for the cluster as well. */
export class AdminService {
  readonly #options: AdminServiceOptions;

  constructor(options: AdminServiceOptions) {
    this.#options = options;
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = AdminServiceDefinition;
    server.addUnary(fullName, methods.status, async () => this.status());
    server.addUnary(fullName, methods.transferLeader, ({ to }) => this.#transfer(to));
    server.addUnary(fullName, methods.addMetaserver, async ({ id, address }) => this.#add(id, address));
    server.addUnary(fullName, methods.removeMetaserver, async ({ id }) => this.#remove(id));
  }

  status(): StatusReply {
    const { replica, state, leadership, registry, clusterId, rssBytes, notes } = this.#options;
    const raft = replica.status();
    const own: StatusReply = {
      serverId: raft.id,
      clusterId: state.cluster()?.clusterId ?? clusterId,
      role: raft.role,
      term: raft.term,
      leaderId: raft.leader,
      leaderAddress: raft.leaderAddress,
      commitIndex: raft.commitIndex,
      appliedIndex: raft.appliedIndex,
      firstIndex: raft.firstIndex,
      metaservers: raft.members.map((member) => ({
        ...member,
        // Others say their own when they are asked.
        rssBytes: member.id === raft.id ? rssBytes() : 0,
      })),
      map: undefined,
      chunkservers: [],
      sessions: [],
      inodesUsed: 0,
      orphans: 0,
      totalBytes: 0,
      freeBytes: 0,
      configuredChunkservers: 0,
      problems: raft.problems,
      notes: notes(),
    };
    if (!leadership.ready) return own;
    const map = state.map();
    const usage = state.usage();
    const { totalBytes, freeBytes } = registry.capacity(map);
    return {
      ...own,
      map,
      chunkservers: registry.statuses(map),
      sessions: this.#sessions(),
      inodesUsed: usage.inodes,
      orphans: usage.orphans,
      totalBytes,
      freeBytes,
      configuredChunkservers: state.cluster()?.chunkservers ?? 0,
    };
  }

  #sessions(): SessionStatus[] {
    const { sessions, clock } = this.#options;
    const now = clock.now();
    return [...sessions.entries()].slice(0, STATUS_SESSIONS_MAX).map((entry) => ({
      id: entry.record.id,
      hostname: entry.record.hostname,
      mountPoint: entry.record.mountPoint,
      connected: entry.stream !== undefined,
      idleMs: Math.max(0, Math.round(now - entry.heardAt)),
      openFiles: entry.open.size,
    }));
  }

  #add(id: number, address: string): MembershipReply {
    if (!Number.isInteger(id) || id < 1 || id > METASERVER_ID_MAX || address === '') {
      throw new HoldfastError(
        'EINVAL',
        `a metaserver has a number from 1 to ${METASERVER_ID_MAX} and an address`,
      );
    }
    return membershipReply(this.#options.replica.addServer(id, address));
  }

  #remove(id: number): MembershipReply {
    return membershipReply(this.#options.replica.removeServer(id));
  }

  async #transfer(to: number): Promise<Empty> {
    const { replica, leadership } = this.#options;
    const status = replica.status();
    if (status.role !== 'leader') throw leadership.notLeader();
    if (to !== 0 && !status.members.some((member) => member.id === to)) {
      throw new HoldfastError('EINVAL', `there is no metaserver ${to}`);
    }
    await replica.transferLeader(to);
    return {};
  }
}

function membershipReply({ stage, match, commit, voters }: MembershipProgress): MembershipReply {
  return { done: stage === 'done', stage, matchIndex: match, commitIndex: commit, voters };
}
