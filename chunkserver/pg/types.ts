import type { ErrorName, HoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import type { FrameFields, FrameHeader, FrameType } from '../../proto/frame-header.js';
import type { Pg } from '../../proto/gen/cluster.js';
import type { Lineage } from '../../proto/lineage.js';
import { LEASE_MS } from '../../proto/types.js';
import type { ChunkContent, ChunkInfo, ChunkKey, PgState, Version } from '../store/chunk-store.js';
import type { Coverage } from '../store/reserved.js';

/**
 * What the placement group core is told and what it asks for. The core is synchronous and does no I/O:
 * `step(event, now) -> effects`; its shell carries the effects out in their order, before the next step, and reports
 * each completion as an event.
 */

/** Kinds of operations that change a placement group's content. */
export type OpKind = 'write' | 'truncate' | 'delete';

/** What a request that changes something becomes in the group's order. */
export function opKind(kind: PgRequest['kind']): OpKind {
  if (kind === 'delete') return 'delete';
  return kind === 'truncate' || kind === 'discard' ? 'truncate' : 'write';
}

/** Who is told when an operation is with the OS (durable when it asked for that). */
export interface OpOwner {
  applied(op: Op, error: HoldfastError | undefined, allocatedDelta: number, now: number): void;
}

/** One operation of a group's order. */
export interface Op {
  readonly kind: OpKind;
  readonly version: Version;
  readonly ino: number;
  /** Writes only. */
  readonly chunk: number;
  /** Within the chunk; truncates: within the file. */
  readonly offset: number;
  readonly payload: Buffer;
  /** Writes without a payload: so many bytes become a hole, or space is kept for them. */
  readonly hole?: number;
  readonly reserves?: boolean;
  /** Bytes of room that it takes, of what no earlier operation was promised. At a primary. */
  readonly takes?: number;
  readonly payloadCrc: number;
  /** CRC-32C of each block of the payload, when they are known. */
  readonly blockCrcs?: Uint32Array;
  /** Writes of several runs: where they belong, as the table says that the payload begins with. */
  readonly runs?: readonly DataRange[];
  readonly truncateSeq: number;
  readonly chunkSize: number;
  /** To be durable before it is acknowledged. */
  readonly sync: boolean;
  readonly owner: OpOwner;
}

/** A client's request, or the metaserver's purge. The shell extends it with what it needs to answer. */
export interface PgRequest {
  /** `discard` cuts off data that nobody reaches: a truncate that has no number, and is ordered like any operation. */
  readonly kind: 'read' | 'write' | 'sync' | 'truncate' | 'delete' | 'discard';
  readonly epoch: number;
  readonly ino: number;
  readonly chunk: number;
  readonly offset: number;
  readonly length: number;
  readonly truncateSeq: number;
  readonly chunkSize: number;
  readonly payload: Buffer;
  readonly payloadCrc: number;
  /** CRC-32C of each block of the payload, when they are known. */
  readonly blockCrcs?: Uint32Array;
  /** As Op.runs. */
  readonly runs?: readonly DataRange[];
  /** As Op.reserves. */
  readonly reserves?: boolean;
  readonly sync: boolean;
  /** Local milliseconds. */
  readonly deadline: number;
  /** False: refused at once where it would have to wait. */
  readonly patient: boolean;
}

/** The connection that this server dialed as primary, or the one that its primary dialed. */
export type LinkSide = 'out' | 'in';

/** What another chunkserver asks of this one. The shell extends it with what it needs to answer. */
export interface PeerCall {
  readonly from: number;
  /** The connection it came over. */
  readonly side: LinkSide;
  readonly type:
    | FrameType.REPLICATE_WRITE
    | FrameType.REPLICATE_EXTENTS
    | FrameType.REPLICATE_RESERVE
    | FrameType.REPLICATE_TRUNCATE
    | FrameType.REPLICATE_DELETE
    | FrameType.PG_INFO
    | FrameType.LIST
    | FrameType.FETCH
    | FrameType.RESYNC
    | FrameType.CAUGHT_UP;
  readonly header: FrameHeader;
  readonly payload: Buffer;
  readonly blockCrcs?: Uint32Array;
  readonly runs?: readonly DataRange[];
}

/** A question to another chunkserver; `done` is told the answer unless it was cancelled. */
export interface Ask {
  readonly to: number;
  readonly side: LinkSide;
  readonly fields: FrameFields & { type: FrameType };
  /** Copies under the bandwidth cap wait for their turn; groups with fewer copies go first. */
  readonly pace: { bytes: number; copies: number } | undefined;
  cancelled: boolean;
  done(error: HoldfastError | undefined, reply: AskReply | undefined, now: number): void;
}

export interface AskReply {
  header: FrameHeader;
  payload: Buffer;
}

/** A SYNC in progress: servers whose disks have not confirmed it yet. */
export interface SyncBarrier {
  readonly waits: Set<number>;
}

/** Told when what was asked of the store is done. */
export type Completion = (error: HoldfastError | undefined, now: number) => void;

export type Effect =
  /** To the store, then `applied`. */
  | { kind: 'apply'; op: Op }
  /** To each of these servers, then `acked` for each. */
  | { kind: 'replicate'; op: Op; to: number[] }
  /** Read from the store, then `readDone`. */
  | { kind: 'read'; request: PgRequest }
  /** Fetch the chunk from one of these servers and install it, then `repaired`. */
  | { kind: 'repair'; request: PgRequest; from: number[] }
  | {
      kind: 'answer';
      request: PgRequest;
      error: ErrorName | undefined;
      detail?: string;
      aux?: number;
      truncateSeq?: number;
      version?: Version;
      /** To a SYNC. */
      lineage?: Lineage;
    }
  /** store.sync() and REPLICATE_SYNC, then `synced` for each; `self` is among the servers where it is meant. */
  | { kind: 'sync'; barrier: SyncBarrier; servers: number[] }
  | { kind: 'ask'; ask: Ask }
  | {
      kind: 'answerCall';
      call: PeerCall;
      error: ErrorName | undefined;
      detail?: string;
      fields?: FrameFields;
    }
  /** Answer LIST or FETCH from the store as it is now; `last` is its version. */
  | { kind: 'serve'; call: PeerCall; last: Version; repairFrom: number[] }
  | { kind: 'install'; key: ChunkKey; content: ChunkContent | undefined; done?: Completion }
  | { kind: 'setTruncateSeq'; ino: number; truncateSeq: number }
  /** With `sync`: durable before `done`. */
  | { kind: 'setState'; state: PgState; sync: boolean; done?: Completion }
  | { kind: 'reportFailed'; server: number; epoch: number; reason: string }
  | { kind: 'reportCaughtUp'; server: number; epoch: number }
  /** Everything of the group goes, in slices: nothing is installed before `done`. */
  | { kind: 'drop'; done: Completion };

export type PgEvent =
  | { kind: 'map'; pg: Pg | undefined }
  | { kind: 'request'; request: PgRequest }
  | { kind: 'call'; call: PeerCall }
  | { kind: 'applied'; op: Op; error: HoldfastError | undefined; allocatedDelta: number }
  | { kind: 'acked'; op: Op; server: number; error: HoldfastError | undefined }
  | { kind: 'synced'; barrier: SyncBarrier; server: number; error: HoldfastError | undefined }
  | { kind: 'readDone'; request: PgRequest; error: HoldfastError | undefined; version: Version | undefined }
  | { kind: 'repaired'; request: PgRequest; error: HoldfastError | undefined }
  | { kind: 'reply'; ask: Ask; error: HoldfastError | undefined; reply: AskReply | undefined }
  | { kind: 'stored'; done: Completion; error: HoldfastError | undefined }
  | { kind: 'linkUp'; server: number; side: LinkSide }
  | { kind: 'linkDown'; server: number; side: LinkSide; reason: string }
  /** The metaservers found that this primary is cut off from the other replicas. */
  | { kind: 'stepDown'; epoch: number }
  /** The heartbeat stream ended, or a lease came after a time without. */
  | { kind: 'lease' }
  /** Due every TICK_INTERVAL_MS. */
  | { kind: 'tick' };

/** What the core may look at, synchronously: this process, and its store. */
export interface PgEnv {
  readonly self: number;
  readonly limits: RecoveryLimits;
  /** Local milliseconds until which this server may serve as primary; 0: not now. */
  leaseUntil(): number;
  /** The heartbeat stream stands. */
  registered(): boolean;
  minInSync(): number;
  linked(server: number, side: LinkSide): boolean;
  /** More waits on the link to that server, or for the disk of this one, than a further write should add to. */
  congested(server: number): boolean;
  /** Bytes that a server, this one or another, may write now; what is on its way there is taken off. */
  roomBytes(server: number): number;
  /** The same for writes to where space is reserved. */
  promisedRoomBytes(server: number): number;
  /** What of the ranges of a chunk, which ascend, takes space here. */
  coverage(pg: number, key: ChunkKey, ranges: readonly DataRange[]): Coverage;
  truncateSeq(pg: number, ino: number): number;
  chunkInfo(pg: number, key: ChunkKey): ChunkInfo | undefined;
  /** Whether the store has a chunk or a truncate number of the inode. */
  holds(pg: number, ino: number): boolean;
  list(pg: number, after: ChunkKey | undefined, limit: number): ChunkInfo[];
  listTruncateSeqs(pg: number, afterIno: number, limit: number): { ino: number; truncateSeq: number }[];
}

/** For the heartbeat: a group that is not plainly in-sync. */
export interface PgProgress {
  state: 'peering' | 'recovering' | 'waiting' | 'active';
  doneBytes: number;
  leftBytes: number;
}

export const TICK_INTERVAL_MS = 100;
/** A replica that is silent for so long is reported. */
export const REPLICA_TIMEOUT_MS = 1500;
/** A replica that answers pings, but not an operation, is reported after so long: its disk hangs. */
export const REPLICA_OP_TIMEOUT_MS = 10_000;
/** What needs a newer map than this server has waits so long for it. */
export const MAP_WAIT_MS = 2000;
/** A request at a primary that peers, or waits for its lease, waits so long. */
export const ACTIVE_WAIT_MS = 2000;
/**
 * An in-sync replica that was never reached since this server became primary is reported after so long: more than a
 * lease, for it may have been the primary before, and not know yet that it is not any more.
 */
export const PEERING_CONNECT_TIMEOUT_MS = LEASE_MS + 500;
/** A failure that the map does not show yet is reported again after so long. */
export const REPORT_INTERVAL_MS = 500;
/** What could not be copied is tried again after so long, twice as long each time without progress .. */
export const PULL_RETRY_MS = 200;
/** .. up to so long. */
export const PULL_RETRY_MAX_MS = 3200;
/** The same when this server's disk is full: only deletes, or the operator, can help. */
export const FULL_RETRY_MS = 1000;
export const FULL_RETRY_MAX_MS = 32_000;

/** Operations of one group that are not acknowledged yet. */
export const PENDING_OPS_MAX = 8192;
/** A read repairs its chunk so often before it fails. */
export const REPAIRS_MAX = 3;
/** Chunks remembered that the store refused an operation of; beyond it every chunk of the group is copied. */
export const SUSPECTS_MAX = 8192;
/** Requests of one group that wait for a map, a lease, or replicas. */
export const PARKED_REQUESTS_MAX = 4096;
export const PARKED_BYTES_MAX = 64 * 1024 * 1024;
/** Peers' calls of one group that wait for the map. */
export const PARKED_CALLS_MAX = 16_384;
/** Free bytes that a write leaves on each in-sync disk: other primaries write there at the same time. */
export const SPACE_MARGIN_BYTES = 8 * 1024 * 1024;
/**
 * A primary that starts again in an interval which an earlier process of it may have led leaves so many numbers out:
 * far more than PENDING_OPS_MAX, so that no version names two operations.
 */
export const SEQ_JUMP = 2 ** 20;

/** How much of a group recovery works on at a time; tests hand in less. */
export interface RecoveryLimits {
  /** Entries of one LIST reply. */
  listEntries: number;
  /** One page ends when so many chunks, or bytes, have to be fetched. */
  pageFetches: number;
  pageBytes: number;
  /** Forwarded writes that wait for their page; beyond it the page is begun anew. */
  queueBytes: number;
}
export const RECOVERY_LIMITS: RecoveryLimits = {
  listEntries: 512,
  pageFetches: 64,
  pageBytes: 16 * 1024 * 1024,
  queueBytes: 32 * 1024 * 1024,
};
/** Chunks counted for the first estimate of what is left; beyond it the estimate is low. */
export const ESTIMATE_CHUNKS_MAX = 8192;
/** LIST asks for truncate numbers instead of chunks when `aux` says so. */
export const LIST_CHUNKS = 0;
export const LIST_TRUNCATE_SEQS = 1;
/** FETCH takes a chunk with ranges that are lost, too, when `aux` says so. */
export const FETCH_SALVAGED = 1;

export function sameVersion(a: Version, b: Version): boolean {
  return a.epoch === b.epoch && a.seq === b.seq;
}

/** The order in which chunks are listed and copied: by inode, then along the file. */
export function compareKeys(a: ChunkKey, b: ChunkKey): number {
  return a.ino - b.ino || a.chunk - b.chunk;
}
