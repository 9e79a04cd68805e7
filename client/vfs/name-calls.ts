import { delay } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, MakeNode, QuotaAmount, Rename } from '../../proto/gen/meta.js';
import {
  PERMISSION_BITS,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  SYMLINK_MAX_BYTES,
  SYMLINK_MODE,
  TYPE_SHIFT,
} from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import { copyOfMaking } from '../attr-copy.js';
import type { Caller, Entry } from '../fuse/binding.js';
import { attrOf, type MutationAnswer, resultOf } from '../meta/api.js';
import { type Amount, amountsOf, type Hold, NO_HOLD, type Owner } from '../quota/quota-book.js';
import { type Interrupt, interruptible } from '../wait.js';
import { checkName, masked, staleIfGone, type VfsContext } from './context.js';
import { checkTaken, type Place } from './kernel-dentries.js';
import type { Listings } from './listings.js';
import type { LocalChanges } from './local-changes.js';
import { isQuotaExceeded, newInodeIn, ONE_INODE, ownerIn, withRoom } from './quota-room.js';
import type { RemovedDirectories } from './removed-directories.js';

type NewNode = Pick<MakeNode, 'parent' | 'name' | 'mode'> & Partial<MakeNode>;

/** @property created false: it was there */
interface Made {
  attr: Attr;
  created: boolean;
}
const DOT = 0x2e;
/** So long a lookup waits for the kernel to drop the place that a directory was moved from. */
const DROP_WAIT_MS = 100;

/** Calls on names: answered here as far as leases allow, else by one request to the metadata service. */
export class NameCalls {
  readonly #context: VfsContext;
  readonly #local: LocalChanges;
  readonly #listings: Listings;
  readonly #removed: RemovedDirectories;

  constructor(context: VfsContext, local: LocalChanges, listings: Listings, removed: RemovedDirectories) {
    this.#context = context;
    this.#local = local;
    this.#listings = listings;
    this.#removed = removed;
  }

  lookup(caller: Caller, parent: number, name: Buffer): Answer<Entry> {
    return andThen(this.#lookup(caller, parent, name), (entry) => {
      const left = this.#context.kernelDentries.takeLeft(entry.attr.ino);
      if (!left || !this.#context.notifier) return entry;
      return this.#dropped(left).then(() => this.lookup(caller, parent, name));
    });
  }

  /** The kernel drops a name of a directory. It waits for its lock there, which whoever waits for this may hold. */
  async #dropped({ parent, name }: Place): Promise<void> {
    const { notifier, clock, log } = this.#context;
    const dropped = notifier?.invalidateEntry(parent, name).catch((error: unknown) => {
      log.warn({ parent, err: error }, 'invalidation failed');
    });
    await Promise.race([dropped, delay(clock, DROP_WAIT_MS)]);
  }

  #lookup(caller: Caller, parent: number, name: Buffer): Answer<Entry> {
    checkName(name);
    if (isDots(name)) return this.#askOfHandle(caller, parent, name);
    const known = this.#answer(parent, name);
    if (known) return known;
    const listed = this.#listings.missed(parent, caller);
    if (!listed) return this.#ask(caller, parent, name);
    return listed.then(() => this.#answer(parent, name) ?? this.#ask(caller, parent, name));
  }

  /**
   * "." and ".." are asked for by file handles alone, of an inode that the kernel does not have: nothing here holds it open.
   * @throws HoldfastError ESTALE of one that has lost its last name, also while the servers still have its data
   */
  async #askOfHandle(caller: Caller, ino: number, name: Buffer): Promise<Entry> {
    const entry = await this.#ask(caller, ino, name);
    if (entry.attr.nlink === 0) throw new HoldfastError('ESTALE');
    return entry;
  }

  /** From what is known here, and is not being changed. */
  #answer(parent: number, name: Buffer): Entry | undefined {
    const known = this.#known(parent, name);
    if (known === 'absent') {
      const { nameChanges } = this.#context;
      const mayBeMade = nameChanges.has(parent) && !this.#context.owns(parent);
      return mayBeMade ? undefined : this.#context.noEntry(parent, name);
    }
    const fresh = known === undefined ? undefined : this.#context.inodes.fresh(known)?.attr;
    if (!fresh) return undefined;
    this.#local.learnLayout(fresh);
    return this.#context.entry(fresh, parent, name);
  }

  symlink(caller: Caller, parent: number, name: Buffer, target: Buffer): Answer<Entry> {
    if (target.length > SYMLINK_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
    return this.#make(caller, { parent, name, mode: SYMLINK_MODE, target });
  }

  mknod(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Answer<Entry> {
    const type = mode & S_IFMT || S_IFREG;
    return this.#make(caller, {
      parent,
      name,
      mode: type | (masked(mode, umask) & PERMISSION_BITS),
      askedMode: mode & PERMISSION_BITS,
      rdev,
    });
  }

  mkdir(caller: Caller, parent: number, name: Buffer, mode: number, umask: number): Answer<Entry> {
    return this.#make(caller, {
      parent,
      name,
      mode: S_IFDIR | (masked(mode, umask) & PERMISSION_BITS),
      askedMode: mode & PERMISSION_BITS,
    });
  }

  unlink(caller: Caller, parent: number, name: Buffer): Answer<void> {
    return this.#remove(caller, parent, name, 'unlink');
  }

  rmdir(caller: Caller, parent: number, name: Buffer): Answer<void> {
    return this.#unlinking(caller, parent, name, () => this.#remove(caller, parent, name, 'rmdir'));
  }

  /** A change that takes a name from what it stands for: if that is a directory in use here, it is remembered. */
  #unlinking(caller: Caller, parent: number, name: Buffer, change: () => Answer<void>): Answer<void> {
    const known = this.#known(parent, name);
    return typeof known === 'number' ? this.#removed.during(known, caller.signal, change) : change();
  }

  rename(
    caller: Caller,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Answer<void> {
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) !== 0)
      throw new HoldfastError('EINVAL');
    checkName(name);
    checkName(newName);
    const { kernelDentries } = this.#context;
    const parents = parent === newParent ? [parent] : [parent, newParent];
    const replaces = (flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)) === 0;
    // The kernel puts a directory in the place of a directory alone, and marks that one dead.
    const moved = replaces ? kernelDentries.get(parent, name) : undefined;
    const replaced = moved === undefined ? undefined : kernelDentries.get(newParent, newName);
    const renamed = andThen(this.#local.prepare(parents, caller), () => {
      checkTaken(replaced, this.#known(newParent, newName));
      if (this.#local.rename(parent, name, newParent, newName, flags, caller.uid)) return;
      const byRequest = (): Promise<void> =>
        this.#renameByRequest(caller, parents, { parent, name, newParent, newName, flags, replaced });
      return replaces ? this.#unlinking(caller, newParent, newName, byRequest) : byRequest();
    });
    const exchange = (flags & RENAME_EXCHANGE) !== 0;
    return andThen(renamed, () => kernelDentries.moved(parent, name, newParent, newName, exchange));
  }

  async #renameByRequest(
    caller: Caller,
    parents: readonly number[],
    move: Omit<Rename, 'uid' | 'gid'>,
  ): Promise<void> {
    const { parent, name, newParent, newName, flags } = move;
    const { names, meta } = this.#context;
    const ends = [this.#known(parent, name), this.#known(newParent, newName)];
    const children = ends.filter((end): end is number => typeof end === 'number');
    // Of a name that is not known to be absent, what it stands for is not known either.
    const allKnown = ends.every((end) => end !== undefined);
    const value = { ...move, uid: caller.uid, gid: caller.gid };
    meta.announceOpen(children);
    const entry = names.lookup(parent, name);
    const { asOf } = this.#context.inodes.stamp();
    let moved: MutationAnswer | undefined;
    try {
      const op = { $case: 'rename' as const, value };
      const inos = [...parents, ...children];
      const known = allKnown ? children : undefined;
      moved = await withRoom(
        this.#context,
        () => this.#movedInto(parent, name, newParent, caller.signal),
        caller.signal,
        (spent) => this.#context.mutateNames(inos, known, op, caller.signal, spent),
      );
    } finally {
      // Two names of one inode both stay. What was known must have been believed all the time.
      const isMove = moved && ends[0] !== ends[1] && (flags & RENAME_EXCHANGE) === 0;
      const believed = allKnown && parents.every((directory) => this.#context.holds(directory, asOf));
      if (moved && isMove && believed && entry && entry !== 'absent') {
        names.putAbsent(parent, name);
        names.put(newParent, { ...entry, name: newName, cookie: moved.cookie ?? 0 });
      } else {
        names.forget(parent, name);
        names.forget(newParent, newName);
      }
      for (const child of children) names.drop(child);
      if (parent !== newParent) await this.#parentChanged(children);
    }
  }

  /** Directories that moved have another "..", which the kernel may keep with their listing. */
  async #parentChanged(inos: readonly number[]): Promise<void> {
    const { inodes, notifier, log } = this.#context;
    const isDirectory = (ino: number): boolean => ((inodes.known(ino)?.mode ?? 0) & S_IFMT) === S_IFDIR;
    try {
      await Promise.all(inos.filter(isDirectory).map((ino) => notifier?.invalidateInode(ino, 0, 0)));
    } catch (error) {
      log.warn({ inos, err: error }, 'a listing that the kernel keeps could not be dropped');
    }
  }

  /** What a move to another tree counts there. */
  async #movedInto(
    parent: number,
    name: Buffer,
    newParent: number,
    signal: Interrupt,
  ): Promise<{ owner: Owner; amount: Amount }> {
    const { result } = await this.#context.askFor(
      parent,
      { $case: 'lookup', value: { parent, name } },
      signal,
    );
    const moved = attrOf(result);
    const { project } = await this.#context.attr(newParent, signal);
    const { uid, gid } = moved;
    return { owner: { project, uid, gid }, amount: { bytes: moved.allocated, inodes: 1 } };
  }

  link(caller: Caller, ino: number, newParent: number, newName: Buffer): Answer<Entry> {
    checkName(newName);
    return andThen(this.#local.prepare([newParent], caller), () => {
      const linked = this.#local.link(ino, newParent, newName);
      if (!linked) return this.#linkByRequest(caller, ino, newParent, newName);
      return this.#context.entry(linked, newParent, newName);
    });
  }

  async #linkByRequest(caller: Caller, ino: number, newParent: number, newName: Buffer): Promise<Entry> {
    const value = { ino, parent: newParent, name: newName };
    const inos = [ino, newParent];
    const reply = await this.#context.mutateNames(inos, [ino], { $case: 'link', value }, caller.signal);
    const attr = attrOf(reply.result);
    this.#context.inodes.learn(attr, this.#context.inodes.stamp(reply.asOf), true);
    this.#added(newParent, newName, attr, reply);
    return this.#context.entry(attr, newParent, newName);
  }

  readlink(caller: Caller, ino: number): Answer<Buffer> {
    const { files, inodes } = this.#context;
    const attr = inodes.known(ino);
    if (attr) files.atimes?.read(files.view(attr));
    return inodes.target(ino) ?? this.#askForTarget(caller, ino);
  }

  async #askForTarget(caller: Caller, ino: number): Promise<Buffer> {
    const op = { $case: 'readLink' as const, value: { ino } };
    const { result } = await staleIfGone(this.#context.askFor(ino, op, caller.signal));
    const target = resultOf(result, 'target');
    this.#context.inodes.learnTarget(ino, target);
    return target;
  }

  /** The one request behind create, mknod, mkdir and symlink, or what takes its place; the owner is the caller. */
  makeNode(caller: Caller, node: NewNode): Answer<Made> {
    checkName(node.name);
    const make = (hold: Hold | undefined): Answer<Made> => {
      const attr = hold && this.#makeHeld(madeBy(caller, node), hold);
      return attr ? { attr, created: true } : this.#makeByRequest(caller, node, hold);
    };
    const ready = this.#local.prepare([node.parent], caller);
    return andThen(ready, () => andThen(this.#holdFor(caller, node.parent, node.name), make));
  }

  async #makeByRequest(caller: Caller, node: NewNode, hold: Hold | undefined): Promise<Made> {
    const op = { $case: 'makeNode' as const, value: madeBy(caller, node) };
    const make = (spent?: QuotaAmount[]): Promise<MutationAnswer> =>
      this.#context.mutateNames([node.parent], [], op, caller.signal, spent);
    const reply = await this.#withHold(hold, caller, node.parent, make);
    const attr = attrOf(reply.result);
    this.#local.learnLayout(attr);
    this.#context.inodes.learn(attr, this.#context.inodes.stamp(reply.asOf), false);
    this.#added(node.parent, node.name, attr, reply);
    // Leased with its making: nobody can have put anything into it.
    if (reply.created && (attr.mode & S_IFMT) === S_IFDIR && this.#context.owns(attr.ino))
      this.#context.names.complete(attr.ino, node.parent, []);
    return { attr, created: reply.created };
  }

  /** Takes an inode off what limits it. @returns undefined: that cannot be known here, or there seems to be no room */
  #holdFor(caller: Caller, parent: number, name: Buffer): Answer<Hold | undefined> {
    return this.#context.quotas.book.active ? this.#acquireFor(caller, parent, name) : NO_HOLD;
  }

  async #acquireFor(caller: Caller, parent: number, name: Buffer): Promise<Hold | undefined> {
    const { quotas, inodes } = this.#context;
    const directory = inodes.fresh(parent)?.attr;
    const known = this.#known(parent, name);
    if (!directory || (known !== undefined && known !== 'absent')) return undefined;
    try {
      return await quotas.acquire(ownerIn(directory, caller), ONE_INODE, caller.signal);
    } catch (error) {
      if (isQuotaExceeded(error)) return undefined; // what the name stands for may be there already
      throw error;
    }
  }

  #makeHeld(node: Parameters<LocalChanges['make']>[0], hold: Hold): Attr | undefined {
    try {
      return this.#local.make(node, hold);
    } catch (error) {
      this.#context.quotas.book.release(hold);
      throw error;
    }
  }

  /** By request, with what was taken for it; or with what can be had when a limit is in the way. */
  async #withHold(
    hold: Hold | undefined,
    caller: Caller,
    parent: number,
    make: (spent?: QuotaAmount[]) => Promise<MutationAnswer>,
  ): Promise<MutationAnswer> {
    const { quotas } = this.#context;
    if (!hold || hold === NO_HOLD) {
      const wanted = newInodeIn(this.#context, parent, caller);
      return withRoom(this.#context, wanted, caller.signal, make);
    }
    try {
      return await make(amountsOf(hold));
    } finally {
      quotas.book.settled(hold);
    }
  }

  #make(caller: Caller, node: NewNode): Answer<Entry> {
    const made = this.makeNode(caller, node);
    return andThen(made, ({ attr }) => this.#context.entry(attr, node.parent, node.name));
  }

  #remove(caller: Caller, parent: number, name: Buffer, kind: 'unlink' | 'rmdir'): Answer<void> {
    checkName(name);
    const { kernelDentries } = this.#context;
    const taken = kind === 'rmdir' ? kernelDentries.get(parent, name) : undefined;
    const removed = andThen(this.#local.prepare([parent], caller), () => {
      checkTaken(taken, this.#known(parent, name));
      if (this.#local[kind](parent, name, caller.uid)) return;
      return this.#removeByRequest(caller, parent, name, kind, taken);
    });
    return andThen(removed, () => kernelDentries.told(parent, name, 0));
  }

  async #removeByRequest(
    caller: Caller,
    parent: number,
    name: Buffer,
    kind: 'unlink' | 'rmdir',
    taken: number | undefined,
  ): Promise<void> {
    const { names, meta } = this.#context;
    // The kernel may know more names of a large directory than are kept here: what the change is of is asked for first, or
    // else nothing that is known of any inode could be believed behind it.
    if (names.isLarge(parent) && this.#known(parent, name) === undefined)
      await this.#find(caller, parent, name);
    const known = this.#known(parent, name);
    const children = typeof known === 'number' ? [known] : [];
    const value = { parent, name, uid: caller.uid, ino: taken };
    meta.announceOpen(children);
    const inos = [parent, ...children];
    const allKnown = known === undefined ? undefined : children;
    let asOf: number;
    try {
      ({ asOf } = await this.#context.mutateNames(inos, allKnown, { $case: kind, value }, caller.signal));
    } catch (error) {
      names.forget(parent, name);
      throw error;
    }
    if (this.#context.holds(parent, asOf)) names.putAbsent(parent, name);
    if (kind === 'rmdir') for (const child of children) names.drop(child);
  }

  async #ask(caller: Caller, parent: number, name: Buffer): Promise<Entry> {
    const attr = await this.#find(caller, parent, name);
    return attr ? this.#context.entry(attr, parent, name) : this.#context.noEntry(parent, name);
  }

  /** Asks the server, and learns what it says; the kernel is not told. @returns undefined: there is no such name */
  async #find(caller: Caller, parent: number, name: Buffer, again = false): Promise<Attr | undefined> {
    const { inodes, names } = this.#context;
    const { epoch } = inodes;
    const known = this.#known(parent, name);
    const before = names.lookup(parent, name);
    const inos = typeof known === 'number' ? [parent, known] : [parent];
    const op = { $case: 'lookup' as const, value: { parent, name } };
    const { result, error, asOf } = await this.#context.ask(inos, op, caller.signal);
    // A change of the name made here may have overtaken the answer on its way through this process.
    const overtaken = names.lookup(parent, name) !== before;
    const covered = !overtaken && !isDots(name) && this.#context.covers(parent, asOf);
    if (!result) {
      if (error?.errorName !== 'ENOENT') throw error ?? new HoldfastError('PROTOCOL', 'an empty answer');
      if (covered) names.putAbsent(parent, name);
      return undefined;
    }
    const attr = attrOf(result);
    this.#local.learnLayout(attr);
    // Which inode it is was not known before: what was changed of it here is still on its way.
    const { lane } = this.#context;
    if (!again && known !== attr.ino && lane.touches([attr.ino])) {
      await interruptible(lane.settledFor([attr.ino]), caller.signal);
      return this.#find(caller, parent, name, true);
    }
    // It may be no more, with the answer to it read just before this one.
    if (!inodes.learn(attr, { asOf, epoch }, false) && !again) return this.#find(caller, parent, name, true);
    if (covered) names.put(parent, { name, ino: attr.ino, type: attr.mode >>> TYPE_SHIFT, cookie: 0 });
    return attr;
  }

  /** A name was made by request. */
  #added(parent: number, name: Buffer, attr: Attr, { cookie = 0, asOf }: MutationAnswer): void {
    if (!this.#context.holds(parent, asOf)) return;
    this.#context.names.put(parent, { name, ino: attr.ino, type: attr.mode >>> TYPE_SHIFT, cookie });
  }

  /** What is known of a name under the directory's lease. */
  #known(parent: number, name: Buffer): number | 'absent' | undefined {
    if (this.#context.mode(parent) === 0) return undefined;
    const known = this.#context.names.lookup(parent, name);
    return known === 'absent' ? known : known?.ino;
  }
}

function madeBy({ uid, gid }: Caller, node: NewNode): MakeNode {
  const made = copyOfMaking(node);
  made.uid = uid;
  made.gid = gid;
  return made;
}

function isDots(name: Buffer): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
}
