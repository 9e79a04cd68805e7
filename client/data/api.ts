import type { DataRange } from '../../proto/extents.js';
import type { Attr, QuotaAmount, Time, Truncate } from '../../proto/gen/meta.js';
import type { Lineage } from '../../proto/lineage.js';
import type { Interrupt } from '../wait.js';
import type { OpVersion } from './unsynced.js';

/** What a data request says about its file. The chunk service reads it again at every attempt: it may grow newer. */
export interface FileLayout {
  readonly ino: number;
  readonly chunkSize: number;
  /** As of the newest attributes: see Attr.truncate_seq. */
  readonly truncateSeq: number;
  readonly truncates: readonly Truncate[];
  /** A server has carried out the truncate of this number: what is known of the file's size may be older. */
  sawTruncate?(seq: number): void;
}

/** An acknowledged write. */
export interface Written {
  /** Bytes newly allocated. */
  allocated: number;
  version: OpVersion;
}

/** Bytes [start, end) of a chunk, in one or more buffers. */
export interface Run {
  start: number;
  end: number;
  parts: readonly Buffer[];
}

/** What the servers have of a file: what was written, or all that takes space, what is reserved for later writes included. */
export type Stored = 'data' | 'space';

/** File contents as the rest of the client sees them: fail-overs, epochs and pending truncates happen behind it. */
export interface ChunkApi {
  /** The placement group of a chunk, as soon as the cluster has placement groups. */
  pgOf(ino: number, chunk: number, signal?: Interrupt): number | Promise<number>;
  /**
   * At most `length` bytes from `offset` of a chunk; what the answer lacks at its end is a hole.
   * @throws HoldfastError EIO; EINTR when `signal` aborts; ETIMEDOUT with the soft option
   */
  read(file: FileLayout, chunk: number, offset: number, length: number, signal?: Interrupt): Promise<Buffer>;
  /**
   * Writes within one chunk. Repeated until answered: two writes over the same bytes must not be under way together.
   * @param sync the data is on all in-sync disks when this resolves
   * @throws HoldfastError ENOSPC, EDQUOT, EIO; CUT: nothing was written, for the servers know a newer truncate than `file`
   */
  write(
    file: FileLayout,
    chunk: number,
    offset: number,
    data: readonly Buffer[],
    sync: boolean,
  ): Promise<Written>;
  /** write() of several runs of one chunk, which ascend and do not overlap, by one message; at most TABLE_EXTENTS_MAX of them. */
  writeRuns(file: FileLayout, chunk: number, runs: readonly Run[], sync: boolean): Promise<Written>;
  /**
   * Has the servers copy `length` bytes within one chunk of `from` to within one chunk of `file`, both of which the servers
   * hold in full. Absent: they cannot. Repeated as a write is. @throws HoldfastError EOPNOTSUPP: copy them here
   */
  copy?(
    file: FileLayout,
    chunk: number,
    offset: number,
    length: number,
    from: { file: FileLayout; chunk: number; offset: number },
  ): Promise<Written>;
  /**
   * Makes a hole within one chunk: allocates less than nothing.
   * @param sync as write() @throws HoldfastError EIO
   */
  punch(file: FileLayout, chunk: number, offset: number, length: number, sync?: boolean): Promise<Written>;
  /**
   * Has the servers keep space for what of a range within one chunk takes none. Repeated as a write is.
   * @throws HoldfastError ENOSPC: nothing was reserved; EIO; CUT as write()
   */
  reserve(file: FileLayout, chunk: number, offset: number, length: number): Promise<Written>;
  /** Where the servers have data of a chunk; ascending. @param of `space`: what is reserved too @throws HoldfastError as read() */
  ranges(file: FileLayout, chunk: number, signal?: Interrupt, of?: Stored): Promise<DataRange[]>;
  /** The first chunk in [first, last] that has data on the servers; undefined: none. @param of, @throws as ranges() */
  nextChunk(
    file: FileLayout,
    first: number,
    last: number,
    signal?: Interrupt,
    of?: Stored,
  ): Promise<number | undefined>;
  /**
   * Everything acknowledged in the group so far is on all in-sync disks when this resolves, but for what all replicas
   * had lost before: see survived().
   */
  sync(pg: number): Promise<Lineage>;
  /** The listener is told of groups of which all replicas may have lost what was not synced. */
  onNewLineage(listener: (pgs: readonly number[]) => void): void;
  /** Applies pending truncates in the groups of chunks [first, last], once, without repeating: the servers do. */
  truncateAhead(file: FileLayout, firstChunk: number, lastChunk: number): void;
}

/** What the data path asks of the metadata service. */
export interface CommitApi {
  /**
   * @param spent reservations that end with it
   * @param behind all changes made here so far, also where a place before them is kept for a commit of the file
   * @returns the inode afterwards
   */
  commitWrite(
    commit: {
      ino: number;
      newSize: number;
      mtime: Time | undefined;
      ctime: Time | undefined;
      allocatedDelta: number;
      truncateSeq: number;
    },
    spent?: QuotaAmount[],
    behind?: boolean,
  ): Promise<Attr>;
  /** Whether the next commit of the file goes ahead of changes that were made before it. */
  keepsPlace?(ino: number): boolean;
  /** The inode as the server has it, whatever waits to be changed here. @throws HoldfastError */
  attrNow(ino: number): Promise<Attr>;
  /** Of a commit that does not change the size: the data beside it has landed, nothing else is waited for any more. */
  dataLanded?(ino: number): void;
}
