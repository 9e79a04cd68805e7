import { HoldfastError } from '../../proto/errors.js';
import { type Attr, LeaseMode, type SetAttr } from '../../proto/gen/meta.js';
import { CAPABILITY_NAME, FILE_SIZE_MAX_BYTES, HAS_CAPABILITY, S_IFREG } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import type { FileData } from '../data/file-data.js';
import type { FileReader } from '../data/reader.js';
import type { Caller, CreateReply, OpenReply, SetAttrRequest, WriteRequest } from '../fuse/binding.js';
import { changedAttr } from '../leases/local-attr.js';
import { attrOf } from '../meta/api.js';
import { type Interrupt, interruptible } from '../wait.js';
import { AppendTurns } from './append-turn.js';
import { isRegular } from './attr.js';
import { masked, type VfsContext } from './context.js';
import {
  O_ACCMODE,
  O_APPEND,
  O_DSYNC,
  O_EXCL,
  O_NOATIME,
  O_RDONLY,
  O_SYNC_ONLY,
  O_TRUNC,
  O_WRONLY,
  type OpenFile,
  throwWriteError,
} from './file-table.js';
import type { LocalChanges } from './local-changes.js';
import type { LockCalls } from './lock-calls.js';
import type { NameCalls } from './name-calls.js';
import {
  changesNothing,
  checkAccess,
  checkChangeOfNothing,
  hasPriv,
  killedBy,
  wireChange,
} from './privileges.js';
import { newInodeIn, setAttrWithin, type Written, withRoom, writeWithinQuota } from './quota-room.js';
import { SharedFiles } from './shared-files.js';
import { SMALL_FILE_BYTES_MAX } from './small-files.js';
import { SpaceCalls } from './space-calls.js';
import type { WriteBehind } from './write-behind.js';

/** At a close with more dirty bytes the caller waits: one large file must not hold up the changes behind it. */
const BACKGROUND_FLUSH_BYTES_MAX = 1024 * 1024;
const NO_NAME = Buffer.alloc(0);

/** Calls on open files and their contents. */
export class FileCalls {
  readonly #context: VfsContext;
  readonly #reader: FileReader;
  readonly #names: NameCalls;
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
    names: NameCalls,
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
    this.#names = names;
    this.#local = local;
  }

  /** Under a lease that allows what is wanted it is answered here; otherwise the server recalls others' and grants one. */
  async open(caller: Caller, ino: number, flags: number, killPriv: boolean): Promise<OpenReply> {
    const { pageStores, readOnly } = this.#context;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    if (readOnly && (writable || (flags & O_TRUNC) !== 0)) throw new HoldfastError('EROFS');
    const open = (): Promise<OpenReply> => this.#open(caller, ino, flags, killPriv);
    return writable ? pageStores.without(ino, caller.signal, open) : open();
  }

  async #open(caller: Caller, ino: number, flags: number, killPriv: boolean): Promise<OpenReply> {
    const { meta, files } = this.#context;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    meta.retainOpen(ino);
    let file: FileData | undefined;
    try {
      const attr = await this.#attrForOpen(ino, writable, caller);
      if (!isRegular(attr)) throw new HoldfastError('EINVAL', 'only regular files are opened here');
      file = files.acquire(attr, false);
      const caching = await this.#context.opened(attr);
      // The kernel answers reads from pages that it keeps: there will be no other sign of them.
      if (!writable && caching.keepCache && (flags & O_NOATIME) === 0) await this.#countRead(file);
      if ((flags & O_TRUNC) !== 0 && writable) {
        await this.truncate(file, 0, killPriv ? await killedBy(caller, attr) : {}, caller.signal);
        if (killPriv && hasPriv(attr.mode)) await this.#privKilled(ino);
      }
      this.#context.throwLostChange(ino);
      // Through its page cache the kernel would send one write(2) in pieces, between which others append.
      if (writable && (flags & O_APPEND) !== 0) caching.directIo = true;
      return { handle: files.open(file, flags), ...caching };
    } catch (error) {
      if (file) await files.release(file);
      meta.releaseOpen(ino);
      throw error;
    }
  }

  async create(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    flags: number,
    umask: number,
  ): Promise<CreateReply> {
    const existingOk = (flags & O_EXCL) === 0;
    const node = {
      parent,
      name,
      mode: S_IFREG | (masked(mode, umask) & 0o7777),
      existingOk,
      open: true,
      askedMode: mode & 0o7777,
    };
    const { created, attr } = await this.#names.makeNode(caller, node);
    const open = (): Promise<CreateReply> => this.#openMade(caller, parent, name, flags, attr, created);
    const { pageStores } = this.#context;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    return writable && !created ? pageStores.without(attr.ino, caller.signal, open) : open();
  }

  /** The second half of open(2) with O_CREAT. */
  async #openMade(
    caller: Caller,
    parent: number,
    name: Buffer,
    flags: number,
    made: Attr,
    created: boolean,
  ): Promise<CreateReply> {
    const { meta, files } = this.#context;
    let attr = made;
    meta.retainOpen(attr.ino);
    let file: FileData | undefined;
    try {
      if (!created) checkAccess(attr, caller, flags);
      const { inodes } = this.#context;
      inodes.tell(attr); // the entry goes along
      if (created) inodes.learnXattr(attr.ino, CAPABILITY_NAME, undefined, inodes.stamp().asOf);
      file = files.acquire(attr, created);
      const writable = (flags & O_ACCMODE) !== O_RDONLY;
      if (!created && (flags & O_TRUNC) !== 0 && writable) {
        const killed = caller.uid !== 0 ? await killedBy(caller, attr) : {};
        attr = await this.truncate(file, 0, killed, caller.signal);
      }
      const caching = await this.#context.opened(attr);
      // Nobody reads through this description: without the page cache the kernel asks less before a write.
      if ((flags & O_ACCMODE) === O_WRONLY || (writable && (flags & O_APPEND) !== 0)) caching.directIo = true;
      return { entry: this.#context.entry(attr, parent, name), handle: files.open(file, flags), ...caching };
    } catch (error) {
      if (file) await files.release(file);
      meta.releaseOpen(attr.ino);
      throw error;
    }
  }

  async read(caller: Caller, handle: number, offset: number, size: number): Promise<Buffer[]> {
    const { file, flags, stream } = this.#context.files.handle(handle);
    const { signal } = caller;
    const { atimes } = this.#context.files;
    if ((flags & O_NOATIME) === 0) atimes?.read(atimes.view(file.view()));
    this.#locks.refuseLost(file.ino, handle);
    const shared = this.shared.mustAsk(file);
    const read = shared
      ? this.shared.read(file, offset, size, signal)
      : this.#reader.read(file, stream, offset, size, signal);
    // Behind its own request, so that it is answered first.
    if (!shared && offset === 0 && file.size <= SMALL_FILE_BYTES_MAX)
      this.#context.smallFiles.reading(file.ino);
    const data = await read;
    // It may have been waited for in the next session.
    this.#locks.refuseLost(file.ino, handle);
    return data;
  }

  async write(caller: Caller, ino: number, request: WriteRequest): Promise<number> {
    const { files, notifier, readOnly, log } = this.#context;
    const open = files.handle(request.handle);
    if (readOnly) throw new HoldfastError('EROFS');
    if (!open.writable && !request.fromCache) throw new HoldfastError('EBADF');
    throwWriteError(open);
    this.#refuseLost(open.file.ino, request);
    if (request.killPriv) await this.#killPriv(open.file, caller);
    // Before the kernel writes to pages of its own it sees to that itself.
    if (!request.fromCache) await this.#killCapability(ino, caller);
    // Pages that the kernel writes back have their place already.
    const append = (request.flags & O_APPEND) !== 0 && !request.fromCache;
    const { at, length } = append
      ? await this.#append(open, request, caller.signal)
      : await this.#writeAt(open, request, caller.signal);
    if (at !== request.offset) {
      // Others appended meanwhile: the kernel has cached these bytes at the wrong place.
      notifier
        ?.invalidateInode(ino, 0, 0)
        .catch((error: unknown) => log.warn({ ino, err: error }, 'invalidation failed'));
    }
    if ((request.flags & (O_DSYNC | O_SYNC_ONLY)) !== 0 && !request.fromCache) {
      const synced = this.#context.lane.urgently(open.file.fsync((request.flags & O_SYNC_ONLY) === 0));
      await interruptible(synced, caller.signal);
      throwWriteError(open);
    }
    return length;
  }

  async #writeAt(open: OpenFile, request: WriteRequest, signal: Interrupt): Promise<Written> {
    const { file } = open;
    const { ino } = file;
    const put = async (): Promise<Written> => {
      const written = await this.#put(file, request.offset, request, signal);
      await this.showOthers(open, signal);
      return { at: request.offset, length: written?.length ?? 0 };
    };
    if (this.#isAlone(file)) return put();
    const { size } = await this.announceWriter(file, signal);
    const grows = request.offset + request.data.length > size;
    // Who appends has found the end, and must still find it there when he writes.
    const inTurn = grows && !request.fromCache && !this.#context.owns(ino);
    return inTurn ? this.#turns.during(ino, signal, put) : put();
  }

  /** Nobody else writes to it, and all that others have written is known. */
  #isAlone(file: FileData): boolean {
    return this.#context.owns(file.ino) && !this.shared.mustAsk(file);
  }

  /** At the end that all mounts agree on. @returns where */
  async #append(open: OpenFile, request: WriteRequest, signal: Interrupt): Promise<Written> {
    const { file } = open;
    const alone = () => this.#isAlone(file);
    const written = alone() ? await this.#put(file, 'end', request, signal, alone) : undefined;
    if (written) return written;
    return this.#turns.during(file.ino, signal, async () => {
      await this.announceWriter(file, signal);
      const end = (await this.#put(file, 'end', request, signal)) as Written;
      await this.showOthers(open, signal);
      return end;
    });
  }

  /** Pages of a mapping come through any handle. */
  #refuseLost(ino: number, { handle, fromCache }: Pick<WriteRequest, 'handle' | 'fromCache'>): void {
    if (!fromCache) this.#locks.refuseLost(ino, handle);
  }

  /** @param knowsEnd whether the end is where it seems from here @returns undefined: nowhere, for it is not */
  async #put(
    file: FileData,
    offset: number | 'end',
    request: WriteRequest,
    signal: Interrupt,
    knowsEnd: () => boolean = () => true,
  ): Promise<Written | undefined> {
    const { data, fromCache } = request;
    const mayPut = (): boolean => {
      this.#refuseLost(file.ino, request);
      return knowsEnd();
    };
    if (this.#context.quotas.book.active) {
      const options = { whole: fromCache, signal, mayPut };
      return writeWithinQuota(this.#context, this.#chunks, file, offset, data, options);
    }
    const { length } = data;
    const at = await file.write(offset, data, signal, mayPut);
    return at === undefined ? undefined : { at, length };
  }

  /** What is shared with others they see when the call returns. */
  async showOthers(open: OpenFile, signal: Interrupt): Promise<void> {
    if (this.#context.owns(open.file.ino)) return;
    await interruptible(this.#context.lane.urgently(open.file.flush()), signal);
    throwWriteError(open);
  }

  /**
   * close(2): what was written becomes visible to others, errors are reported. Nobody sees a file that is leased
   * exclusively without a recall, which flushes first: a little data follows in the background, in its place in the
   * order of changes.
   */
  async flush(caller: Caller, handle: number): Promise<void> {
    const open = this.#context.files.handle(handle);
    if (!open.writable) return;
    const { file } = open;
    if (!file.clean) {
      if (this.#context.owns(file.ino) && file.buffer.bytes <= BACKGROUND_FLUSH_BYTES_MAX)
        this.#behind.add(file);
      else await interruptible(this.#context.lane.urgently(file.flush()), caller.signal);
    }
    throwWriteError(open);
  }

  async fsync(caller: Caller, handle: number, dataOnly: boolean): Promise<void> {
    const { lane, files } = this.#context;
    const open = files.handle(handle);
    const synced = lane.urgently(open.file.fsync(dataOnly)).then(() => lane.settled());
    await interruptible(synced, caller.signal);
    throwWriteError(open);
    this.#context.throwLostChange(open.file.ino);
  }

  /** Not waited for by anybody: what is left is written in the background. */
  async release(handle: number): Promise<void> {
    const { files, meta, log } = this.#context;
    const { file } = files.close(handle);
    const behind = this.#context.owns(file.ino) ? this.#behind.of(file) : undefined;
    const written = behind ? behind.then(() => files.release(file)) : files.release(file);
    const released = written.finally(() => meta.releaseOpen(file.ino));
    if (!this.#context.owns(file.ino)) await released;
    else released.catch((error: unknown) => log.error({ ino: file.ino, err: error }, 'write-back failed'));
  }

  /** Mode, owner, times and size. @returns the inode afterwards, as the server has it */
  async setattr(caller: Caller, ino: number, change: SetAttrRequest): Promise<Attr> {
    const { files } = this.#context;
    const file = files.get(ino);
    const { size, ...rest } = wireChange(change);
    if (size !== undefined && change.handle !== undefined) this.#locks.refuseLost(ino, change.handle);
    const known = this.#context.inodes.known(ino);
    // Of an open file it may be the kernel's own, before a change of contents that it will ask for.
    if (known && !file && size === undefined && changesNothing(rest))
      await checkChangeOfNothing(caller, known);
    if (rest.killPriv && known) Object.assign(rest, await killedBy(caller, known));
    if (rest.atime || rest.atimeNow) files.atimes?.forget(ino);
    if (size !== undefined) {
      if (size > FILE_SIZE_MAX_BYTES) throw new HoldfastError('EFBIG');
      const cut = (): Promise<Attr> => this.#resize(ino, size, rest, caller.signal);
      return this.#context.pageStores.without(ino, caller.signal, cut);
    }
    const removed = this.#context.removedDirectory(ino);
    if (removed) {
      const after = changedAttr(removed, rest, this.#context.clock.wall());
      this.#context.inodes.setLocal(after);
      return after;
    }
    const attr =
      this.#local.setAttr(ino, rest) ?? (await setAttrWithin(this.#context, ino, rest, caller.signal));
    file?.applyAttr(attr, true);
    file?.timesSet(attr, rest.mtime !== undefined || rest.mtimeNow === true);
    return attr;
  }

  /** The kernel goes on believing the access time that it has cached. */
  async #countRead(file: FileData): Promise<void> {
    const { files, notifier, log } = this.#context;
    const { atimes } = files;
    const seen = atimes?.view(file.view());
    if (!atimes || !seen || !atimes.due(seen)) return;
    atimes.read(seen);
    await notifier
      ?.invalidateInode(file.ino, -1, 0)
      .catch((error: unknown) => log.warn({ ino: file.ino, err: error }, 'invalidation failed'));
  }

  /** open(2) with O_TMPFILE. */
  async tmpfile(
    caller: Caller,
    parent: number,
    mode: number,
    flags: number,
    umask: number,
  ): Promise<CreateReply> {
    const { meta, files, inodes } = this.#context;
    const { uid, gid } = caller;
    const bits = { mode: S_IFREG | (masked(mode, umask) & 0o7777), askedMode: mode & 0o7777 };
    const value = {
      parent,
      name: NO_NAME,
      uid,
      gid,
      rdev: 0,
      target: NO_NAME,
      existingOk: false,
      open: true,
      unnamed: true,
    };
    const op = { $case: 'makeNode' as const, value: { ...value, ...bits } };
    const reply = await withRoom(
      this.#context,
      newInodeIn(this.#context, parent, caller),
      caller.signal,
      (spent) => this.#context.mutate([parent], op, caller.signal, spent),
    );
    const attr = attrOf(reply.result);
    meta.retainOpen(attr.ino);
    inodes.learn(attr, inodes.stamp(), true);
    const file = files.acquire(attr, true);
    const caching = await this.#context.opened(attr);
    const entry = this.#context.entry(attr, parent, NO_NAME);
    return { entry, handle: files.open(file, flags), ...caching };
  }

  /** Somebody else may write to it when it is leased to nobody: the end of the file is where the server says. */
  async learnEnd(file: FileData, signal: Interrupt): Promise<void> {
    if (!this.shared.mustAsk(file)) return;
    const op = { $case: 'getAttr' as const, value: { ino: file.ino } };
    file.applyAttr(await this.#context.readAttr(op, signal), false);
  }

  async #attrForOpen(ino: number, writable: boolean, caller: Caller): Promise<Attr> {
    const fresh = this.#context.inodes.fresh(ino)?.attr;
    if (fresh && (!writable || this.#context.owns(ino))) return fresh;
    return this.#context.readAttr({ $case: 'open', value: { ino, write: writable } }, caller.signal);
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

  #resize(ino: number, size: number, rest: Partial<SetAttr>, signal: Interrupt): Promise<Attr> {
    const { files } = this.#context;
    const file = files.get(ino);
    if (file) return this.truncate(file, size, rest, signal);
    files.shared(ino); // what is kept of it may lie behind the cut
    files.dropBlocks(ino);
    return this.#context.setAttr(ino, { ...rest, size }, signal);
  }

  /** Cuts or lengthens a file that is open here. */
  truncate(file: FileData, size: number, rest: Partial<SetAttr>, signal: Interrupt): Promise<Attr> {
    if (this.#context.readOnly) return Promise.reject(new HoldfastError('EROFS'));
    // A flush that waits for the truncate must not be waited for by it.
    this.#context.lane.releasePlace(file.ino);
    // It goes on when the caller is interrupted: half a truncate would lose what is dirty.
    const cut = (): Promise<Attr> =>
      file.truncate(size, () => this.#context.setAttr(file.ino, { ...rest, size }));
    const done = this.#context.owns(file.ino) ? cut() : this.#turns.during(file.ino, signal, cut);
    return interruptible(this.#context.lane.urgently(done), signal);
  }

  async #killPriv(file: FileData, caller: Caller): Promise<void> {
    const attr = file.view();
    if (!hasPriv(attr.mode)) return;
    const killed = await killedBy(caller, attr);
    file.applyAttr(await this.#context.setAttr(file.ino, killed, caller.signal), true);
    await this.#privKilled(file.ino);
  }

  /** Whoever writes: root, too, who may keep setuid. */
  async #killCapability(ino: number, { signal }: Caller): Promise<void> {
    const { inodes } = this.#context;
    const leased = this.#context.mode(ino) !== LeaseMode.LEASE_NONE;
    const attr = leased ? await this.#context.attr(ino, signal) : inodes.known(ino);
    if (((attr?.xattrKinds ?? 0) & HAS_CAPABILITY) === 0) return;
    const value = { ino, name: Buffer.from(CAPABILITY_NAME) };
    try {
      await this.#context.mutateNames([ino], [ino], { $case: 'removeXattr', value }, signal);
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.errorName !== 'ENODATA') throw error;
    } finally {
      inodes.xattrsChanged(ino);
    }
    await this.#context.readAttr({ $case: 'getAttr', value: { ino } }, signal);
  }

  /** Before the call is answered: the kernel would show the old mode until its time-out. */
  async #privKilled(ino: number): Promise<void> {
    const { notifier, log } = this.#context;
    await notifier
      ?.invalidateInode(ino, -1, 0)
      .catch((error: unknown) => log.warn({ ino, err: error }, 'invalidation failed'));
  }
}
