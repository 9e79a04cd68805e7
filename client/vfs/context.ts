import { Counts } from '../../common/counts.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { type Attr, LeaseMode, type QuotaAmount, type SetAttr } from '../../proto/gen/meta.js';
import { NAME_MAX_BYTES, S_IFDIR, S_IFMT, S_IFREG } from '../../proto/types.js';
import type { Answer } from '../answer.js';
import { copyOfAttr } from '../attr-copy.js';
import type { Tenure } from '../data/file-tail.js';
import type { FileClock } from '../file-clock.js';
import type { AttrReply, Entry, Notifier, OpenReply } from '../fuse/binding.js';
import type { ChangeLane } from '../leases/change-lane.js';
import type { NameCache } from '../leases/name-cache.js';
import {
  attrOf,
  type MetaApi,
  type MutationAnswer,
  type MutationOp,
  type ReadAnswer,
  type ReadOp,
  type ReadResult,
} from '../meta/api.js';
import type { QuotaKeeper } from '../quota/quota-keeper.js';
import { type Interrupt, interruptible } from '../wait.js';
import { toEntry, toFileAttr } from './attr.js';
import { AttrRequests } from './attr-requests.js';
import type { FileTable } from './file-table.js';
import type { InodeCache } from './inode-cache.js';
import { KernelDentries } from './kernel-dentries.js';
import type { KernelEntries } from './kernel-entries.js';
import { LostChanges } from './lost-changes.js';
import { NameChanges } from './name-changes.js';
import { OwnedChanges } from './owned-changes.js';
import { PageCalls } from './page-calls.js';
import { PageDrops } from './page-drops.js';
import { PageStores } from './page-stores.js';
import type { SmallFiles } from './small-files.js';
import { UnleasedPages } from './unleased-pages.js';

/** What the groups of file system calls share. */
export class VfsContext {
  readonly meta: MetaApi;
  readonly inodes: InodeCache;
  readonly names: NameCache;
  readonly files: FileTable;
  readonly smallFiles: SmallFiles;
  readonly lane: ChangeLane;
  readonly quotas: QuotaKeeper;
  readonly kernel: KernelEntries;
  readonly kernelDentries = new KernelDentries();
  readonly clock: FileClock;
  readonly log: Logger;
  readonly readOnly: boolean;
  readonly attrRequests: AttrRequests;
  notifier: Notifier | undefined;
  readonly pageStores: PageStores;
  readonly pageCalls = new PageCalls();
  readonly ownedChanges = new OwnedChanges();
  readonly pageDrops: PageDrops;
  readonly unleasedPages: UnleasedPages;
  readonly lostChanges = new LostChanges();
  readonly nameChanges = new NameChanges();
  /** Inodes that changes may yet change whose callers have gone, and how many. */
  readonly #doubtful = new Counts();

  constructor(parts: {
    meta: MetaApi;
    inodes: InodeCache;
    names: NameCache;
    files: FileTable;
    smallFiles: SmallFiles;
    lane: ChangeLane;
    quotas: QuotaKeeper;
    kernel: KernelEntries;
    clock: FileClock;
    log: Logger;
    readOnly: boolean;
  }) {
    this.meta = parts.meta;
    this.inodes = parts.inodes;
    this.names = parts.names;
    this.files = parts.files;
    this.smallFiles = parts.smallFiles;
    this.pageStores = new PageStores({
      notifier: () => this.notifier,
      hasWriter: (ino) => parts.files.hasWriter(ino),
      isSole: (ino) => parts.files.isSole(ino),
      file: (ino) => parts.files.get(ino),
      failed: (ino, err) => parts.log.warn({ ino, err }, 'pages not stored'),
    });
    this.lane = parts.lane;
    this.quotas = parts.quotas;
    this.kernel = parts.kernel;
    this.clock = parts.clock;
    this.log = parts.log;
    this.readOnly = parts.readOnly;
    this.attrRequests = new AttrRequests(parts.clock);
    this.pageDrops = new PageDrops(parts.clock);
    this.unleasedPages = new UnleasedPages({
      notifier: () => this.notifier,
      owns: (ino) => this.owns(ino),
      mayFill: (ino) => this.mode(ino) === LeaseMode.LEASE_NONE && parts.files.readsPages(ino),
      pageDrops: this.pageDrops,
      failed: (ino, err) => parts.log.error({ ino, err }, 'invalidation failed'),
    });
  }

  /** What this mount may believe of an inode now. */
  mode(ino: number): LeaseMode {
    return this.#isDoubtful(ino) ? LeaseMode.LEASE_NONE : this.meta.leases.mode(ino, this.clock.now());
  }

  /**
   * Whether what is known of an inode may be believed again, although not now perhaps: as soon as an answer says that its
   * lease still holds. What is changed here meanwhile has to be known then.
   *
   * @param asOf of the answer to such a change. A lease that came behind it says nothing of it: others may have changed the
   *   same in between, with both answers read at once here
   */
  holds(ino: number, asOf: number): boolean {
    return this.meta.leases.has(ino, asOf);
  }

  /** Nobody else sees or changes the inode now. */
  owns(ino: number): boolean {
    return this.mode(ino) === LeaseMode.LEASE_EXCLUSIVE;
  }

  /**
   * From now on for as long as this mount holds its lease on the inode, with the right to change it alone. Nobody else has
   * such a file open: whoever had it is shut out by the servers, or has written everything back.
   */
  tenure(ino: number): Tenure {
    const asOf = this.meta.leases.stamp();
    return { holds: () => this.owns(ino) && this.covers(ino, asOf) };
  }

  /** Whether an answer is good to keep for an inode. */
  covers(ino: number, asOf: number): boolean {
    return !this.#isDoubtful(ino) && this.meta.leases.covers(ino, asOf, this.clock.now());
  }

  /** Asks the server, behind what was changed of these inodes here. */
  async ask(inos: readonly number[], op: ReadOp, signal?: Interrupt): Promise<ReadAnswer> {
    if (this.lane.touches(inos)) await interruptible(this.lane.settledFor(inos), signal);
    return this.meta.ask(op, signal);
  }

  /** The same, for what is there. @throws HoldfastError */
  async askFor(ino: number, op: ReadOp, signal?: Interrupt): Promise<{ result: ReadResult; asOf: number }> {
    const { result, error, asOf } = await this.ask([ino], op, signal);
    if (!result) throw error ?? new HoldfastError('PROTOCOL', 'an empty answer');
    return { result, asOf };
  }

  /** Attributes that may be believed, or else fresh ones. */
  async attr(ino: number, signal?: Interrupt): Promise<Attr> {
    return this.inodes.fresh(ino)?.attr ?? this.readAttr({ $case: 'getAttr', value: { ino } }, signal);
  }

  /**
   * Asks for attributes and remembers them. An inode that is gone is ESTALE: the kernel looks its name up again. Asks once more
   * when a change of this mount was taken in first that the answer does not know of: its caller may have seen that already.
   */
  async readAttr(
    op: Extract<ReadOp, { $case: 'getAttr' | 'open' }>,
    signal: Interrupt | undefined,
    again = false,
  ): Promise<Attr> {
    const { epoch } = this.inodes;
    const { result, asOf } = await staleIfGone(this.askFor(op.value.ino, op, signal));
    const attr = attrOf(result);
    if (!this.inodes.learn(attr, { asOf, epoch }, false) && !again) return this.readAttr(op, signal, true);
    return attr;
  }

  /** What is known of a directory that was removed while it is in use here: the servers have forgotten it. */
  removedDirectory(ino: number): Attr | undefined {
    const known = this.inodes.known(ino);
    return known?.nlink === 0 && (known.mode & S_IFMT) === S_IFDIR ? known : undefined;
  }

  /** The same of whatever the servers do not keep for those who have it open: all but regular files. */
  removedForGood(ino: number): Attr | undefined {
    const known = this.inodes.known(ino);
    return known?.nlink === 0 && (known.mode & S_IFMT) !== S_IFREG ? known : undefined;
  }

  /**
   * The same, when the servers have just said with `error` that they have forgotten it: another mount has removed it.
   * @throws `error`, when it says something else, or of something else
   */
  forgotten(ino: number, error: unknown): Attr {
    const known = this.inodes.known(ino);
    const isKept = known === undefined || (known.mode & S_IFMT) === S_IFREG;
    if (isKept || !(error instanceof HoldfastError) || error.errorName !== 'ESTALE') throw error;
    const left = copyOfAttr(known);
    left.nlink = 0;
    this.inodes.setLocal(left);
    return left;
  }

  /**
   * A change by request, behind what was changed of these inodes here.
   * @throws HoldfastError EROFS on a read-only mount
   */
  async mutate(
    inos: readonly number[],
    op: MutationOp,
    signal?: Interrupt,
    spent?: QuotaAmount[],
  ): Promise<MutationAnswer> {
    if (this.readOnly) throw new HoldfastError('EROFS');
    if (this.lane.touches(inos)) await interruptible(this.lane.settledFor(inos), signal);
    this.clock.takenElsewhere();
    try {
      return await this.meta.mutate(op, signal, spent);
    } catch (error) {
      this.#doubt(inos);
      throw error;
    } finally {
      this.clock.takenElsewhere(); // it may be later than that of a write made here meanwhile
    }
  }

  #isDoubtful(ino: number): boolean {
    return this.#doubtful.size > 0 && this.#doubtful.has(ino);
  }

  /** A change whose caller has gone takes effect some time: until it is answered nothing is believed of what it changes. */
  #doubt(inos: readonly number[]): void {
    const settled = this.meta.orphansSettled;
    if (!settled) return;
    for (const ino of inos) {
      this.#doubtful.up(ino);
      this.names.drop(ino);
    }
    void this.inodes.during(inos, async () => {
      await settled;
      for (const ino of inos) {
        this.#doubtful.down(ino);
        this.names.drop(ino);
        this.inodes.xattrsChanged(ino);
      }
      this.inodes.namespaceChanged();
    });
  }

  /** Nothing is believed of these inodes until `done` has ended. */
  async doubtUntil(inos: readonly number[], done: () => Promise<void>): Promise<void> {
    for (const ino of inos) this.#doubtful.up(ino);
    try {
      await done();
    } finally {
      for (const ino of inos) this.#doubtful.down(ino);
    }
  }

  /** Has the kernel drop its pages of an inode and ask for its attributes. Until it has, nothing of them is believed here. */
  async dropPages(ino: number): Promise<void> {
    const { notifier, pageStores, pageCalls, pageDrops, log } = this;
    if (!notifier) return;
    // At once: with its attributes the kernel asks for the time of the last change before it shows a page.
    notifier.expireAttr?.(ino);
    const invalidated = this.doubtUntil([ino], async () => {
      await pageStores.settled(ino);
      await notifier.invalidateInode(ino, 0, 0);
    });
    invalidated.catch((error: unknown) => log.error({ ino, err: error }, 'invalidation failed'));
    pageDrops.track(ino, invalidated);
    await pageDrops.withPatience(pageCalls.orCalled(ino, invalidated));
  }

  /** Carries out a change by request of an inode's own attributes: once others may be shown new ones, those of before are not told here. */
  changing<T>(ino: number, change: () => Promise<T>): Promise<T> {
    this.#expireAttr(ino);
    return this.inodes.during([ino], change);
  }

  /**
   * Before a change is asked for: what the kernel was told of it, it would go on telling. Where it is asking already it believes
   * nothing, and what it would be made to drop now might be something else than what it knows.
   */
  #expireAttr(ino: number): void {
    const { inodes, attrRequests, notifier } = this;
    if (!this.owns(ino) && !attrRequests.has(ino) && inodes.isTold(ino)) notifier?.expireAttr?.(ino);
  }

  /**
   * A change of names: the attributes of what loses or gains a name are out of date afterwards.
   * @param children those, as far as they are known; undefined: one is not
   */
  mutateNames(
    inos: readonly number[],
    children: readonly number[] | undefined,
    op: MutationOp,
    signal?: Interrupt,
    spent?: QuotaAmount[],
  ): Promise<MutationAnswer> {
    for (const child of children ?? []) this.#expireAttr(child);
    return this.inodes.during([...inos, ...(children ?? [])], async () => {
      let reply: MutationAnswer;
      this.nameChanges.begin(inos);
      try {
        // Changes of an inode that is not known by its name are somewhere in the lane.
        if (!children) await interruptible(this.lane.settled(), signal);
        reply = await this.mutate(inos, op, signal, spent);
      } finally {
        this.nameChanges.end(inos);
        if (children) for (const child of children) this.inodes.outdated(child);
        else this.inodes.namespaceChanged();
        for (const ino of inos) this.inodes.outdated(ino);
      }
      // The kernel asks for a changed directory at the next use of a name in it.
      for (const parent of reply.parents) this.inodes.learn(parent, this.inodes.stamp(reply.asOf), true);
      return reply;
    });
  }

  /** @returns the inode afterwards */
  setAttr(ino: number, change: Partial<SetAttr>, signal?: Interrupt, spent?: QuotaAmount[]): Promise<Attr> {
    return this.changing(ino, async () => {
      const reply = await staleIfGone(this.mutate([ino], setAttrOp(ino, change), signal, spent));
      // An access list follows the mode; a capability ends with a new owner or size, and with the other privileges.
      this.inodes.xattrsChanged(ino);
      const attr = attrOf(reply.result);
      this.inodes.learn(attr, this.inodes.stamp(reply.asOf), true);
      return attr;
    });
  }

  /**
   * The answer to a call that gives an inode to the kernel. Build it last: from here on nothing may be waited for.
   * @param attr as the server has it
   */
  entry(attr: Attr, parent: number, name: Buffer): Entry {
    this.kernelDentries.told(parent, name, (attr.mode & S_IFMT) === S_IFDIR ? attr.ino : 0);
    const entryTtlMs = this.kernel.told(parent, name, this.entryTtlMs(parent, name, attr.ino), attr.ino);
    this.inodes.tell(attr);
    const entry = toEntry(this.files.view(attr), this.#attrTtlMs(attr));
    entry.entryTtlMs = entryTtlMs;
    return entry;
  }

  /** The answer that a name does not exist, for the kernel to keep where it may. */
  noEntry(parent: number, name: Buffer): Entry {
    this.kernelDentries.told(parent, name, 0);
    const ttlMs = this.kernel.told(parent, name, this.entryTtlMs(parent, name, 0), 0);
    if (ttlMs === 0) throw new HoldfastError('ENOENT');
    return { attr: NO_ATTR, generation: 0, entryTtlMs: ttlMs, attrTtlMs: 0 };
  }

  /** How long the kernel may believe these attributes, ms: not at all when others are known by now. */
  #attrTtlMs({ ino, change }: Attr): number {
    if (!this.notifier || this.#isDoubtful(ino)) return 0;
    const fresh = this.inodes.fresh(ino);
    return fresh?.attr.change === change ? fresh.ttlMs : 0;
  }

  /** The answer to getattr and setattr. @param attr as the server has it */
  attrReply(attr: Attr, seen = this.files.view(attr)): AttrReply {
    this.inodes.tell(attr);
    return { attr: toFileAttr(seen), ttlMs: this.#attrTtlMs(attr) };
  }

  /**
   * What the kernel may do with the pages of a file at an open: under a lease they stay, and are invalidated when it is
   * recalled; without one somebody else writes to the file now, and reads and writes go to the servers.
   */
  opened(attr: Attr): Answer<Pick<OpenReply, 'keepCache' | 'directIo'>> {
    const { keepPages, attrStale } = this.inodes.opened(attr);
    if (this.mode(attr.ino) === LeaseMode.LEASE_NONE) return { directIo: true };
    if (!attrStale) return { keepCache: keepPages };
    if (!this.notifier) return { directIo: true };
    return this.notifier.invalidateInode(attr.ino, -1, 0).then(() => ({ keepCache: false }));
  }

  /**
   * Only what the name cache knows under the directory's lease may stay in the kernel, and of an inode that is leased: the kernel
   * goes by the owner and the mode that it has until a lookup, and no recall will tell that another mount has changed them.
   */
  private entryTtlMs(parent: number, name: Buffer, ino: number): number {
    const now = this.clock.now();
    if (this.mode(parent) === LeaseMode.LEASE_NONE) return 0;
    if (ino !== 0 && this.mode(ino) === LeaseMode.LEASE_NONE) return 0;
    const known = this.names.lookup(parent, name);
    const same = known === 'absent' ? ino === 0 : known?.ino === ino;
    return same ? this.meta.leases.ttlMs(parent, now) : 0;
  }
}

const NO_TIME = { sec: 0, nsec: 0 };
const NO_ATTR = {
  ino: 0,
  mode: 0,
  nlink: 0,
  uid: 0,
  gid: 0,
  rdev: 0,
  size: 0,
  blocks: 0,
  blksize: 0,
  atime: NO_TIME,
  mtime: NO_TIME,
  ctime: NO_TIME,
};

export function setAttrOp(ino: number, change: Partial<SetAttr>): Extract<MutationOp, { $case: 'setAttr' }> {
  const value = {
    ino,
    mode: change.mode,
    uid: change.uid,
    gid: change.gid,
    size: change.size,
    atime: change.atime,
    mtime: change.mtime,
    atimeNow: change.atimeNow ?? false,
    mtimeNow: change.mtimeNow ?? false,
    killPriv: change.killPriv ?? false,
    ctime: change.ctime,
    killSgid: change.killSgid,
    allocating: change.allocating,
    reserving: change.reserving,
    changes: change.changes,
  } satisfies Record<keyof SetAttr, unknown>;
  return { $case: 'setAttr', value };
}

/** @throws HoldfastError ENAMETOOLONG */
export function checkName(name: Buffer): Buffer {
  if (name.length > NAME_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
  return name;
}

/** For calls that name an inode by its number, which may be gone. */
export async function staleIfGone<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof HoldfastError && error.errorName === 'ENOENT') throw new HoldfastError('ESTALE');
    throw error;
  }
}

/** The bits that a process with this umask may set. */
export function masked(mode: number, umask: number): number {
  return mode & ~(umask & 0o777);
}
