import { deferred } from '../../common/deferred.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, SetAttr } from '../../proto/gen/meta.js';
import { checkMaySet } from '../../proto/inode-flags.js';
import { FILE_SIZE_MAX_BYTES } from '../../proto/types.js';
import { type Answer, andThen, lastly } from '../answer.js';
import type { ChunkApi } from '../data/api.js';
import type { FileData } from '../data/file-data.js';
import type { FileReader } from '../data/reader.js';
import type { Caller, SetAttrRequest, WriteRequest } from '../fuse/binding.js';
import { changedAttr } from '../leases/local-attr.js';
import { type Interrupt, interruptible } from '../wait.js';
import { AppendTurns } from './append-turn.js';
import { isRegular } from './attr.js';
import { killCapability } from './capability.js';
import type { VfsContext } from './context.js';
import { O_APPEND, O_DSYNC, O_NOATIME, O_SYNC_ONLY, type OpenFile, throwWriteError } from './file-table.js';
import { checkMayCut, checkMayWrite } from './guarded-files.js';
import type { LocalChanges } from './local-changes.js';
import type { LockCalls } from './lock-calls.js';
import { checkOwner } from './ownership.js';
import { changesNothing, checkChangeOfNothing, hasPriv, killedBy, wireChange } from './privileges.js';
import { setAttrWithin, type Written, writeWithinQuota } from './quota-room.js';
import { SharedFiles } from './shared-files.js';
import { SMALL_FILE_BYTES_MAX } from './small-files.js';
import { SpaceCalls } from './space-calls.js';
import type { WriteBehind } from './write-behind.js';

/** At a close with more dirty bytes the caller waits: one large file must not hold up the changes behind it. */
const BACKGROUND_FLUSH_BYTES_MAX = 1024 * 1024;

/** Calls on open files and their contents. */
export class FileCalls {
  readonly #context: VfsContext;
  readonly #reader: FileReader;
  readonly #local: LocalChanges;
  readonly #chunks: ChunkApi;
  readonly #turns: AppendTurns;
  readonly #behind: WriteBehind;
  readonly #locks: LockCalls;
  readonly shared: SharedFiles;
  readonly space: SpaceCalls;

  constructor(
    context: VfsContext,
    reader: FileReader,
    local: LocalChanges,
    chunks: ChunkApi,
    behind: WriteBehind,
    locks: LockCalls,
  ) {
    this.#context = context;
    this.#locks = locks;
    this.#chunks = chunks;
    this.#behind = behind;
    this.shared = new SharedFiles(context, reader);
    this.space = new SpaceCalls(context, chunks, locks, this);
    this.#turns = new AppendTurns(context.meta.locks, context.log);
    this.#reader = reader;
    this.#local = local;
  }

  async read(caller: Caller, handle: number, offset: number, size: number): Promise<Buffer[]> {
    const { file, flags, stream } = this.#context.files.handle(handle);
    const { signal } = caller;
    const { atimes } = this.#context.files;
    if ((flags & O_NOATIME) === 0) atimes?.read(atimes.view(file.view()));
    this.#locks.refuseLost(file.ino, handle);
    const asOf = this.#context.meta.leases.stamp();
    const shared = this.shared.mustAsk(file);
    const read = shared
      ? this.shared.read(file, offset, size, signal)
      : this.#reader.read(file, stream, offset, size, signal);
    // Behind its own request, so that it is answered first.
    if (!shared && offset === 0 && file.size <= SMALL_FILE_BYTES_MAX)
      this.#context.smallFiles.reading(file.ino);
    let data = await this.#context.pageCalls.during(file.ino, read);
    // While the bytes were on their way the lease has gone, and what others have cut off since is no hole; or a write has begun
    // here, which others do not see yet.
    if (!shared && (!this.#context.covers(file.ino, asOf) || this.shared.isShared(file.ino))) {
      const again = this.shared.read(file, offset, size, signal);
      data = await this.#context.pageCalls.during(file.ino, again);
    }
    // It may have been waited for in the next session.
    this.#locks.refuseLost(file.ino, handle);
    return data;
  }

  write(caller: Caller, ino: number, request: WriteRequest): Answer<number> {
    const { files, readOnly } = this.#context;
    const open = files.handle(request.handle);
    if (readOnly) throw new HoldfastError('EROFS');
    if (!open.writable && !request.fromCache) throw new HoldfastError('EBADF');
    throwWriteError(open);
    this.#refuseLost(open.file.ino, request);
    const killed = request.killPriv ? this.#killPriv(open.file, caller) : undefined;
    const written = andThen(killed, () => {
      if (request.fromCache) return this.#writePages(caller, ino, open, request);
      // Before the kernel writes to pages of its own it sees to that itself.
      const uncapable = killCapability(this.#context, ino, caller);
      return andThen(uncapable, () => this.#write(caller, ino, open, request));
    });
    return this.#context.pageCalls.during(ino, written);
  }

  /** Pages that may not be written here are shown no longer. */
  async #writePages(caller: Caller, ino: number, open: OpenFile, request: WriteRequest): Promise<number> {
    try {
      return await this.#write(caller, ino, open, request);
    } catch (error) {
      if (error instanceof HoldfastError && error.errorName === 'EPERM') void this.#context.dropPages(ino);
      throw error;
    }
  }

  /** A write that is only put into the buffer is answered at once: most are. */
  #write(caller: Caller, ino: number, open: OpenFile, request: WriteRequest): Answer<number> {
    // Pages that the kernel writes back have their place already.
    const append = (request.flags & O_APPEND) !== 0 && !request.fromCache;
    const put = (): Answer<Written> =>
      append ? this.#append(open, request, caller.signal) : this.#writeAt(open, request, caller.signal);
    const written = this.#context.unleasedPages.written(open, request, put);
    const syncs = (request.flags & (O_DSYNC | O_SYNC_ONLY)) !== 0 && !request.fromCache;
    return andThen(written, ({ at, length }) =>
      syncs || at !== request.offset
        ? this.#followed(caller, ino, open, request, { at, length }, syncs)
        : length,
    );
  }

  /** Sees to what a write asks for beside its place in the buffer. @returns its length */
  async #followed(
    caller: Caller,
    ino: number,
    open: OpenFile,
    request: WriteRequest,
    { at, length }: Written,
    syncs: boolean,
  ): Promise<number> {
    const { notifier, log } = this.#context;
    if (at !== request.offset) {
      // Others appended meanwhile: the kernel has cached these bytes at the wrong place.
      notifier
        ?.invalidateInode(ino, 0, 0)
        .catch((error: unknown) => log.warn({ ino, err: error }, 'invalidation failed'));
    }
    if (syncs) {
      const synced = this.#context.lane.urgently(open.file.fsync((request.flags & O_SYNC_ONLY) === 0));
      await interruptible(synced, caller.signal);
      throwWriteError(open);
    }
    return length;
  }

  #writeAt(open: OpenFile, request: WriteRequest, signal: Interrupt): Answer<Written> {
    const alone = () => this.#isAlone(open.file);
    const written = alone() ? this.#put(open, request.offset, request, signal, alone) : undefined;
    return andThen(written, (put) => put ?? this.#writeShared(open, request, signal));
  }

  async #writeShared(open: OpenFile, request: WriteRequest, signal: Interrupt): Promise<Written> {
    const { file } = open;
    const { offset, data, fromCache } = request;
    // Who appends has found the end, and must still find it there when he writes; so must who cuts.
    const stays = () => fromCache || this.#context.owns(file.ino) || offset + data.length <= file.attr.size;
    if (stays()) {
      await this.announceWriter(file, signal);
      const over = await this.#put(open, offset, request, signal, stays);
      if (over) await this.showOthers(open, signal);
      if (over) return over;
    }
    return this.#putInTurn(open, offset, request, signal);
  }

  /** Nobody else writes to it, and all that others have written is known. */
  #isAlone(file: FileData): boolean {
    return this.#context.owns(file.ino) && !this.shared.mustAsk(file);
  }

  /** At the end that all mounts agree on. @returns where */
  #append(open: OpenFile, request: WriteRequest, signal: Interrupt): Answer<Written> {
    const alone = () => this.#isAlone(open.file);
    const written = alone() ? this.#put(open, 'end', request, signal, alone) : undefined;
    return andThen(written, (put) => put ?? this.#putInTurn(open, 'end', request, signal));
  }

  #putInTurn(
    open: OpenFile,
    offset: number | 'end',
    request: WriteRequest,
    signal: Interrupt,
  ): Promise<Written> {
    const { file } = open;
    return this.#turns.during(file.ino, signal, async () => {
      await this.announceWriter(file, signal);
      const put = (await this.#put(open, offset, request, signal)) as Written;
      // Whoever is interrupted leaves, but the turn ends when it is done.
      await this.showOthers(open, undefined);
      return put;
    });
  }

  /**
   * Does what must not be overtaken by a truncate: under an exclusive lease, else in turn with all that changes the size, and
   * behind what the server says of the file. Interrupted, it goes on without the caller.
   * @param work asks `isWanted` before each part of it that takes long: others wait for an end, where there is no turn
   */
  whileSized<T>(
    file: FileData,
    signal: Interrupt,
    work: (isWanted: () => boolean) => Promise<T>,
  ): Promise<T> {
    const { ino } = file;
    if (this.#isAlone(file)) {
      const done = work(() => !this.#context.owns(ino));
      return interruptible(this.#context.ownedChanges.during(ino, done), signal);
    }
    return this.#turns.during(ino, signal, () =>
      this.announceWriter(file, signal).then(() => work(() => false)),
    );
  }

  /** Pages of a mapping come through any handle. */
  #refuseLost(ino: number, { handle, fromCache }: Pick<WriteRequest, 'handle' | 'fromCache'>): void {
    if (!fromCache) this.#locks.refuseLost(ino, handle);
  }

  /** @param knowsEnd whether the end is where it seems from here @returns undefined: nowhere, for it is not */
  #put(
    open: OpenFile,
    offset: number | 'end',
    request: WriteRequest,
    signal: Interrupt,
    knowsEnd: () => boolean = () => true,
  ): Answer<Written | undefined> {
    const { file } = open;
    const { data, fromCache } = request;
    const gap = offset !== 'end' && offset > file.size ? this.closeGap(file, offset, signal) : undefined;
    const mayPut = (): boolean => {
      this.#refuseLost(file.ino, request);
      checkMayWrite(open, request, this.#context.files);
      return knowsEnd();
    };
    return andThen(gap, () => {
      if (this.#context.quotas.book.active) {
        const options = { whole: fromCache, signal, mayPut };
        return writeWithinQuota(this.#context, this.#chunks, file, offset, data, options);
      }
      const { length } = data;
      const put = file.write(offset, data, signal, mayPut);
      return andThen(put, (at) => (at === undefined ? undefined : { at, length }));
    });
  }

  /** What is shared with others they see when the call returns. */
  async showOthers(open: OpenFile, signal: Interrupt | undefined): Promise<void> {
    if (this.#context.owns(open.file.ino)) return;
    await interruptible(this.#context.lane.urgently(open.file.flush()), signal);
    throwWriteError(open);
  }

  /**
   * close(2): what was written becomes visible to others, errors are reported. Nobody sees a file that is leased
   * exclusively without a recall, which flushes first: a little data follows in the background, in its place in the
   * order of changes.
   */
  flush(caller: Caller, handle: number): Answer<void> {
    const open = this.#context.files.handle(handle);
    if (!open.writable) return;
    return andThen(this.#flushed(open.file, caller), () => throwWriteError(open));
  }

  #flushed(file: FileData, { signal }: Caller): Answer<void> {
    if (file.clean) return;
    if (this.#context.owns(file.ino) && file.buffer.bytes <= BACKGROUND_FLUSH_BYTES_MAX)
      return this.#behind.add(file);
    return interruptible(this.#context.lane.urgently(file.flush()), signal);
  }

  async fsync(caller: Caller, handle: number, dataOnly: boolean): Promise<void> {
    const open = this.#context.files.handle(handle);
    await interruptible(this.#synced(open.file, dataOnly), caller.signal);
    throwWriteError(open);
    this.#context.lostChanges.report(open.file.ino);
  }

  /**
   * What is in the lane is hurried once the data has landed where the file's making, or another change of it, waits there
   * and a commit comes behind it: so they leave as one entry of the log.
   */
  async #synced(file: FileData, dataOnly: boolean): Promise<void> {
    const { lane } = this.#context;
    const before = lane.syncing(file.ino);
    const landed = deferred<void>();
    const together = file.grows && lane.expects(file.ino);
    const synced = file.fsync(dataOnly, landed.resolve);
    if (together) {
      this.#behind.start();
      await Promise.race([landed.promise, synced]);
    }
    await lane.urgently(synced);
    if (before) await lane.urgently(before);
  }

  /** Not waited for by anybody: what is left is written in the background. */
  release(handle: number): Answer<void> {
    const { files, meta, log, unleasedPages } = this.#context;
    const { file } = files.close(handle);
    if (!files.readsPages(file.ino)) unleasedPages.forget(file.ino);
    const owned = this.#context.owns(file.ino);
    const released = lastly(
      () => andThen(owned ? this.#behind.of(file) : undefined, () => files.release(file)),
      () => meta.releaseOpen(file.ino),
    );
    if (!owned || !(released instanceof Promise)) return released;
    released.catch((error: unknown) => log.error({ ino: file.ino, err: error }, 'write-back failed'));
  }

  /** Mode, owner, times and size. @returns the inode afterwards, as the server has it */
  setattr(caller: Caller, ino: number, change: SetAttrRequest): Answer<Attr> {
    const { unleasedPages } = this.#context;
    const set = (): Answer<Attr> =>
      andThen(checkOwner(this.#context, caller, ino, change), () => this.#setattr(caller, ino, change));
    const changed = change.size === undefined ? set() : unleasedPages.resizing(ino, set);
    return andThen(changed, (attr) => andThen(unleasedPages.drop(ino), () => attr));
  }

  #setattr(caller: Caller, ino: number, change: SetAttrRequest): Answer<Attr> {
    const { files } = this.#context;
    const { size } = change;
    if (size !== undefined && change.handle !== undefined) this.#locks.refuseLost(ino, change.handle);
    const known = this.#context.inodes.known(ino);
    // Of a file that can be written to it may be the kernel's own, before a change of contents that it will ask for.
    const nothing = known && !files.hasWriter(ino) && changesNothing(change);
    return andThen(nothing ? checkChangeOfNothing(caller, known) : undefined, () => {
      const wire = wireChange(change);
      const killed = wire.killPriv && known ? killedBy(caller, known) : undefined;
      return andThen(killed, (bits) => {
        if (bits) wire.killSgid = bits.killSgid;
        return this.#change(caller, ino, wire, size);
      });
    });
  }

  #change(caller: Caller, ino: number, rest: Partial<SetAttr>, size: number | undefined): Answer<Attr> {
    const { files } = this.#context;
    if (rest.atime || rest.atimeNow) files.atimes?.forget(ino);
    if (size !== undefined) {
      if (size > FILE_SIZE_MAX_BYTES) throw new HoldfastError('EFBIG');
      // Before anything is cut off here. Of a file that is leased exclusively what is out of date are not the flags; where nothing
      // is known of it, nothing waits here that could be cut off.
      const owned = this.#context.owns(ino) ? files.get(ino)?.attr : undefined;
      checkMayCut(this.#context.inodes.fresh(ino)?.attr ?? owned);
      const cut = (): Promise<Attr> => this.#resize(ino, size, rest, caller.signal);
      return this.#context.pageStores.without(ino, caller.signal, cut);
    }
    const ofRemoved = (removed: Attr): Attr => {
      checkMaySet(removed, rest);
      const after = changedAttr(removed, rest, this.#context.clock.wall());
      this.#context.inodes.setLocal(after);
      return after;
    };
    const removed = this.#context.removedForGood(ino);
    if (removed) return ofRemoved(removed);
    const file = files.get(ino);
    const set = this.#local.setAttrOr(ino, rest, caller, () =>
      setAttrWithin(this.#context, ino, rest, caller.signal).catch((error: unknown) =>
        ofRemoved(this.#context.forgotten(ino, error)),
      ),
    );
    return andThen(set, (attr) => {
      file?.applyAttr(attr, true);
      const mtimeSet = rest.mtime !== undefined || rest.mtimeNow === true;
      file?.timesSet(attr, mtimeSet, this.#context.lane.keepsPlace(ino));
      return attr;
    });
  }

  /** fallocate(2) has made nothing longer: its times are new all the same. */
  async allocated(caller: Caller, ino: number): Promise<void> {
    await this.#change(caller, ino, { mtimeNow: true, killPriv: false, allocating: true }, undefined);
  }

  /**
   * Before a write at `end`, or a size of it: what lies between the end of the file and there reads as zeros. While others
   * have the file open this cannot be seen to, for they may have written there and are about to say so.
   */
  closeGap(file: FileData, end: number, signal: Interrupt): Answer<void> {
    if (!this.#context.owns(file.ino)) return;
    return andThen(this.learnEnd(file, signal), () => {
      if (file.tail.isClear(end) || !this.#isAlone(file)) return;
      return interruptible(file.clearGap(end, this.#context.tenure(file.ino)), signal);
    });
  }

  /** Somebody else may write to it when it is leased to nobody: the end of the file is where the server says. */
  learnEnd(file: FileData, signal: Interrupt): Answer<void> {
    if (!this.shared.mustAsk(file)) return;
    const op = { $case: 'getAttr' as const, value: { ino: file.ino } };
    return this.#context.readAttr(op, signal).then((attr) => file.applyAttr(attr, false));
  }

  /**
   * Before a write without an exclusive lease the server has to know that there is a writer: it takes leases from those
   * who believe what they know of the file. It may grant the exclusive lease again.
   */
  async announceWriter(file: FileData, signal: Interrupt): Promise<Attr> {
    const op = { $case: 'open' as const, value: { ino: file.ino, write: true } };
    const attr = await this.#context.readAttr(op, signal);
    file.applyAttr(attr, false);
    return attr;
  }

  /** The same where others may write to the file, and nothing where they may not. */
  async learnAsWriter(file: FileData, signal: Interrupt): Promise<void> {
    if (!this.#isAlone(file)) await this.announceWriter(file, signal);
  }

  #resize(ino: number, size: number, rest: Partial<SetAttr>, signal: Interrupt): Promise<Attr> {
    const { files } = this.#context;
    const file = files.get(ino);
    return file ? this.truncate(file, size, rest, signal) : this.#resizeClosed(ino, size, rest, signal);
  }

  async #resizeClosed(ino: number, size: number, rest: Partial<SetAttr>, signal: Interrupt): Promise<Attr> {
    const { files, meta, readOnly } = this.#context;
    const attr = readOnly ? undefined : await this.#context.attr(ino, signal);
    const grows = attr !== undefined && size > attr.size;
    if (attr && isRegular(attr) && attr.nlink > 0 && (grows || !this.#context.owns(ino))) {
      // Opened for it: nobody else has it open then, or what lies behind its end is the business of those who have, in turn.
      meta.retainOpen(ino);
      const file = files.acquire(attr, false);
      return lastly(
        async () => {
          if (!this.#isAlone(file)) await this.announceWriter(file, signal);
          return this.truncate(file, size, rest, signal);
        },
        () => andThen(files.release(file), () => meta.releaseOpen(ino)),
      );
    }
    files.shared(ino); // what is kept of it may lie behind the cut
    files.dropBlocks(ino);
    return this.#context.setAttr(ino, { ...rest, size }, signal);
  }

  /** Cuts or lengthens a file that is open here. */
  truncate(file: FileData, size: number, rest: Partial<SetAttr>, signal: Interrupt): Promise<Attr> {
    if (this.#context.readOnly) return Promise.reject(new HoldfastError('EROFS'));
    const cut = (): Promise<Attr> => this.#cut(file, size, rest);
    const { ino } = file;
    const resize = (): Promise<Attr> =>
      this.#context.owns(ino)
        ? this.#context.ownedChanges.during(ino, cut())
        : this.#turns.during(ino, signal, cut);
    const gap = size > 0 ? this.closeGap(file, size, signal) : undefined;
    const done = gap ? gap.then(resize) : resize();
    return interruptible(this.#context.lane.urgently(done), signal);
  }

  /** It goes on when the caller is interrupted: half a truncate would lose what is dirty. */
  #cut(file: FileData, size: number, rest: Partial<SetAttr>): Promise<Attr> {
    return file.truncate(size, () => {
      // Of a file that was closed, also during the truncate: its flush waits for this.
      this.#context.lane.releasePlace(file.ino);
      return this.#context.setAttr(file.ino, { ...rest, size });
    });
  }

  /** Makes a file at least so long; what others have appended meanwhile stays. @returns whether it was shorter */
  extend(file: FileData, size: number, signal: Interrupt): Promise<boolean> {
    const grow = async (): Promise<boolean> => {
      if (size <= file.size) return false;
      await this.#cut(file, size, { allocating: true });
      return true;
    };
    // Whether others may append is asked behind the gap: the lease may have gone meanwhile.
    const done = andThen(this.closeGap(file, size, signal), () => this.whileSized(file, signal, grow));
    return interruptible(this.#context.lane.urgently(Promise.resolve(done)), signal);
  }

  async #killPriv(file: FileData, caller: Caller): Promise<void> {
    const attr = file.view();
    if (!hasPriv(attr.mode)) return;
    const killed = await killedBy(caller, attr);
    file.applyAttr(await this.#context.setAttr(file.ino, killed, caller.signal), true);
    await this.privKilled(file.ino);
  }

  /** Before the call is answered: the kernel would show the old mode until its time-out, and go by it (link(2)) until a lookup. */
  async privKilled(ino: number): Promise<void> {
    const { notifier, log, kernel } = this.#context;
    await notifier
      ?.invalidateInode(ino, -1, 0)
      .catch((error: unknown) => log.warn({ ino, err: error }, 'invalidation failed'));
    await kernel.expire(ino);
  }
}
