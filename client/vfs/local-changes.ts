import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { Attr, MakeNode, MutationReply, SetAttr, Time } from '../../proto/gen/meta.js';
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
import type { Answer } from '../answer.js';
import { copyOfMaking } from '../attr-copy.js';
import type { Caller } from '../fuse/binding.js';
import { INODE_NUMBERS_LOW, INODE_NUMBERS_PER_REQUEST, InodeNumbers } from '../leases/inode-numbers.js';
import { canForetell, changedAttr, changedDirectory, newAttr, renamed } from '../leases/local-attr.js';
import type { Name } from '../leases/name-cache.js';
import type { MutationOp } from '../meta/api.js';
import { amountsOf, type Hold, NO_HOLD } from '../quota/quota-book.js';
import { interruptible } from '../wait.js';
import { isRegular } from './attr.js';
import { setAttrOp, type VfsContext } from './context.js';
import { Takeovers } from './takeovers.js';

type NewNode = Pick<MakeNode, 'parent' | 'name' | 'mode' | 'uid' | 'gid'> & Partial<MakeNode>;

/** A name that a change has made. */
interface Named {
  readonly directory: number;
  readonly entry: Name;
}

/**
 * Changes made here, without asking: within directories that are leased exclusively and known as a whole, or so far that a
 * new name is known to be new, and to inodes that are leased exclusively. They go to the leader in order through the lane. Each method returns undefined when the change
 * has to be made by request. From the checks to the entry in the lane nothing is waited for.
 */
export class LocalChanges {
  readonly #context: VfsContext;
  readonly #numbers = new InodeNumbers();
  readonly #takeovers: Takeovers;
  #refilling = false;
  #chunkSize = 0;

  constructor(context: VfsContext) {
    this.#context = context;
    this.#takeovers = new Takeovers(context, async () => {
      if (this.#numbers.left === 0) await this.#refill();
    });
  }

  /** The layout of new files is the same in the whole cluster; it is learnt from any of them. */
  learnLayout(attr: Attr): void {
    if (isRegular(attr)) this.#chunkSize = attr.chunkSize;
  }

  sessionLost(): void {
    this.#numbers.clear();
    this.#takeovers.clear();
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
    return this.owns(directory) && !this.#takeovers.hasForeign(directory);
  }

  async #prepared(directories: readonly number[], caller: Pick<Caller, 'signal'>): Promise<void> {
    for (const directory of directories) {
      if (this.#isOurs(directory)) continue;
      const takeover = this.#takeovers.forName(directory);
      if (takeover) await interruptible(takeover, caller.signal);
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
      this.#takeovers.noteForeign(newParent);
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
    const hopeless = !known || this.#context.readOnly || isGuarded(known) || !canForetell(known, change);
    const takeover = hopeless ? undefined : this.#takeovers.forInode(ino);
    if (!takeover) return byRequest();
    const taken = interruptible(takeover, caller.signal);
    return taken.then(() => this.setAttr(ino, change) ?? byRequest());
  }

  /** Somebody else wants an inode that was leased exclusively. */
  taken(ino: number): void {
    this.#takeovers.taken(ino);
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
    this.#takeovers.noteForeign(parent);
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
