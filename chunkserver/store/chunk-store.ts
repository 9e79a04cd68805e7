import type { ChunkRanges, DataRange } from '../../proto/extents.js';
import type { Coverage } from './reserved.js';

/** Of one operation of a placement group; ordered by epoch, then seq; unique within the group. */
export interface Version {
  epoch: number;
  seq: number;
}

export interface ChunkKey {
  ino: number;
  /** Index of the chunk in its file. */
  chunk: number;
}

export interface ChunkInfo extends ChunkKey {
  /** Of the last operation that touched the chunk. */
  version: Version;
  /** Allocated: what its extents cover. */
  bytes: number;
}

export interface ReadResult {
  /** Undefined: there is no such chunk. */
  version: Version | undefined;
  /** Inner holes come as zeros, a hole at the end is left off. */
  data: Buffer[];
  /** Bytes in `data`, at most what was asked for. */
  length: number;
  /** CRC-32C of `data`, when verifying it has given that too: saves whoever sends it a pass. */
  crc?: number;
}

export interface ChunkExtent {
  /** Bytes from the start of the chunk. */
  offset: number;
  data: Buffer;
}

/** A whole chunk, as recovery copies it. Extents ascend and do not overlap. */
export interface ChunkContent {
  version: Version;
  extents: ChunkExtent[];
  /** Of its inode in this group; 0: never truncated. */
  truncateSeq: number;
  /** Where there were bytes that cannot be read any more: reads of them fail, as CORRUPT. Absent: nowhere. */
  lost?: readonly DataRange[];
  /** Runs in which space is kept for every byte that is neither in an extent nor lost. Absent: nowhere. */
  reserved?: readonly DataRange[];
}

export interface PgState {
  /** The last applied operation. */
  last: Version;
  /** False while the group is being refilled: what is missing here may exist elsewhere. */
  clean: boolean;
}

export interface Usage {
  /** Bytes that extents cover. */
  liveBytes: number;
  /** What this disk can hold, its reserve left off. */
  capacityBytes: number;
  /** Capacity less live bytes and the headers of their records; writes are refused with ENOSPC when it ends. */
  freeBytes: number;
  /** Of these what may be written now: before the rest, dead bytes must be reclaimed. */
  roomBytes: number;
  /** The same for writes to where space is reserved. */
  promisedRoomBytes: number;
  /** Of the log, that what is reserved will take: it counts as used. */
  reservedBytes: number;
  /** Free on the file system, which other stores may share; absent: not known. */
  diskFreeBytes?: number;
}

/** Chunk data of placement groups on one disk. All calls take effect in the order in which they are made. */
export interface ChunkStore {
  /** Made when the directory was formatted; a wiped directory gets another one. */
  readonly diskUuid: string;
  /** Empty until adoptCluster(). */
  readonly clusterId: string;
  /** Binds the disk to a cluster, once and durably. @throws HoldfastError WRONG_CLUSTER when it belongs to another */
  adoptCluster(clusterId: string): Promise<void>;

  /**
   * Writes at `offset` of the chunk. Resolves when the data is with the OS (it survives this process, not a power cut);
   * reads see it at once. `data` is not copied and must not change before. `allocatedDelta`: bytes newly covered.
   * @param blockCrcs of `data`, as proto/block-crc.ts counts them, when they are known: saves computing them again
   * @throws HoldfastError ENOSPC: nothing was written
   */
  write(
    pg: number,
    key: ChunkKey,
    offset: number,
    data: Buffer,
    version: Version,
    blockCrcs?: Uint32Array,
  ): Promise<{ allocatedDelta: number }>;
  /**
   * write() of several runs, which all take effect or none.
   * @param payload as proto/extent-table.ts says, with these runs; blockCrcs those of all runs, one after the other
   */
  writeRuns(
    pg: number,
    key: ChunkKey,
    payload: Buffer,
    runs: readonly DataRange[],
    version: Version,
    blockCrcs?: Uint32Array,
  ): Promise<{ allocatedDelta: number }>;
  /** Makes a hole of `length` bytes at `offset`; the space is given back. A chunk that is not here stays so. */
  punch(
    pg: number,
    key: ChunkKey,
    offset: number,
    length: number,
    version: Version,
  ): Promise<{ allocatedDelta: number }>;
  /**
   * Has space kept for those of `length` bytes at `offset` that take none: they read as zeros, count as covered, and can be
   * written when there is no room for anything else. It is for the caller to see that there is room (Usage.roomBytes).
   */
  reserve(
    pg: number,
    key: ChunkKey,
    offset: number,
    length: number,
    version: Version,
  ): Promise<{ allocatedDelta: number }>;
  /** What of the ranges of a chunk, which ascend, takes space. */
  coverage(pg: number, key: ChunkKey, ranges: readonly DataRange[]): Coverage;
  /**
   * Where the first of the inode's chunks from `chunk` on that has data in this group, has it.
   * @param reserved what is reserved counts as data @throws HoldfastError CORRUPT
   */
  ranges(pg: number, key: ChunkKey, reserved?: boolean): ChunkRanges | undefined;
  /**
   * Cuts the inode's data in this group to `from` bytes of the file: later chunks go, the boundary chunk is trimmed.
   * Always applied: whether a truncate is a repetition is the caller's to decide, by truncateSeq().
   * @param truncateSeq number of the truncate, remembered per (pg, inode) when larger than before
   */
  truncate(
    pg: number,
    ino: number,
    from: number,
    chunkSize: number,
    truncateSeq: number,
    version: Version,
  ): Promise<{ allocatedDelta: number }>;
  /** Number of the inode's last truncate here; 0: never. */
  truncateSeq(pg: number, ino: number): number;
  /** Removes all chunks of the inode in this group, and its truncate number. */
  deleteInode(pg: number, ino: number, version: Version): Promise<{ allocatedDelta: number }>;

  /** Replaces a chunk as a whole (recovery), with its version at the source; undefined removes it. pgState is as before. */
  install(pg: number, key: ChunkKey, content: ChunkContent | undefined): Promise<void>;
  /** Remembers a truncate number (recovery of an inode that may have no chunk here); 0 forgets it. */
  setTruncateSeq(pg: number, ino: number, truncateSeq: number): Promise<void>;
  /** Inodes with a truncate number, ascending, behind `afterIno` (0: from the start). */
  listTruncateSeqs(pg: number, afterIno: number, limit: number): { ino: number; truncateSeq: number }[];

  /** @throws HoldfastError CORRUPT naming the block whose checksum is wrong */
  read(pg: number, key: ChunkKey, offset: number, length: number): Promise<ReadResult>;
  /** read() in this turn, where that takes no waiting; undefined: use read(), which also says what is wrong. */
  readNow?(pg: number, key: ChunkKey, offset: number, length: number): ReadResult | undefined;
  /** The chunk as it is at the moment of the call; undefined when there is none. @throws HoldfastError CORRUPT */
  readChunk(pg: number, key: ChunkKey): Promise<ChunkContent | undefined>;
  /** readChunk() of all that can be read: the rest is in `lost`. */
  salvageChunk(pg: number, key: ChunkKey): Promise<ChunkContent | undefined>;
  chunkInfo(pg: number, key: ChunkKey): ChunkInfo | undefined;
  /** Whether anything of the inode is here: a chunk, be it empty, or a truncate number. */
  holds(pg: number, ino: number): boolean;
  /** Chunks behind `after` in the order of (ino, chunk), at most `limit`. */
  list(pg: number, after: ChunkKey | undefined, limit: number): ChunkInfo[];
  /** Groups that have a state or a chunk here, ascending. */
  pgs(): number[];

  /** `{ last: { epoch: 0, seq: 0 }, clean: false }` for a group that was never here. */
  pgState(pg: number): PgState;
  /** Durable with the next sync(). */
  setPgState(pg: number, state: PgState): Promise<void>;
  /** Removes all of a group, in slices; after a crash meanwhile a part may be left, and pgState says `clean: false`. */
  dropPg(pg: number): Promise<void>;

  /** Resolves when everything called before is on disk. Callers share fdatasyncs. */
  sync(): Promise<void>;
  usage(): Usage;
  /** Bytes that other stores on the same file system have reserved: there is no room in them. Absent: it is alone there. */
  reservedElsewhere?(bytes: number): void;
  /** Bytes that wait for the disk to take them; absent: none ever do. */
  backlogBytes?(): number;
  close(): Promise<void>;
}

/** Negative, zero or positive as `a` is older than, equal to or newer than `b`. */
export function compareVersions(a: Version, b: Version): number {
  return a.epoch - b.epoch || a.seq - b.seq;
}
