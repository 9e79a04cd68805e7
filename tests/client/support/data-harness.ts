import type { CommitApi } from '../../../client/data/api.js';
import { BlockCache } from '../../../client/data/block-cache.js';
import type { DataDeps } from '../../../client/data/data-deps.js';
import { FileData } from '../../../client/data/file-data.js';
import type { Tenure } from '../../../client/data/file-tail.js';
import type { Flusher } from '../../../client/data/flusher.js';
import { type DataLimits, dataLimits } from '../../../client/data/limits.js';
import { FileReader, newReadStream } from '../../../client/data/reader.js';
import type { UnsyncedTable } from '../../../client/data/unsynced.js';
import { newWritePath } from '../../../client/data/write-path.js';
import { FileClock } from '../../../client/file-clock.js';
import { silentLogger } from '../../../common/logger.js';
import { Attr } from '../../../proto/gen/meta.js';
import { ManualClock } from './manual-clock.js';
import { MemoryChunks } from './memory-chunks.js';

export const CHUNK = 4096;

type Commit = Parameters<CommitApi['commitWrite']>[0];

/** The metaserver's view of one file: what commits and truncates make of it. */
export class MemoryInode implements CommitApi {
  attr: Attr;
  readonly commits: Commit[] = [];
  /** What happens just before a commit is answered. */
  beforeCommit: ((commit: Commit) => Promise<void> | undefined) | undefined;

  constructor(chunkSize = CHUNK, size = 0) {
    this.attr = { ...Attr.create({}), ino: 7, mode: 0o100644, nlink: 1, chunkSize, size, change: 1 };
  }

  async commitWrite(commit: Commit): Promise<Attr> {
    this.commits.push(commit);
    await this.beforeCommit?.(commit);
    const { attr } = this;
    const grows = commit.truncateSeq === attr.truncateSeq && commit.newSize > attr.size;
    this.attr = {
      ...attr,
      size: grows ? commit.newSize : attr.size,
      mtime: commit.mtime,
      allocated: attr.allocated + commit.allocatedDelta,
      change: attr.change + 1,
    };
    return this.attr;
  }

  async attrNow(): Promise<Attr> {
    return this.attr;
  }

  async setSize(size: number): Promise<Attr> {
    const { attr } = this;
    this.attr = { ...attr, size, change: attr.change + 1 };
    if (size < attr.size) {
      const seq = attr.truncateSeq + 1;
      this.attr = { ...this.attr, truncateSeq: seq, truncates: [...attr.truncates, { seq, from: size }] };
    }
    return this.attr;
  }
}

/** One mount's data path over servers in memory. */
export class DataHarness {
  readonly clock = new ManualClock();
  /** As the mount's. */
  readonly wall = new FileClock(this.clock);
  readonly chunks: MemoryChunks;
  readonly inode: MemoryInode;
  readonly limits: DataLimits;
  readonly flusher: Flusher;
  readonly blocks: BlockCache;
  readonly reader: FileReader;
  readonly file: FileData;
  readonly unsynced: UnsyncedTable;
  /** Nobody else writes to the file. */
  owns = true;
  /** Raised when a lease was lost and another one granted. */
  leasedSince = 1;

  constructor(
    options: {
      limits?: Partial<DataLimits>;
      inode?: MemoryInode;
      chunks?: MemoryChunks;
      isNew?: boolean;
    } = {},
  ) {
    this.limits = dataLimits(options.limits);
    this.chunks = options.chunks ?? new MemoryChunks();
    this.inode = options.inode ?? new MemoryInode();
    const { flusher, unsynced } = newWritePath(this.clock, this.chunks, this.limits, (ino) =>
      this.revive(ino),
    );
    this.flusher = flusher;
    this.unsynced = unsynced;
    this.blocks = new BlockCache(this.limits.blockCacheBytesMax, {
      stamp: () => this.leasedSince,
      covers: (_ino, stamp) => stamp >= this.leasedSince,
    });
    this.reader = new FileReader(this.chunks, this.blocks, this.limits, () => true);
    const { chunks, blocks } = this;
    const owns = (): boolean => this.owns;
    const tenure = (): Tenure => {
      const since = this.leasedSince;
      return { holds: () => this.owns && this.leasedSince === since };
    };
    const deps: DataDeps = {
      clock: this.wall,
      log: silentLogger,
      chunks,
      meta: this.inode,
      flusher,
      blocks,
      unsynced,
      owns,
      tenure,
    };
    this.deps = deps;
    this.file = new FileData(this.inode.attr, options.isNew ?? true, deps);
  }

  readonly deps: DataDeps;

  /** As the mount takes a closed file into use. */
  revive: (ino: number) => (() => void) | undefined = () => undefined;

  /** Closes the file, and opens it again. */
  reopened(): FileData {
    this.unsynced.closed(this.file.ino, () => false);
    return new FileData(this.inode.attr, false, this.deps);
  }

  stream = newReadStream();

  async read(offset: number, size: number): Promise<Buffer> {
    return Buffer.concat(await this.reader.read(this.file, this.stream, offset, size));
  }

  truncate(size: number): Promise<Attr> {
    return this.file.truncate(size, () => this.inode.setSize(size));
  }

  /** The whole file as a mount that opens it now sees it. */
  async seenElsewhere(): Promise<Buffer> {
    const other = new DataHarness({ inode: this.inode, chunks: this.chunks, isNew: false });
    return other.read(0, other.file.size);
  }
}

/** Bytes that are told apart wherever they turn up. */
export function pattern(length: number, seed: number): Buffer {
  const data = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length; at++) data[at] = (seed * 31 + at * 7 + 1) & 0xff;
  return data;
}
