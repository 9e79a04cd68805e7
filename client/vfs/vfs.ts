import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { NAME_MAX_BYTES } from '../../proto/types.js';
import type { ChunkApi, CommitApi } from '../data/api.js';
import { BlockCache } from '../data/block-cache.js';
import { Flusher } from '../data/flusher.js';
import type { DataLimits } from '../data/limits.js';
import { FileReader } from '../data/reader.js';
import type {
  AttrReply,
  BindingInfo,
  Caller,
  CreateReply,
  DirEntry,
  Entry,
  FileSystem,
  OpenReply,
  SetAttrRequest,
  StatFs,
  WriteRequest,
} from '../fuse/binding.js';
import { attrOf, type MetaApi, resultOf } from '../meta/api.js';
import { Atimes } from './atimes.js';
import { VfsContext } from './context.js';
import { DirectoryStream } from './directory.js';
import { FileCalls } from './file-calls.js';
import { FileTable } from './file-table.js';
import { InodeCache } from './inode-cache.js';
import { NameCalls } from './name-calls.js';
import { XattrCalls } from './xattr-calls.js';

const STATFS_BLOCK_BYTES = 4096;

export interface VfsParts {
  meta: MetaApi;
  chunks: ChunkApi;
  clock: Clock;
  log: Logger;
  limits: DataLimits;
  readOnly: boolean;
  /** Reads set no access time. */
  noAtime?: boolean;
  /** What is dirty when the mount goes away is written back within this time, or lost and logged. */
  destroyTimeoutMs: number;
}

/** The file system as the kernel sees it: POSIX rules over the metadata service and the data path. */
export class HoldfastFs implements FileSystem {
  readonly #context: VfsContext;
  readonly #flusher: Flusher;
  readonly #names: NameCalls;
  readonly #fileCalls: FileCalls;
  readonly #xattrs: XattrCalls;
  readonly #directories = new Map<number, DirectoryStream>();
  readonly #destroyTimeoutMs: number;
  #nextDirectory = 1;

  constructor(parts: VfsParts) {
    const { meta, chunks, clock, log, limits, readOnly } = parts;
    const inodes = new InodeCache(clock);
    const blocks = new BlockCache(clock, {
      bytesMax: limits.blockCacheBytesMax,
      maxAgeMs: limits.blockMaxAgeMs,
    });
    this.#flusher = new Flusher(clock, limits);
    const commits = commitApi(meta, inodes);
    const atimes =
      readOnly || parts.noAtime
        ? undefined
        : new Atimes(clock, (list) => meta.mutate({ $case: 'setAtimes', value: { atimes: list } }));
    const data = { clock, log, chunks, meta: commits, flusher: this.#flusher, blocks };
    const files = new FileTable(data, atimes);
    this.#context = new VfsContext({ meta, inodes, files, clock, log, readOnly });
    this.#names = new NameCalls(this.#context);
    this.#fileCalls = new FileCalls(this.#context, new FileReader(chunks, blocks, limits));
    this.#xattrs = new XattrCalls(this.#context);
    this.#destroyTimeoutMs = parts.destroyTimeoutMs;
  }

  /** Bytes written by programs and not yet on the chunkservers. */
  get dirtyBytes(): number {
    return this.#flusher.dirtyBytes;
  }

  async init(info: BindingInfo): Promise<void> {
    this.#context.notifier = info.notify;
  }

  /** Writes everything back. Idempotent. */
  async destroy(): Promise<void> {
    const { clock, log } = this.#context;
    const pending = [...this.#flusher.sources];
    const flushed = Promise.all([
      ...pending.map((source) => this.#context.files.get(source.ino)?.flush()),
      this.#context.files.atimes?.flush(),
    ]);
    let late = false;
    await new Promise<void>((resolve) => {
      const timer = clock.after(this.#destroyTimeoutMs, () => {
        late = true;
        resolve();
      });
      const done = (): void => {
        timer.cancel();
        resolve();
      };
      flushed.then(done, done);
    });
    if (late)
      log.error(
        { dirtyBytes: this.dirtyBytes },
        'unmounted before everything was written back: data is lost',
      );
    this.#flusher.close();
  }

  lookup(caller: Caller, parent: number, name: Buffer): Promise<Entry> {
    return this.#names.lookup(caller, parent, name);
  }

  forget(ino: number, _count: number): void {
    if (!this.#context.files.get(ino)) this.#context.inodes.forget(ino);
  }

  async getattr(caller: Caller, ino: number, _handle?: number): Promise<AttrReply> {
    const known = this.#context.inodes.fresh(ino);
    if (known) return this.#context.attrReply(known.attr, known.ttlMs);
    try {
      const attr = await this.#context.readAttr({ $case: 'getAttr', value: { ino } }, caller.signal);
      return this.#context.attrReply(attr);
    } catch (error) {
      // Removed, and still in use here: a present directory, an open fifo. What it was remains visible, without links.
      const last = this.#context.inodes.last(ino);
      if (!last || !(error instanceof HoldfastError) || error.errorName !== 'ESTALE') throw error;
      return this.#context.attrReply({ ...last, nlink: 0 });
    }
  }

  async setattr(caller: Caller, ino: number, change: SetAttrRequest): Promise<AttrReply> {
    return this.#context.attrReply(await this.#fileCalls.setattr(caller, ino, change));
  }

  readlink(caller: Caller, ino: number): Promise<Buffer> {
    return this.#names.readlink(caller, ino);
  }

  symlink(caller: Caller, parent: number, name: Buffer, target: Buffer): Promise<Entry> {
    return this.#names.symlink(caller, parent, name, target);
  }

  mknod(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Promise<Entry> {
    return this.#names.mknod(caller, parent, name, mode, rdev, umask);
  }

  mkdir(caller: Caller, parent: number, name: Buffer, mode: number, umask: number): Promise<Entry> {
    return this.#names.mkdir(caller, parent, name, mode, umask);
  }

  unlink(caller: Caller, parent: number, name: Buffer): Promise<void> {
    return this.#names.unlink(caller, parent, name);
  }

  rmdir(caller: Caller, parent: number, name: Buffer): Promise<void> {
    return this.#names.rmdir(caller, parent, name);
  }

  rename(
    caller: Caller,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Promise<void> {
    return this.#names.rename(caller, parent, name, newParent, newName, flags);
  }

  link(caller: Caller, ino: number, newParent: number, newName: Buffer): Promise<Entry> {
    return this.#names.link(caller, ino, newParent, newName);
  }

  open(caller: Caller, ino: number, flags: number, killPriv = false): Promise<OpenReply> {
    return this.#fileCalls.open(caller, ino, flags, killPriv);
  }

  create(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    flags: number,
    umask: number,
  ): Promise<CreateReply> {
    return this.#fileCalls.create(caller, parent, name, mode, flags, umask);
  }

  async read(caller: Caller, _ino: number, handle: number, offset: number, size: number): Promise<Buffer[]> {
    return this.#fileCalls.read(caller, handle, offset, size);
  }

  write(caller: Caller, ino: number, request: WriteRequest): Promise<number> {
    return this.#fileCalls.write(caller, ino, request);
  }

  flush(caller: Caller, _ino: number, handle: number, _lockOwner: bigint): Promise<void> {
    return this.#fileCalls.flush(caller, handle);
  }

  release(_ino: number, handle: number, _flags: number, _lockOwner?: bigint): Promise<void> {
    return this.#fileCalls.release(handle);
  }

  fsync(caller: Caller, _ino: number, handle: number, dataOnly: boolean): Promise<void> {
    return this.#fileCalls.fsync(caller, handle, dataOnly);
  }

  async opendir(_caller: Caller, ino: number, _flags: number): Promise<OpenReply> {
    const { meta, clock, inodes, files } = this.#context;
    const handle = this.#nextDirectory++;
    const view = files.view.bind(files);
    this.#directories.set(handle, new DirectoryStream(ino, { meta, clock, inodes, view }));
    return { handle };
  }

  async readdir(
    caller: Caller,
    ino: number,
    handle: number,
    cookie: number,
    maxEntries: number,
    plus: boolean,
  ): Promise<DirEntry[]> {
    let stream = this.#directories.get(handle);
    if (!stream) {
      await this.opendir(caller, ino, 0);
      stream = this.#directories.get(this.#nextDirectory - 1) as DirectoryStream;
      this.#directories.delete(this.#nextDirectory - 1);
    }
    if (cookie === 0) this.#countListing(ino);
    return stream.read(cookie, maxEntries, plus, caller.signal);
  }

  #countListing(ino: number): void {
    const { files, inodes } = this.#context;
    const attr = inodes.last(ino);
    if (attr) files.atimes?.read(files.view(attr));
  }

  async releasedir(_ino: number, handle: number): Promise<void> {
    this.#directories.delete(handle);
  }

  /** A change of names is durable when it is answered. */
  async fsyncdir(_caller: Caller, _ino: number, _handle: number, _dataOnly: boolean): Promise<void> {}

  async statfs(caller: Caller, _ino: number): Promise<StatFs> {
    const result = await this.#context.meta.read({ $case: 'statFs', value: {} }, caller.signal);
    const { totalBytes, freeBytes, availBytes, inodesUsed, inodesFree } = resultOf(result, 'statFs');
    return {
      blockSize: STATFS_BLOCK_BYTES,
      blocks: Math.floor(totalBytes / STATFS_BLOCK_BYTES),
      free: Math.floor(freeBytes / STATFS_BLOCK_BYTES),
      available: Math.floor(availBytes / STATFS_BLOCK_BYTES),
      files: inodesUsed + inodesFree,
      filesFree: inodesFree,
      nameMax: NAME_MAX_BYTES,
    };
  }

  getxattr(caller: Caller, ino: number, name: Buffer): Promise<Buffer> {
    return this.#xattrs.get(caller, ino, name);
  }

  setxattr(
    caller: Caller,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    killSgid = false,
  ): Promise<void> {
    return this.#xattrs.set(caller, ino, name, value, flags, killSgid);
  }

  listxattr(caller: Caller, ino: number): Promise<Buffer[]> {
    return this.#xattrs.list(caller, ino);
  }

  removexattr(caller: Caller, ino: number, name: Buffer): Promise<void> {
    return this.#xattrs.remove(caller, ino, name);
  }

  tmpfile(caller: Caller, parent: number, mode: number, flags: number, umask: number): Promise<CreateReply> {
    return this.#fileCalls.tmpfile(caller, parent, mode, flags, umask);
  }

  copyFileRange(
    caller: Caller,
    from: { ino: number; handle: number; offset: number },
    to: { ino: number; handle: number; offset: number },
    length: number,
  ): Promise<number> {
    return this.#fileCalls.copyFileRange(caller, from, to, length);
  }

  fallocate(
    caller: Caller,
    _ino: number,
    handle: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    return this.#fileCalls.fallocate(caller, handle, mode, offset, length);
  }

  lseek(_caller: Caller, _ino: number, handle: number, offset: number, whence: number): Promise<number> {
    return this.#fileCalls.lseek(handle, offset, whence);
  }
}

/** Commits over the metadata service; what they bring back is remembered. */
function commitApi(meta: MetaApi, inodes: InodeCache): CommitApi {
  return {
    async commitWrite(commit) {
      const stamp = inodes.stamp();
      const reply = await meta.mutate({ $case: 'commitWrite', value: { ...commit, killPriv: false } });
      const attr = attrOf(reply.result);
      inodes.learn(attr, stamp, true);
      return attr;
    },
  };
}
