import type { ClusterMap, Fence } from '../../proto/gen/cluster.js';
import type {
  CommandResult,
  InitCluster,
  QuotaKind,
  QuotaRules,
  ReadReply,
  ReadRequest,
} from '../../proto/gen/meta.js';
import type { Quota } from '../namespace/quota-records.js';
import type { QuotaRoom } from '../namespace/quota-view.js';
import type { KvView } from '../store/kv.js';

/**
 * What the leader's services need of the parts beneath them: the Raft replica and the state machine. They are named
 * here, narrow, so that the services can be driven by fakes.
 */

/** A stream whose first message does not come within this time is refused. */
export const GREETING_TIMEOUT_MS = 10_000;

/** One member of the Raft group as this server sees it. */
export interface MemberStatus {
  id: number;
  /** host:port */
  address: string;
  /** Whether it is connected, or this server itself. */
  alive: boolean;
  role: 'leader' | 'follower' | 'candidate' | 'learner' | 'stranger' | 'unknown';
  /** Highest index known to be in its log; only a leader knows it, else 0. */
  matchIndex: number;
  /** Of the disk with which it is a member; empty when it is none. */
  diskUuid: string;
}

export interface ReplicaStatus {
  id: number;
  role: 'leader' | 'follower' | 'candidate';
  term: number;
  /** 0: unknown. */
  leader: number;
  /** host:port; empty: unknown. */
  leaderAddress: string;
  commitIndex: number;
  appliedIndex: number;
  firstIndex: number;
  members: MemberStatus[];
  /** What keeps this server from taking part, a line each. */
  problems: string[];
}

/** How far a change of the membership is. */
export interface MembershipProgress {
  stage: 'waiting' | 'learning' | 'voting' | 'transferring' | 'leaving' | 'done';
  /** Learning: what the joining server has of the commit index. */
  match: number;
  commit: number;
  voters: number;
}

/** The replicated log, as its driver offers it. */
export interface MetaReplica {
  /**
   * Puts an encoded Command into the log; proposals of one server are applied in the order of the calls.
   * @throws HoldfastError NOT_LEADER, OVERLOADED (not in the log), UNAVAILABLE or CONNECTION_LOST (outcome unknown)
   */
  propose(command: Buffer): Promise<CommandResult>;
  /** True when this server is the leader, its lease holds and everything acknowledged is applied: a read is linearizable. */
  canReadNow(): boolean;
  /** Resolves when a read is linearizable. @throws HoldfastError NOT_LEADER or UNAVAILABLE */
  readBarrier(): Promise<void>;
  status(): ReplicaStatus;
  /** Called at every gain and loss of leadership, and at once when this server already leads. */
  onLeadership(listener: (leader: boolean) => void): void;
  /** Called after each batch of commands that was applied. */
  onApplied(listener: () => void): void;
  /** Hands the leadership to `to`; 0: to the best follower. @throws HoldfastError NOT_LEADER, UNAVAILABLE */
  transferLeader(to: number): Promise<void>;
  /** Both are repeated until they are done. @throws HoldfastError NOT_LEADER, EINVAL, EBUSY, OVERLOADED */
  addServer(server: number, address: string): MembershipProgress;
  removeServer(server: number): MembershipProgress;
}

/** A session in the state machine. */
export interface SessionRecord {
  id: number;
  clientUuid: string;
  hostname: string;
  mountPoint: string;
  /** What only one running mount at a time has; empty: unknown. */
  place: string;
  /** It is granted leases, and so has to be asked before others may change what it knows. */
  wantsLeases: boolean;
}

/** Chunks of an inode that wait to be removed from the chunkservers. */
export interface ReclaimItem {
  ino: number;
  /** 0: all of the inode's data goes, it has no name any more; else the number of the truncate. */
  truncateSeq: number;
  /** Bytes: data of [from, size) goes. 0 for a delete. */
  from: number;
  size: number;
  chunkSize: number;
}

export type ReclaimKey = Pick<ReclaimItem, 'ino' | 'truncateSeq'>;

/** Limits and what counts towards them, as of the last command applied. */
export interface MetaQuotas {
  /** Another object whenever clients have to be told. */
  rules(): QuotaRules;
  list(): Readonly<Quota>[];
  /** What sessions have reserved of a quota, and which do. */
  reserved(kind: QuotaKind, id: number): { bytes: number; inodes: number; sessions: number[] };
  /** Inodes that the next step of a tree may change. */
  stepInodes(max: number): number[];
  /** The tightest limits of the trees around an inode. */
  room(ino: number): QuotaRoom;
}

/** The replicated state machine, as far as the services ask it anything. All calls are synchronous. */
export interface MetaState {
  /** @throws HoldfastError a POSIX error */
  read(request: ReadRequest): ReadReply;
  /** The settings of InitCluster; undefined before it was applied. */
  cluster(): InitCluster | undefined;
  map(): ClusterMap;
  /** map().version, without building the map. */
  mapVersion(): number;
  session(id: number): SessionRecord | undefined;
  sessions(): SessionRecord[];
  /** Sessions that expired and are not known yet to be shut out everywhere. */
  fencing(): number[];
  /** Which sessions chunkservers are to refuse now; its version rises with every command. */
  fence(): Fence;
  /** Waiting deletes and truncates behind `after`, ordered by (ino, truncateSeq), at most `limit`. */
  reclaims(after: ReclaimKey | undefined, limit: number): ReclaimItem[];
  /** A session may yet make an inode of this number. */
  isReserved(ino: number): boolean;
  /** The whole store at one moment, with all that was applied before the call; to be closed soon. */
  view(): Promise<KvView>;
  quotas(): MetaQuotas;
  /** Inodes in use, and orphans among them. */
  usage(): { inodes: number; orphans: number };
}
