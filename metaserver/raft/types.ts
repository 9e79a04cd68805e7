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
 *  1. append `entries` and `hardState` to stable storage (one fdatasync when `mustSync`); install `snapshot` if present;
 *  2. `messages` may be sent at once: they need no persistence of this Ready (a leader's appends run beside its own
 *     fdatasync); `messagesAfterPersist` (votes, append responses) only when step 1 is durable;
 *  3. apply `committed` to the state machine, in order;
 *  4. call `persisted(index, term)` when step 1 is durable, `applied(index)` when step 3 is done; both may come later,
 *     and further Readys may be taken meanwhile.
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
  /** Undefined when compacted away or not there yet. */
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
  maxAppendBytes: number;
  maxInflightBytes: number;
  /** Proposed and uncommitted bytes beyond which propose() refuses. */
  maxUncommittedBytes: number;
}

export type { RaftConfState, RaftEntry, RaftMessage, RaftSnapshotMeta };
