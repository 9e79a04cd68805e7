import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import { CAPABILITY_NAME, PERMISSION_BITS, S_IFREG } from '../../proto/types.js';
import { type Answer, andThen, undoing } from '../answer.js';
import type { FileData } from '../data/file-data.js';
import type { Caller, CreateReply, OpenReply } from '../fuse/binding.js';
import { attrOf } from '../meta/api.js';
import { isRegular } from './attr.js';
import { masked, type VfsContext } from './context.js';
import type { FileCalls } from './file-calls.js';
import { O_ACCMODE, O_APPEND, O_EXCL, O_NOATIME, O_RDONLY, O_TRUNC, O_WRONLY } from './file-table.js';
import { checkMayOpen } from './guarded-files.js';
import type { NameCalls } from './name-calls.js';
import { checkAccess, hasPriv, killedBy } from './privileges.js';
import { newInodeIn, withRoom } from './quota-room.js';

const NO_NAME = Buffer.alloc(0);

/** Calls that make open file descriptions. */
export class OpenCalls {
  readonly #context: VfsContext;
  readonly #names: NameCalls;
  readonly #files: FileCalls;

  constructor(context: VfsContext, names: NameCalls, files: FileCalls) {
    this.#context = context;
    this.#names = names;
    this.#files = files;
  }

  /** Under a lease that allows what is wanted it is answered here; otherwise the server recalls others' and grants one. */
  open(caller: Caller, ino: number, flags: number, killPriv: boolean, unread = false): Answer<OpenReply> {
    const { pageStores, readOnly } = this.#context;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    if (readOnly && (writable || (flags & O_TRUNC) !== 0)) throw new HoldfastError('EROFS');
    const open = (): Answer<OpenReply> => this.#open(caller, ino, flags, killPriv, unread);
    const changes = writable || (flags & O_TRUNC) !== 0;
    return changes ? pageStores.without(ino, caller.signal, open) : open();
  }

  #open(caller: Caller, ino: number, flags: number, killPriv: boolean, unread: boolean): Answer<OpenReply> {
    const { meta, files } = this.#context;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    meta.retainOpen(ino);
    let file: FileData | undefined;
    const open = (attr: Attr): Answer<OpenReply> => {
      if (!isRegular(attr)) throw new HoldfastError('EINVAL', 'only regular files are opened here');
      checkMayOpen(attr, flags);
      file = files.acquire(attr, false);
      if (unread) return this.#openUnread(file, flags);
      return this.#openAcquired(caller, file, attr, flags, killPriv);
    };
    return undoing(
      () => andThen(this.#attrForOpen(ino, writable, caller), open),
      () => andThen(file && files.release(file), () => meta.releaseOpen(ino)),
    );
  }

  /** The kernel keeps the pages that it has, and reads none: should it be a program's after all, it keeps nothing. */
  #openUnread(file: FileData, flags: number): OpenReply {
    const directIo = this.#files.shared.isShared(file.ino);
    return { handle: this.#context.files.open(file, flags, directIo), directIo };
  }

  #openAcquired(
    caller: Caller,
    file: FileData,
    attr: Attr,
    flags: number,
    killPriv: boolean,
  ): Answer<OpenReply> {
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    return andThen(this.#context.opened(attr), (caching) => {
      if (!writable && (flags & O_TRUNC) === 0 && !caching.directIo && !caching.keepCache)
        caching.keepCache = this.#storeAhead(file, attr);
      // The kernel answers reads from pages that it keeps: there will be no other sign of them.
      const counts = !writable && caching.keepCache && (flags & O_NOATIME) === 0;
      // With O_RDONLY, too: the kernel has checked that the caller may write.
      const truncates = (flags & O_TRUNC) !== 0;
      const ready = truncates
        ? this.#truncateOpened(caller, file, attr, killPriv)
        : counts
          ? this.#countRead(file)
          : undefined;
      return andThen(ready, () => {
        this.#context.lostChanges.report(file.ino);
        // Through its page cache the kernel would send one write(2) in pieces, between which others append.
        if (writable && (flags & O_APPEND) !== 0) caching.directIo = true;
        const { keepCache, directIo } = caching;
        return { handle: this.#context.files.open(file, flags, directIo), keepCache, directIo };
      });
    });
  }

  /** With its contents in the kernel's pages, all of them, a small file is read without a request. */
  #storeAhead(file: FileData, attr: Attr): boolean {
    const { smallFiles, pageStores } = this.#context;
    return smallFiles.opening(attr, (data) => pageStores.storeAll(file, data));
  }

  async #truncateOpened(caller: Caller, file: FileData, attr: Attr, killPriv: boolean): Promise<void> {
    await this.#files.truncate(file, 0, killPriv ? await killedBy(caller, attr) : {}, caller.signal);
    if (killPriv && hasPriv(attr.mode)) await this.#files.privKilled(file.ino);
  }

  create(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    flags: number,
    umask: number,
  ): Answer<CreateReply> {
    const existingOk = (flags & O_EXCL) === 0;
    const node = {
      parent,
      name,
      mode: S_IFREG | (masked(mode, umask) & PERMISSION_BITS),
      existingOk,
      open: true,
      askedMode: mode & PERMISSION_BITS,
    };
    const { pageStores } = this.#context;
    const changes = (flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0;
    return andThen(this.#names.makeNode(caller, node), ({ created, attr }) => {
      const open = (): Answer<CreateReply> => this.#openMade(caller, parent, name, flags, attr, created);
      return changes && !created ? pageStores.without(attr.ino, caller.signal, open) : open();
    });
  }

  /** The second half of open(2) with O_CREAT. */
  #openMade(
    caller: Caller,
    parent: number,
    name: Buffer,
    flags: number,
    made: Attr,
    created: boolean,
  ): Answer<CreateReply> {
    const { meta, files, inodes } = this.#context;
    const { ino } = made;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    meta.retainOpen(ino);
    let file: FileData | undefined;
    const open = (acquired: FileData, attr: Attr): Answer<CreateReply> =>
      andThen(this.#context.opened(attr), (caching) => {
        // Nobody reads through this description: without the page cache the kernel asks less before a write.
        const unread = (flags & O_ACCMODE) === O_WRONLY;
        if (unread || (writable && (flags & O_APPEND) !== 0)) caching.directIo = true;
        const entry = this.#context.entry(attr, parent, name);
        return {
          entry,
          handle: files.open(acquired, flags, caching.directIo),
          keepCache: caching.keepCache,
          directIo: caching.directIo,
        };
      });
    return undoing(
      () => {
        if (!created) {
          checkMayOpen(made, flags);
          checkAccess(made, caller, flags);
        }
        inodes.tell(made); // the entry goes along
        if (created) inodes.learnXattr(ino, CAPABILITY_NAME, undefined, inodes.stamp());
        const acquired = files.acquire(made, created);
        file = acquired;
        if (created) acquired.tail.setClear(this.#context.tenure(ino));
        if (created) return open(acquired, made);
        // The servers take it for opened to be read.
        if ((flags & O_TRUNC) === 0)
          return writable && !this.#context.owns(ino)
            ? this.#files.announceWriter(acquired, caller.signal).then((attr) => open(acquired, attr))
            : open(acquired, made);
        return andThen(caller.uid !== 0 ? killedBy(caller, made) : {}, (killed) =>
          this.#files.truncate(acquired, 0, killed, caller.signal).then((attr) => open(acquired, attr)),
        );
      },
      () => andThen(file && files.release(file), () => meta.releaseOpen(ino)),
    );
  }

  /** The kernel goes on believing the access time that it has cached. */
  #countRead(file: FileData): Answer<void> {
    const { files, notifier, log } = this.#context;
    const { atimes } = files;
    const seen = atimes?.view(file.view());
    if (!atimes || !seen || !atimes.due(seen)) return;
    atimes.read(seen);
    if (notifier?.expireAttr) return notifier.expireAttr(file.ino);
    return notifier
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
    const bits = {
      mode: S_IFREG | (masked(mode, umask) & PERMISSION_BITS),
      askedMode: mode & PERMISSION_BITS,
    };
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
    inodes.learn(attr, inodes.stamp(reply.asOf), true);
    const file = files.acquire(attr, true);
    file.tail.setClear(this.#context.tenure(attr.ino));
    const caching = await this.#context.opened(attr);
    const entry = this.#context.entry(attr, parent, NO_NAME);
    return { entry, handle: files.open(file, flags, caching.directIo), ...caching };
  }

  #attrForOpen(ino: number, writable: boolean, caller: Caller): Answer<Attr> {
    const fresh = this.#context.inodes.fresh(ino)?.attr;
    if (fresh && (!writable || this.#context.owns(ino))) return fresh;
    return this.#context.readAttr({ $case: 'open', value: { ino, write: writable } }, caller.signal);
  }
}
