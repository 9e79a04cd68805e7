import type { RaftConfState, RaftEntry, RaftMessage, RaftSnapshotMeta } from '../../proto/gen/raft.js';

/** Never changes without being persisted first (Raft, section 5.1). */
export interface HardState {
  term: number;
  /** Server voted for in `term`; 0: none. */
  vote: number;
  commit: number;
}

/**
 * What the shell must do after feeding the core, in this order (etcd-io/raft's contract):
 *  1. append `entries` and `hardState` to stable storage (one fdatasync when `mustSync`); install `snapshot`
 *     if present;
 *  2. `messages` may be sent at once: they need no persistence of this Ready (a leader's appends run beside
 *     its own fdatasync); `messagesAfterPersist` (votes, append responses) only when step 1 is durable;
 *  3. apply `committed` to the state machine, in order;
 *  4. call `persisted(index, term)` (the last of `entries`, or the snapshot's) when step 1 is durable,
 *     `applied(index)` when step 3 is done; both may come later, and further Readys may be taken meanwhile.
 *
 * In detail:
 *  - The LogReader must show `entries` and `snapshot` before the next call into the core: entries from
 *    `entries[0].index` on replace what was there; after a snapshot firstIndex() is its index + 1.
 *  - Persistence is in order: a Ready counts as durable when it and all Readys before it are, also when it
 *    holds nothing to persist itself. `messagesAfterPersist` wait for that.
 *  - A message in `messagesAfterPersist` that is addressed to this server itself (its own vote, which counts
 *    only when durable) is handed back through step().
 *  - `committed` holds only entries that are durable here (after `persisted`), so they may be applied at
 *    once. ENTRY_CONF_CHANGE entries among them are for the shell to store (the conf that belongs to its
 *    applied index); the core has taken notice itself. An ENTRY_COMMAND without data is a new leader's first
 *    entry: nothing to apply.
 *  - A RAFT_SNAPSHOT message makes the shell stream the snapshot; it must answer with reportSnapshot in any
 *    case. The receiving shell steps the message only when all bytes have arrived.
 *  - A commit index alone changes `hardState` without `mustSync`.
 */
export interface Ready {
  hardState?: HardState;
  entries: RaftEntry[];
  mustSync: boolean;
  snapshot?: RaftSnapshotMeta;
  committed: RaftEntry[];
  messages: RaftMessage[];
  messagesAfterPersist: RaftMessage[];
  /** Linearizable reads that may be answered once `applied >= index`. */
  readStates: ReadState[];
  /** Present when role, term or leader changed since the last Ready. */
  softState?: SoftState;
}

export interface ReadState {
  /** As handed to readIndex. */
  context: number;
  index: number;
  /** True: this server lost its leadership; answer NOT_LEADER. */
  failed?: boolean;
}

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

export interface SoftState {
  role: Role;
  term: number;
  /** 0: unknown. */
  leader: number;
}

/** The core's read access to entries that are already persisted or about to be. Synchronous. */
export interface LogReader {
  firstIndex(): number;
  lastIndex(): number;
  /** Undefined when compacted away or not there yet; known for firstIndex() - 1 (0 for index 0). */
  term(index: number): number | undefined;
  /** Entries lo <= index < hi up to `maxBytes` (at least one); undefined when lo was compacted away. */
  entries(lo: number, hi: number, maxBytes: number): RaftEntry[] | undefined;
  /** The newest snapshot that could be sent. */
  snapshot(): RaftSnapshotMeta | undefined;
}

export interface RaftConfig {
  id: number;
  /** Times in ms; the election time-out is drawn from [electionMs, 2 * electionMs). */
  electionMs: number;
  heartbeatMs: number;
  /**
   * How long a server that answered a heartbeat helps nobody else into leadership, whatever happens to its
   * connection: the leader serves reads without a round trip on that. A broken connection starts an election
   * after this time at the earliest. Default: three heartbeats, at most electionMs.
   */
  leaseMs?: number;
  /** How long entries may wait for followers whose answers a majority does not need; 0: not at all. */
  deferMs: number;
  /** .. but no longer than until nothing was committed for so long. */
  patienceMs: number;
  maxAppendBytes: number;
  maxInflightBytes: number;
  /** Proposed and uncommitted bytes beyond which propose() refuses. */
  maxUncommittedBytes: number;
}

export type { RaftConfState, RaftEntry, RaftMessage, RaftSnapshotMeta };
