import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { LeaseMode } from '../../proto/gen/meta.js';
import { RENAME_EXCHANGE } from '../../proto/types.js';
import { type Answer, andThen, lastly } from '../answer.js';
import type { ChunkApi } from '../data/api.js';
import { BlockCache } from '../data/block-cache.js';
import type { Flusher } from '../data/flusher.js';
import type { DataLimits } from '../data/limits.js';
import { FileReader } from '../data/reader.js';
import { newWritePath } from '../data/write-path.js';
import { FileClock } from '../file-clock.js';
import type {
  AttrReply,
  BindingInfo,
  Caller,
  CreateReply,
  DirEntry,
  Entry,
  FileLock,
  FileSystem,
  OpenReply,
  SetAttrRequest,
  StatFs,
  WriteRequest,
} from '../fuse/binding.js';
import { ChangeLane } from '../leases/change-lane.js';
import { NameCache } from '../leases/name-cache.js';
import type { MetaApi } from '../meta/api.js';
import { QuotaKeeper } from '../quota/quota-keeper.js';
import { settlesUnlessStalled } from '../stall.js';
import { interruptible } from '../wait.js';
import { Atimes } from './atimes.js';
import { newCommits } from './commit-write.js';
import { VfsContext } from './context.js';
import { CopyCalls } from './copy-calls.js';
import { FileCalls } from './file-calls.js';
import { FileTable } from './file-table.js';
import { FlagCalls } from './flag-calls.js';
import { InodeCache } from './inode-cache.js';
import { ANY_DIRECTORY, KernelEntries, type ToldName } from './kernel-entries.js';
import { Listings } from './listings.js';
import { LocalChanges } from './local-changes.js';
import { LockCalls } from './lock-calls.js';
import { NameCalls } from './name-calls.js';
import { OpenCalls } from './open-calls.js';
import { OpenDirectories } from './open-directories.js';
import { Recalls } from './recalls.js';
import { RemovedDirectories } from './removed-directories.js';
import { SmallFiles } from './small-files.js';
import { statfs } from './statfs.js';
import { WriteBehind } from './write-behind.js';
import { XattrCalls } from './xattr-calls.js';

export interface VfsParts {
  meta: MetaApi;
  chunks: ChunkApi;
  clock: Clock;
  log: Logger;
  limits: DataLimits;
  readOnly: boolean;
  /** Entries of a directory that is kept as a whole, at most; absent: what fits a mount. */
  directoryEntriesMax?: number;
  /** Reads set no access time. */
  noAtime?: boolean;
  /** When the mount goes away and nothing of what is dirty could be written back for so long, it is lost and logged. */
  destroyStallMs: number;
}

/** What programs were told is done, and no server knows of. */
export interface Unwritten {
  /** Of file contents. */
  bytes: number;
  /** Of names and attributes. */
  changes: number;
}

/** The file system as the kernel sees it: POSIX rules over the metadata service and the data path. */
export class HoldfastFs implements FileSystem {
  readonly #context: VfsContext;
  readonly #flusher: Flusher;
  readonly #local: LocalChanges;
  readonly #listings: Listings;
  readonly #recalls: Recalls;
  readonly #names: NameCalls;
  readonly #fileCalls: FileCalls;
  readonly #opens: OpenCalls;
  readonly #copies: CopyCalls;
  readonly #locks: LockCalls;
  readonly #xattrs: XattrCalls;
  readonly #flags: FlagCalls;
  readonly #directories: OpenDirectories;
  readonly #destroyStallMs: number;
  #givenUp: Unwritten | undefined;

  constructor(parts: VfsParts) {
    const { meta, chunks, log, limits, readOnly } = parts;
    const clock = new FileClock(parts.clock);
    const inodes = new InodeCache(clock, meta.leases);
    const blocks = new BlockCache(limits.blockCacheBytesMax, {
      stamp: () => meta.leases.stamp(),
      covers: (ino, stamp) => this.#context.covers(ino, stamp),
    });
    const { flusher, unsynced } = newWritePath(clock, chunks, limits, (ino) =>
      files.revive(inodes.fresh(ino)?.attr),
    );
    this.#flusher = flusher;
    const lane: ChangeLane = new ChangeLane({
      clock,
      onHurry: () => behind.start(),
      expectsMore: (ino) => behind.expectsMore(ino),
      send: (changes) => meta.mutateBatch(changes),
      onFailure: (inos, kind, error) => this.#changeLost(inos, kind, error),
    });
    const behind = new WriteBehind({ clock, log, lane });
    const atimes =
      readOnly || parts.noAtime
        ? undefined
        : new Atimes(parts.clock, (list) => meta.mutate({ $case: 'setAtimes', value: { atimes: list } }));
    const quotas: QuotaKeeper = new QuotaKeeper({
      clock,
      log,
      reserve: async (op) => (await meta.mutate({ $case: 'reserveQuota', value: op })).quota,
      writeBack: () => this.#writeBack(),
    });
    const data = {
      ...{ clock, log, chunks, flusher, blocks, unsynced, quotas: quotas.book },
      meta: newCommits(() => this.#context, meta),
      owns: (ino: number) => this.#context.owns(ino),
      tenure: (ino: number) => this.#context.tenure(ino),
    };
    const files = new FileTable(data, atimes);
    const smallFiles = new SmallFiles({ inodes, files, blocks, chunks });
    const [names, kernel] = [new NameCache(parts.directoryEntriesMax), new KernelEntries()];
    this.#context = new VfsContext({
      meta,
      inodes,
      names,
      files,
      smallFiles,
      lane,
      quotas,
      kernel,
      clock,
      log,
      readOnly,
    });
    this.#local = new LocalChanges(this.#context);
    this.#listings = new Listings(this.#context);
    this.#recalls = new Recalls(this.#context, {
      lost: () => this.#sessionLost(),
      taken: (ino) => this.#local.taken(ino),
    });
    meta.listenToLeases(this.#recalls);
    const { pageStores } = this.#context;
    const reader = new FileReader(
      chunks,
      blocks,
      limits,
      (ino) => this.#context.mode(ino) !== 0,
      (file, offset, block) => pageStores.offer(file, offset, block),
    );
    this.#directories = new OpenDirectories(this.#context);
    const removed = new RemovedDirectories(this.#context, (ino) => this.#directories.isOpen(ino));
    this.#names = new NameCalls(this.#context, this.#local, this.#listings, removed);
    this.#locks = new LockCalls(meta.locks, log);
    this.#fileCalls = new FileCalls(this.#context, reader, this.#local, chunks, behind, this.#locks);
    this.#opens = new OpenCalls(this.#context, this.#names, this.#fileCalls);
    this.#copies = new CopyCalls(this.#context, chunks, this.#fileCalls, this.#locks);
    this.#xattrs = new XattrCalls(this.#context, this.#local, removed);
    this.#flags = new FlagCalls(this.#context);
    this.#destroyStallMs = parts.destroyStallMs;
  }

  /** What no server has yet; after destroy(): what was given up. */
  get unwritten(): Unwritten {
    return this.#givenUp ?? { bytes: this.#flusher.dirtyBytes, changes: this.#context.lane.pending };
  }

  /** What was sent may have no answer yet: destroy() did not wait for it. */
  get gaveUp(): boolean {
    return this.#givenUp !== undefined;
  }

  async init(info: BindingInfo): Promise<void> {
    this.#context.notifier = info.notify;
    this.#context.kernel.start(info.notify);
  }

  /** Writes everything back, for as long as the servers take any of it. Idempotent. */
  async destroy(): Promise<void> {
    const { clock, log, files, lane } = this.#context;
    if (!this.#givenUp) {
      const pending = [...this.#flusher.sources];
      const sent = Promise.all([
        ...pending.map((source) => files.get(source.ino)?.flush()),
        files.atimes?.flush(),
      ]);
      const flushed = lane.urgently(sent).then(() => lane.settled());
      const progress = (): string => JSON.stringify(this.unwritten);
      if (!(await settlesUnlessStalled(flushed, progress, this.#destroyStallMs, clock))) {
        this.#givenUp ??= this.unwritten;
        log.error(this.#givenUp, 'unmounted before everything was written back: data is lost');
      }
    }
    this.#flusher.close();
    this.#context.quotas.close();
  }

  /** What was written and changed so far is on the servers, or has failed. */
  async #writeBack(): Promise<void> {
    const { files, lane } = this.#context;
    const dirty = [...files.all()].filter((file) => !file.clean);
    await lane.urgently(Promise.all(dirty.map((file) => file.flush())));
    await lane.settled();
  }

  lookup(caller: Caller, parent: number, name: Buffer): Answer<Entry> {
    this.#recalls.trim();
    return this.#during([parent], this.#names.lookup(caller, parent, name));
  }

  /** What is known stays for as long as it is leased: the kernel may ask for it again. */
  forget(_ino: number, _count: number): void {}

  getattr(caller: Caller, ino: number, _handle?: number): Answer<AttrReply> {
    if (this.#context.unleasedPages.areUnguarded(ino)) void this.#context.unleasedPages.drop(ino);
    const dropped = this.#context.pageDrops.dropped(ino, caller.signal);
    const known = this.#context.inodes.fresh(ino);
    if (known && !dropped && !this.#fileCalls.shared.isShared(ino))
      return this.#context.attrReply(known.attr);
    return this.#context.attrRequests.track(ino, this.#freshAttr(caller, ino, dropped));
  }

  async #freshAttr(caller: Caller, ino: number, dropped: Promise<void> | undefined): Promise<AttrReply> {
    if (dropped) await dropped;
    try {
      return await this.#fileCalls.shared.attr(ino, caller.signal);
    } catch (error) {
      // Removed, and still in use here: a present directory, an open fifo. What it was remains visible, without links.
      const last = this.#context.inodes.known(ino);
      if (!last || !(error instanceof HoldfastError) || error.errorName !== 'ESTALE') throw error;
      return this.#context.attrReply({ ...last, nlink: 0 });
    }
  }

  setattr(caller: Caller, ino: number, change: SetAttrRequest): Answer<AttrReply> {
    const changed = this.#during([ino], this.#fileCalls.setattr(caller, ino, change));
    return andThen(changed, (attr) => this.#context.attrReply(attr));
  }

  readlink(caller: Caller, ino: number): Answer<Buffer> {
    return this.#names.readlink(caller, ino);
  }

  symlink(caller: Caller, parent: number, name: Buffer, target: Buffer): Answer<Entry> {
    return this.#during([parent], this.#names.symlink(caller, parent, name, target));
  }

  mknod(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Answer<Entry> {
    return this.#during([parent], this.#names.mknod(caller, parent, name, mode, rdev, umask));
  }

  mkdir(caller: Caller, parent: number, name: Buffer, mode: number, umask: number): Answer<Entry> {
    return this.#during([parent], this.#names.mkdir(caller, parent, name, mode, umask));
  }

  unlink(caller: Caller, parent: number, name: Buffer): Answer<void> {
    return this.#during([parent], this.#names.unlink(caller, parent, name));
  }

  rmdir(caller: Caller, parent: number, name: Buffer): Answer<void> {
    const held = [parent, ...this.#standsFor(parent, name)];
    return this.#during(held, this.#names.rmdir(caller, parent, name));
  }

  rename(
    caller: Caller,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Answer<void> {
    const [ends, otherEnds] = [this.#standsFor(parent, name), this.#standsFor(newParent, newName)];
    const done = this.#during(
      [parent, newParent, ...ends, ...otherEnds],
      this.#names.rename(caller, parent, name, newParent, newName, flags),
    );
    return andThen(done, () => {
      const [from, to] = [
        { directory: parent, name },
        { directory: newParent, name: newName },
      ];
      this.#moved(from, to, ends[0]);
      if ((flags & RENAME_EXCHANGE) !== 0) this.#moved(to, from, otherEnds[0]);
    });
  }

  link(caller: Caller, ino: number, newParent: number, newName: Buffer): Answer<Entry> {
    return this.#during([newParent], this.#names.link(caller, ino, newParent, newName));
  }

  open(caller: Caller, ino: number, flags: number, killPriv = false, unread = false): Answer<OpenReply> {
    return this.#opens.open(caller, ino, flags, killPriv, unread);
  }

  create(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    flags: number,
    umask: number,
  ): Answer<CreateReply> {
    return this.#during([parent], this.#opens.create(caller, parent, name, mode, flags, umask));
  }

  async read(caller: Caller, _ino: number, handle: number, offset: number, size: number): Promise<Buffer[]> {
    return this.#fileCalls.read(caller, handle, offset, size);
  }

  write(caller: Caller, ino: number, request: WriteRequest): Answer<number> {
    return this.#fileCalls.write(caller, ino, request);
  }

  flush(caller: Caller, ino: number, handle: number, lockOwner: bigint): Answer<void> {
    return lastly(
      () => this.#fileCalls.flush(caller, handle),
      () => this.#locks.flush(ino, handle, lockOwner),
    );
  }

  release(ino: number, handle: number, _flags: number, lockOwner?: bigint): Answer<void> {
    return lastly(
      () => this.#fileCalls.release(handle),
      () => this.#locks.release(ino, handle, lockOwner),
    );
  }

  getlk(caller: Caller, ino: number, _handle: number, owner: bigint, lock: FileLock): Promise<FileLock> {
    return this.#locks.test(caller, ino, owner, lock);
  }

  setlk(
    caller: Caller,
    ino: number,
    handle: number,
    owner: bigint,
    lock: FileLock,
    options: { wait: boolean; flock: boolean },
  ): Promise<void> {
    return this.#locks.set(caller, ino, handle, owner, lock, options);
  }

  fsync(caller: Caller, _ino: number, handle: number, dataOnly: boolean): Promise<void> {
    return this.#fileCalls.fsync(caller, handle, dataOnly);
  }

  opendir(_caller: Caller, ino: number, _flags: number, unread = false): OpenReply {
    return this.#directories.open(ino, unread);
  }

  async readdir(
    caller: Caller,
    ino: number,
    handle: number,
    cookie: number,
    maxEntries: number,
    plus: boolean,
  ): Promise<DirEntry[]> {
    const stream = this.#directories.stream(ino, handle);
    if (cookie === 0) this.#directories.countListing(ino);
    return this.#during([ino], stream.read(cookie, maxEntries, plus, caller.signal));
  }

  releasedir(ino: number, handle: number): void {
    this.#directories.close(ino, handle);
  }

  /** Changes by request are durable when they are answered, those made here when they have left the lane. */
  async fsyncdir(caller: Caller, ino: number, _handle: number, _dataOnly: boolean): Promise<void> {
    await this.#during([ino], interruptible(this.#context.lane.synced(ino), caller.signal));
    this.#context.lostChanges.report(ino);
  }

  statfs(caller: Caller, ino: number): Promise<StatFs> {
    return statfs(this.#context.meta, ino, caller.signal);
  }

  getxattr(caller: Caller, ino: number, name: Buffer): Answer<Buffer | undefined> {
    return this.#xattrs.get(caller, ino, name);
  }

  setxattr(
    caller: Caller,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    killSgid = false,
  ): Answer<void> {
    return this.#during([ino], this.#xattrs.set(caller, ino, name, value, flags, killSgid));
  }

  listxattr(caller: Caller, ino: number): Answer<Buffer[]> {
    return this.#xattrs.list(caller, ino);
  }

  removexattr(caller: Caller, ino: number, name: Buffer): Answer<void> {
    return this.#during([ino], this.#xattrs.remove(caller, ino, name));
  }

  getFlags(caller: Caller, ino: number): Answer<number> {
    return this.#during([ino], this.#flags.get(caller, ino));
  }

  setFlags(caller: Caller, ino: number, flags: number): Answer<void> {
    return this.#during([ino], this.#flags.set(caller, ino, flags));
  }

  tmpfile(caller: Caller, parent: number, mode: number, flags: number, umask: number): Promise<CreateReply> {
    return this.#opens.tmpfile(caller, parent, mode, flags, umask);
  }

  copyFileRange(
    caller: Caller,
    from: { ino: number; handle: number; offset: number },
    to: { ino: number; handle: number; offset: number },
    length: number,
  ): Promise<number> {
    return this.#copies.copyFileRange(caller, from, to, length);
  }

  fallocate(
    caller: Caller,
    _ino: number,
    handle: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    return this.#fileCalls.space.fallocate(caller, handle, mode, offset, length);
  }

  lseek(caller: Caller, _ino: number, handle: number, offset: number, whence: number): Promise<number> {
    return this.#fileCalls.space.lseek(caller, handle, offset, whence);
  }

  /** The kernel holds its lock on these directories until the call is answered. */
  #during<T>(directories: readonly number[], call: Answer<T>): Answer<T> {
    return this.#context.kernel.during(directories, call);
  }

  /** What a name stands for, as far as it is known, with ANY_DIRECTORY for what is not. */
  #standsFor(parent: number, name: Buffer): number[] {
    const known = this.#context.names.lookup(parent, name);
    if (known === 'absent') return [];
    return [known?.ino ?? ANY_DIRECTORY];
  }

  #moved(from: ToldName, to: ToldName, ino = ANY_DIRECTORY): void {
    const { kernel } = this.#context;
    const leased = this.#context.mode(to.directory) !== LeaseMode.LEASE_NONE;
    kernel.moved(from, to, ino === ANY_DIRECTORY ? undefined : ino, leased);
  }

  /** A change that was answered already was refused: whoever syncs or opens what it was about is told. */
  #changeLost(inos: readonly number[], kind: string, error: HoldfastError): void {
    const { log, inodes, names, kernel, lostChanges, notifier } = this.#context;
    log.error({ inos, kind, error: error.message }, 'a change could not be made');
    for (const ino of inos) {
      lostChanges.add(ino, error);
      inodes.mistaken(ino);
      names.drop(ino);
      const told = [kernel.expire(ino), notifier?.invalidateInode(ino, 0, 0)];
      Promise.all(told).catch((failure: unknown) => log.error({ ino, err: failure }, 'invalidation failed'));
    }
  }

  /** Nothing that was changed or written under the old session may reach the servers any more. */
  #sessionLost(): void {
    const error = new HoldfastError('EIO', 'the session expired');
    this.#local.sessionLost();
    this.#listings.clear();
    this.#context.quotas.sessionLost();
    this.#context.lane.abort(error);
    for (const file of [...this.#context.files.all()]) file.discard(error);
  }
}
