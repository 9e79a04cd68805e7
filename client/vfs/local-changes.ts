import { LruMap } from '../../common/lru-map.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import {
  type Attr,
  LeaseMode,
  type MakeNode,
  type MutationReply,
  type SetAttr,
  type Time,
} from '../../proto/gen/meta.js';
import { isGuarded } from '../../proto/inode-flags.js';
import {
  HAS_DEFAULT_ACL,
  LINK_MAX,
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  TYPE_SHIFT,
} from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import { copyOfMaking } from '../attr-copy.js';
import type { Caller } from '../fuse/binding.js';
import { INODE_NUMBERS_LOW, INODE_NUMBERS_PER_REQUEST, InodeNumbers } from '../leases/inode-numbers.js';
import { canForetell, changedAttr, changedDirectory, newAttr, renamed } from '../leases/local-attr.js';
import { COMPLETE_ENTRIES_MAX, type Name } from '../leases/name-cache.js';
import type { MutationOp } from '../meta/api.js';
import { amountsOf, type Hold, NO_HOLD } from '../quota/quota-book.js';
import { interruptible } from '../wait.js';
import { isRegular } from './attr.js';
import { setAttrOp, type VfsContext } from './context.js';
import { Listing, type ListingState } from './listings.js';

/** A directory that somebody else uses is asked for again after this time, and after twice as much each time it is taken. */
export const ACQUIRE_RETRY_MS = 2_000;
export const ACQUIRE_RETRY_MAX_MS = 60_000;
/** Pages of a directory's listing that each change made by request is worth. */
const PAGES_PER_CHANGE = 1;
/** Changes by request in a directory that is too large even for its names to be known, before it is tried again. */
export const LARGE_DIRECTORY_CHANGES = COMPLETE_ENTRIES_MAX / 2;
/** Of a directory too large to be known as a whole, whose names are known: pages read at a time for what is in it .. */
const LARGE_DIRECTORY_PAGES_MAX = 32;
/** .. and changes by request that have to be made before the next time: who removes names in their order profits. */
const LARGE_DIRECTORY_FOREIGN_CHANGES = 512;
/** Attempts at a listing while changes of this mount that were under way come to their end. */
const ACQUIRE_ATTEMPTS_MAX = 3;
/** Directories whose recent changes are counted. */
const WATCHED_DIRECTORIES_MAX = 1024;
/** A directory is asked for at this change by request. */
const ACQUIRE_AT_CHANGES = 2;
/** A directory is ours, and something in it is not: so many changes by request from there on, and all in it is asked of others at once. */
export const SOLE_AT_CHANGES = 4;

type NewNode = Pick<MakeNode, 'parent' | 'name' | 'mode' | 'uid' | 'gid'> & Partial<MakeNode>;

/** A name that a change has made. */
interface Named {
  readonly directory: number;
  readonly entry: Name;
}

interface Watched {
  /** By request. */
  changes: number;
  notBefore: number;
  /** Changes at which the next attempt is made: a long listing has to be worth it. */
  due: number;
  retryMs: number;
  takenAt: number;
  /** Changes by request since something in it was not ours alone when its name was to be changed; 0: nothing was. */
  foreign: number;
  /** Others are not asked before for what they have of its entries. */
  soleNotBefore: number;
}

/**
 * Changes made here, without asking: within directories that are leased exclusively and known as a whole, or so far that a
 * new name is known to be new, and to inodes that are leased exclusively. They go to the leader in order through the lane. Each method returns undefined when the change
 * has to be made by request. From the checks to the entry in the lane nothing is waited for.
 */
export class LocalChanges {
  readonly #context: VfsContext;
  readonly #numbers = new InodeNumbers();
  readonly #watched = new LruMap<number, Watched>();
  /** Directories that are being taken over. */
  readonly #acquiring = new Map<number, Promise<void>>();
  /** When a directory was taken over last: another one is asked for at its first change then, as by rm -r. */
  #acquiredAt = Number.NEGATIVE_INFINITY;
  /** When one was taken over last with all that others had of what is in it: another one is, too, as by rm -r of what others have made. */
  #soleAt = Number.NEGATIVE_INFINITY;
  #refilling = false;
  #chunkSize = 0;

  constructor(context: VfsContext) {
    this.#context = context;
  }

  /** The layout of new files is the same in the whole cluster; it is learnt from any of them. */
  learnLayout(attr: Attr): void {
    if (isRegular(attr)) this.#chunkSize = attr.chunkSize;
  }

  sessionLost(): void {
    this.#numbers.clear();
    this.#watched.clear();
  }

  /** Whether names of a directory can be changed here now. */
  owns(directory: number): boolean {
    const { names, inodes } = this.#context;
    if (!this.#context.owns(directory) || !names.tellsAbsence(directory)) return false;
    const attr = inodes.fresh(directory)?.attr;
    // What a default ACL makes of a new inode is the server's to say, and what may not be done in a guarded directory.
    return attr !== undefined && ((attr.xattrKinds ?? 0) & HAS_DEFAULT_ACL) === 0 && !isGuarded(attr);
  }

  /**
   * Waits for room in the lane, and at repeated changes asks for a directory that nobody else seems to use.
   * @returns undefined: there is nothing to wait for
   */
  prepare(directories: readonly number[], caller: Pick<Caller, 'signal'>): Promise<void> | undefined {
    if (this.#context.readOnly) throw new HoldfastError('EROFS');
    const ready = this.#context.lane.hasRoom && directories.every((directory) => this.#isOurs(directory));
    return ready ? undefined : this.#prepared(directories, caller);
  }

  /** It need not be asked for. */
  #isOurs(directory: number): boolean {
    return this.owns(directory) && !this.#watched.peek(directory)?.foreign;
  }

  async #prepared(directories: readonly number[], caller: Pick<Caller, 'signal'>): Promise<void> {
    for (const directory of directories) {
      if (this.#isOurs(directory)) continue;
      if (!this.#acquiring.has(directory) && this.#dueToAcquire(directory)) this.#beginAcquiring(directory);
      const acquiring = this.#acquiring.get(directory);
      if (acquiring) await interruptible(acquiring, caller.signal);
    }
    const { lane } = this.#context;
    for (let wait = lane.room(); wait; wait = lane.room()) await interruptible(wait, caller.signal);
  }

  /** @param hold what was taken for the inode: the lane's, when it is made @returns the new inode. @throws HoldfastError EEXIST, EMLINK */
  make(node: NewNode, hold: Hold): Attr | undefined {
    const { parent, name, mode } = node;
    const type = mode & S_IFMT;
    if (!this.owns(parent) || (type === S_IFREG && this.#chunkSize === 0)) return undefined;
    if (type !== S_IFREG && type !== S_IFDIR && type !== S_IFLNK) return undefined;
    const { inodes, names, meta, clock } = this.#context;
    if (names.lookup(parent, name) !== 'absent') return undefined;
    const directory = inodes.fresh(parent)?.attr as Attr;
    if (directory.nlink === 0) return undefined;
    if (type === S_IFDIR && directory.nlink >= LINK_MAX) throw new HoldfastError('EMLINK');
    const ino = this.#take();
    if (ino === undefined) return undefined;
    const time = clock.wall();
    const value = copyOfMaking(node);
    value.ino = ino;
    value.existingOk = false;
    const attr = newAttr(directory, value, ino, time, this.#chunkSize);
    meta.leases.assume(ino);
    inodes.addLocal(attr, type === S_IFLNK ? value.target : undefined);
    inodes.setLocal(changedDirectory(directory, time, type === S_IFDIR ? 1 : 0));
    const entry = { name, ino, type: type >>> TYPE_SHIFT, cookie: 0 };
    names.put(parent, entry);
    if (type === S_IFDIR) names.complete(ino, parent, []);
    const op = { $case: 'makeNode' as const, value };
    this.#push(op, [parent, ino], time, { hold, named: { directory: parent, entry } });
    return attr;
  }

  /** Another name for anything but a directory. @returns the inode afterwards */
  link(ino: number, parent: number, name: Buffer): Attr | undefined {
    if (!this.owns(parent) || !this.#mayChange(ino)) return undefined;
    const { inodes, names, clock, files } = this.#context;
    if (names.lookup(parent, name) !== 'absent') return undefined;
    const [attr, directory] = [inodes.fresh(ino)?.attr as Attr, inodes.fresh(parent)?.attr as Attr];
    const type = attr.mode & S_IFMT;
    // What may not be linked, and a link from tree to tree, are the server's to judge.
    if (type === S_IFDIR || attr.nlink === 0 || attr.nlink >= LINK_MAX || directory.nlink === 0)
      return undefined;
    if (attr.project !== directory.project) return undefined;
    const time = clock.wall();
    const after = renamed(attr, time, -1);
    inodes.setLocal(after);
    files.get(ino)?.applyAttr(after, true);
    this.#changed(parent, time, 0);
    const entry = { name, ino, type: type >>> TYPE_SHIFT, cookie: 0 };
    names.put(parent, entry);
    const named = { directory: parent, entry };
    this.#push({ $case: 'link', value: { ino, parent, name } }, [ino, parent], time, { named });
    return after;
  }

  /** @returns whether it was done. @throws HoldfastError ENOENT */
  unlink(parent: number, name: Buffer, uid: number): boolean {
    const child = this.#ownedChild(parent, name);
    if (!child || child.type === S_IFDIR >>> TYPE_SHIFT) return false;
    const { inodes, names, meta, clock } = this.#context;
    const time = clock.wall();
    this.#loseName(child.ino, time);
    names.putAbsent(parent, name);
    this.#changed(parent, time, 0);
    meta.announceOpen([child.ino]);
    this.#push({ $case: 'unlink', value: { parent, name, uid } }, [parent, child.ino], time);
    const isGone = inodes.known(child.ino)?.nlink === 0 && !this.#context.removedForGood(child.ino);
    if (isGone && !this.#context.files.get(child.ino)) inodes.forget(child.ino);
    return true;
  }

  /** @returns whether it was done. @throws HoldfastError ENOENT, ENOTDIR, ENOTEMPTY */
  rmdir(parent: number, name: Buffer, uid: number): boolean {
    const child = this.#ownedChild(parent, name);
    if (!child) return false;
    const { names, inodes, clock } = this.#context;
    if (child.type !== S_IFDIR >>> TYPE_SHIFT) throw new HoldfastError('ENOTDIR');
    const entries = this.owns(child.ino) ? names.count(child.ino) : undefined;
    if (entries === undefined) return false;
    if (entries > 0) throw new HoldfastError('ENOTEMPTY');
    const time = clock.wall();
    names.putAbsent(parent, name);
    names.drop(child.ino);
    const attr = inodes.fresh(child.ino)?.attr as Attr;
    inodes.setLocal(renamed(attr, time, attr.nlink));
    this.#changed(parent, time, -1);
    this.#push({ $case: 'rmdir', value: { parent, name, uid } }, [parent, child.ino], time);
    return true;
  }

  /** Of anything but directories, onto nothing or anything but a directory. @returns whether it was done */
  rename(
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
    uid: number,
  ): boolean {
    if ((flags & ~RENAME_NOREPLACE) !== 0 || !this.owns(newParent)) return false;
    const moved = this.#ownedChild(parent, name);
    const directory = S_IFDIR >>> TYPE_SHIFT;
    if (!moved || moved.type === directory) return false;
    const { names, inodes, meta, clock } = this.#context;
    // From tree to tree it moves by request: the other one may have no room.
    const [from, to] = [inodes.fresh(moved.ino)?.attr, inodes.fresh(newParent)?.attr];
    if (from?.project !== to?.project) return false;
    const target = names.lookup(newParent, newName);
    if (target === undefined) return false;
    const replaced = target === 'absent' ? undefined : target;
    if (replaced && flags !== 0) throw new HoldfastError('EEXIST');
    if (replaced && (replaced.type === directory || !this.#mayChange(replaced.ino))) {
      this.#watch(newParent).foreign ||= 1;
      return false;
    }
    if (replaced?.ino === moved.ino) return false;
    const time = clock.wall();
    const inos = [parent, moved.ino];
    if (newParent !== parent) inos.push(newParent);
    if (replaced) {
      inos.push(replaced.ino);
      this.#loseName(replaced.ino, time);
      meta.announceOpen([replaced.ino]);
    }
    inodes.setLocal(renamed(inodes.fresh(moved.ino)?.attr as Attr, time, 0));
    names.putAbsent(parent, name);
    const cookie = newParent === parent ? moved.cookie : 0;
    const entry = { ...moved, name: newName, cookie };
    names.put(newParent, entry);
    this.#changed(parent, time, 0);
    if (newParent !== parent) this.#changed(newParent, time, 0);
    const value = { parent, name, newParent, newName, flags, uid };
    this.#push({ $case: 'rename', value }, inos, time, { named: { directory: newParent, entry } });
    return true;
  }

  /** @returns the inode afterwards */
  setAttr(ino: number, change: Partial<SetAttr>): Attr | undefined {
    const { inodes, clock, readOnly } = this.#context;
    const attr = this.#mayChange(ino) && !readOnly ? inodes.fresh(ino)?.attr : undefined;
    if (!attr || !canForetell(attr, change)) return undefined;
    const owner = change.uid !== undefined || change.gid !== undefined;
    if (owner && this.#context.quotas.book.limitsOwners) return undefined;
    const time = clock.wall();
    const after = changedAttr(attr, change, time);
    if (after === attr) return attr;
    inodes.setLocal(after);
    this.#push(setAttrOp(ino, change), [ino], time);
    return after;
  }

  /** Here, if need be behind what is asked for at repeated changes; else by request. @returns the inode afterwards */
  setAttrOr(
    ino: number,
    change: Partial<SetAttr>,
    caller: Pick<Caller, 'signal'>,
    byRequest: () => Answer<Attr>,
  ): Answer<Attr> {
    const set = this.setAttr(ino, change);
    if (set) return set;
    const known = this.#context.inodes.known(ino);
    if (!known || isGuarded(known) || !canForetell(known, change)) return byRequest();
    return andThen(this.#prepareInode(ino, caller), () => this.setAttr(ino, change) ?? byRequest());
  }

  /**
   * An inode that others may know is about to be changed: at repeated changes of what is in its directory, as by chmod -R, all
   * of that is asked for.
   */
  #prepareInode(ino: number, caller: Pick<Caller, 'signal'>): Promise<void> | undefined {
    const directory = this.#context.kernel.directoryOf(ino);
    if (directory === undefined || this.#context.readOnly || this.#context.owns(ino)) return undefined;
    this.#watch(directory).foreign ||= 1;
    if (!this.#acquiring.has(directory) && this.#dueToAcquire(directory, true))
      this.#beginAcquiring(directory);
    const acquiring = this.#acquiring.get(directory);
    return acquiring && interruptible(acquiring, caller.signal);
  }

  // ---- taking a directory over

  /** Somebody else wants an inode that was leased exclusively: a directory is left to all for a while, the longer the more often. */
  taken(ino: number): void {
    if (!this.#watched.has(ino) && !this.#context.names.tellsAbsence(ino)) return;
    const watched = this.#watch(ino);
    const now = this.#context.clock.now();
    const again = now - watched.takenAt < 2 * watched.retryMs;
    watched.retryMs = again ? Math.min(ACQUIRE_RETRY_MAX_MS, 2 * watched.retryMs) : ACQUIRE_RETRY_MS;
    watched.takenAt = now;
    watched.notBefore = Math.max(watched.notBefore, now + watched.retryMs);
  }

  #watch(directory: number): Watched {
    const watched = this.#watched.peek(directory) ?? {
      changes: 0,
      notBefore: Number.NEGATIVE_INFINITY,
      due: ACQUIRE_AT_CHANGES,
      retryMs: ACQUIRE_RETRY_MS,
      takenAt: Number.NEGATIVE_INFINITY,
      foreign: 0,
      soleNotBefore: Number.NEGATIVE_INFINITY,
    };
    this.#watched.set(directory, watched);
    if (this.#watched.size > WATCHED_DIRECTORIES_MAX) this.#watched.shift();
    return watched;
  }

  /** @param sole its entries are what is wanted */
  #dueToAcquire(directory: number, sole = false): boolean {
    const now = this.#context.clock.now();
    if (this.#context.meta.leases.believedUntil <= now) return false;
    if (isGuarded(this.#context.inodes.known(directory) ?? {})) return false;
    const watched = this.#watch(directory);
    watched.changes++;
    if (watched.foreign > 0) watched.foreign++;
    const likely = this.#context.owns(directory) || now - this.#acquiredAt < ACQUIRE_RETRY_MS;
    const due = likely && watched.due === ACQUIRE_AT_CHANGES ? 1 : watched.due;
    // Of a large one some of what is in it will always be foreign: only changes of that count.
    if (this.#context.names.isLarge(directory)) watched.foreign = 0;
    return this.#wantsSole(watched) || (!sole && watched.changes >= due && now >= watched.notBefore);
  }

  #wantsSole({ foreign, soleNotBefore }: Watched): boolean {
    return foreign >= (this.#soleLately ? 1 : SOLE_AT_CHANGES) && this.#context.clock.now() >= soleNotBefore;
  }

  get #soleLately(): boolean {
    return this.#context.clock.now() - this.#soleAt < ACQUIRE_RETRY_MS;
  }

  #beginAcquiring(directory: number): void {
    const acquired = this.#acquire(directory, this.#watch(directory)).finally(() =>
      this.#acquiring.delete(directory),
    );
    this.#acquiring.set(directory, acquired);
  }

  /** Failure means that changes are made by request: it is no error. */
  async #acquire(directory: number, watched: Watched): Promise<void> {
    const { clock, log, names } = this.#context;
    watched.notBefore = clock.now() + watched.retryMs;
    const sole = this.#soleLately || this.#wantsSole(watched);
    if (sole) watched.soleNotBefore = watched.notBefore;
    try {
      const pagesMax = names.isLarge(directory) ? LARGE_DIRECTORY_PAGES_MAX : Number.POSITIVE_INFINITY;
      const pages = Math.min(pagesMax, PAGES_PER_CHANGE * watched.changes);
      let state: ListingState = 'void';
      for (let attempt = 0; state === 'void' && attempt < ACQUIRE_ATTEMPTS_MAX; attempt++) {
        const listing = new Listing(this.#context, directory, LeaseMode.LEASE_EXCLUSIVE, true, sole);
        state = await listing.read(pages).finally(() => listing.close());
        if (!this.#context.owns(directory)) return;
      }
      if (state === 'partial') {
        watched.due = 2 * watched.changes;
        watched.notBefore = Number.NEGATIVE_INFINITY;
      }
      // To read so much again has to be worth it: much of it may have been removed by then.
      if (state === 'large' || pages === pagesMax) {
        watched.changes = 0;
        watched.due = state === 'large' ? LARGE_DIRECTORY_CHANGES : LARGE_DIRECTORY_FOREIGN_CHANGES;
      }
      if (state !== 'complete') return;
      watched.foreign = 0;
      this.#acquiredAt = clock.now();
      if (sole) this.#soleAt = this.#acquiredAt;
      watched.due = ACQUIRE_AT_CHANGES;
      watched.changes = 0;
      if (this.#numbers.left === 0) await this.#refill();
    } catch (error) {
      log.debug({ directory, error: toHoldfastError(error).message }, 'directory not taken over');
    }
  }

  #take(): number | undefined {
    if (this.#numbers.left < INODE_NUMBERS_LOW) void this.#refill();
    return this.#numbers.take();
  }

  async #refill(): Promise<void> {
    if (this.#refilling) return;
    this.#refilling = true;
    try {
      const count = INODE_NUMBERS_PER_REQUEST;
      const { firstIno } = await this.#context.meta.mutate({ $case: 'reserveInodes', value: { count } });
      if (firstIno) this.#numbers.add(firstIno, count);
    } catch (error) {
      this.#context.log.warn({ error: toHoldfastError(error).message }, 'no inode numbers reserved');
    } finally {
      this.#refilling = false;
    }
  }

  // ---- the checks and their bookkeeping

  #ownsInode(ino: number): boolean {
    return this.#context.owns(ino) && this.#context.inodes.fresh(ino) !== undefined;
  }

  /** It is ours alone, and no flag of it is in the way: what guarded inodes refuse is the server's to say. */
  #mayChange(ino: number): boolean {
    const attr = this.#context.owns(ino) ? this.#context.inodes.fresh(ino)?.attr : undefined;
    return attr !== undefined && !isGuarded(attr);
  }

  /** The entry, when the directory and what it stands for are ours alone. @throws HoldfastError ENOENT */
  #ownedChild(parent: number, name: Buffer): Name | undefined {
    if (!this.owns(parent)) return undefined;
    const child = this.#context.names.lookup(parent, name);
    if (child === 'absent') throw new HoldfastError('ENOENT');
    if (child && this.#ownsInode(child.ino)) return this.#mayChange(child.ino) ? child : undefined;
    this.#watch(parent).foreign ||= 1;
    return undefined;
  }

  #loseName(ino: number, time: Time): void {
    const { inodes } = this.#context;
    const attr = renamed(inodes.fresh(ino)?.attr as Attr, time, 1);
    inodes.setLocal(attr);
    this.#context.files.get(ino)?.applyAttr(attr, true);
  }

  #changed(directory: number, time: Time, links: number): void {
    const { inodes } = this.#context;
    inodes.setLocal(changedDirectory(inodes.fresh(directory)?.attr as Attr, time, links));
  }

  #push(
    op: MutationOp,
    inos: readonly number[],
    time: Time,
    { hold = NO_HOLD, named }: { hold?: Hold; named?: Named } = {},
  ): void {
    const { lane, quotas } = this.#context;
    this.#context.nameChanges.changed(inos);
    lane
      .push(op, inos, time, amountsOf(hold))
      .then(
        (reply) => this.#settled(reply, named),
        () => undefined, // onFailure() of the lane has heard it
      )
      .finally(() => quotas.book.settled(hold));
  }

  /** The server's attributes take the place of those foretold, unless further changes of ours are on their way. */
  #settled(reply: MutationReply, named: Named | undefined): void {
    const { inodes, names, lane } = this.#context;
    if (named && reply.cookie) names.place(named.directory, named.entry, reply.cookie);
    const attrs = reply.result?.$case === 'attr' ? [reply.result.value, ...reply.parents] : reply.parents;
    for (const attr of attrs) {
      const known = inodes.known(attr.ino);
      if (!known || attr.change < known.change) continue;
      if (this.#ownsInode(attr.ino)) inodes.setLocal(attr);
      // Given back meanwhile, perhaps not altogether, with a commit that had its place ahead of this.
      else if (!lane.touches([attr.ino])) inodes.learn(attr, inodes.stamp(), true);
    }
  }
}
