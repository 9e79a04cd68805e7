import type { Clock } from '../../common/clock.js';
import { Counts } from '../../common/counts.js';
import { LruMap } from '../../common/lru-map.js';
import { type Attr, LeaseMode } from '../../proto/gen/meta.js';
import type { LeaseTable } from '../leases/lease-table.js';

/** Inodes remembered; beyond it the one that was used least recently is forgotten. */
export const INODES_MAX = 65_536;
/** Extended attributes remembered of one inode, absent ones included. */
export const XATTRS_PER_INODE_MAX = 32;
/** Values above it are asked for each time. */
export const XATTR_CACHED_BYTES_MAX = 1024;

/** When something was learnt: LeaseTable.stamp() at its arrival, and how many changes had been noted here when it was asked for. */
export interface Stamp {
  asOf: number;
  epoch: number;
}

interface Inode {
  attr: Attr;
  /** When the attributes were learnt; undefined: they are known to be out of date. */
  stamp: Stamp | undefined;
  /** What was asked for before this epoch is out of date: answers overtake one another on their way through this process. */
  outdatedAt: number;
  /** Attr.change as of which the kernel's cached pages are right; undefined: unknown. */
  pagesAsOf: number | undefined;
  /** The kernel's pages are right for as long as the lease covers this. */
  pagesStamp: number | undefined;
  /** Attr.change of the attributes that the kernel was given last; undefined: unknown. */
  told: number | undefined;
  /** Values by name, undefined for one that does not exist; good as long as the lease covers `xattrsAsOf`. */
  xattrs: Map<string, Buffer | undefined> | undefined;
  xattrNames: Buffer[] | undefined;
  xattrsAsOf: number;
  /** As outdatedAt, for extended attributes. */
  xattrsOutdatedAt: number;
  /** Of a symlink: it never changes. */
  target: Buffer | undefined;
}

/**
 * What this mount knows of inodes: attributes, extended attributes, symlink targets, and whether the kernel's pages may
 * stay at an open. Believed only while the lease under which it was learnt is held. A memory only: any inode may be
 * forgotten at any time.
 */
export class InodeCache {
  readonly #clock: Clock;
  readonly #leases: LeaseTable;
  readonly #inodes = new LruMap<number, Inode>();
  /** Those that changes on their way may have changed by now. */
  readonly #changing = new Counts();
  #epoch = 0;
  /** As Inode.outdatedAt, for all inodes, and for those that are not remembered. */
  #allOutdatedAt = 0;
  #othersOutdatedAt = 0;

  constructor(clock: Clock, leases: LeaseTable) {
    this.#clock = clock;
    this.#leases = leases;
  }

  /** Rises with each change made here that known attributes do not show: take it before asking for attributes. */
  get epoch(): number {
    return this.#epoch;
  }

  /** For what is learnt now. @param asOf LeaseTable.stamp() when it arrived, if that is not now */
  stamp(asOf = this.#leases.stamp()): Stamp {
    return { asOf, epoch: this.#epoch };
  }

  /**
   * Takes attributes from the server. @param own they answer a change made here
   * @returns false when newer ones are known: the answer is of the time before a change that was taken in here first
   */
  learn(attr: Attr, stamp: Stamp, own: boolean): boolean {
    const known = this.#inodes.peek(attr.ino);
    if (known && attr.change < known.attr.change) return false;
    // A change of one's own that came right behind what the pages show leaves them right.
    const pagesAsOf = own && known?.pagesAsOf === attr.change - 1 ? attr.change : known?.pagesAsOf;
    this.#put(attr, stamp, known).pagesAsOf = pagesAsOf;
    return true;
  }

  /** Attributes as they are by a change made here under an exclusive lease, or by the answer to the last of those. */
  setLocal(attr: Attr): void {
    this.#put(attr, this.stamp(), this.#inodes.peek(attr.ino));
  }

  /** A new inode, made here. */
  addLocal(attr: Attr, target?: Buffer): void {
    const stamp = this.stamp();
    const inode = this.#put(attr, stamp, undefined);
    inode.target = target;
    inode.xattrs = new Map();
    inode.xattrNames = [];
    inode.xattrsAsOf = stamp.asOf;
  }

  /** Attributes that may be believed, and for how long; undefined: ask the server. */
  fresh(ino: number): { attr: Attr; ttlMs: number } | undefined {
    const inode = this.#inodes.peek(ino);
    if (!inode?.stamp || inode.stamp.epoch < this.#allOutdatedAt) return undefined;
    const now = this.#clock.now();
    if (!this.#covers(ino, inode.stamp.asOf, now)) return undefined;
    return { attr: inode.attr, ttlMs: this.#leases.ttlMs(ino, now) };
  }

  /**
   * Carries out a change by request. Whoever asks for it keeps a lease to look at the inodes, and yet others may be shown them
   * changed before the answer is here. So until `change` has ended, and has noted what came of it, what is known of them
   * is believed under an exclusive lease alone, which lets nobody else see them.
   */
  async during<T>(inos: readonly number[], change: () => Promise<T>): Promise<T> {
    for (const ino of inos) this.#changing.up(ino);
    try {
      return await change();
    } finally {
      for (const ino of inos) this.#changing.down(ino);
    }
  }

  #covers(ino: number, asOf: number, now: number): boolean {
    if (!this.#leases.covers(ino, asOf, now)) return false;
    if (this.#changing.size === 0 || !this.#changing.has(ino)) return true;
    return this.#leases.mode(ino, now) === LeaseMode.LEASE_EXCLUSIVE;
  }

  /** The newest attributes known, believed or not. */
  known(ino: number): Attr | undefined {
    return this.#inodes.peek(ino)?.attr;
  }

  /** An inode was changed here in a way that its known attributes do not show. */
  outdated(ino: number): void {
    const inode = this.#inodes.peek(ino);
    this.#epoch++;
    if (!inode) {
      this.#othersOutdatedAt = this.#epoch;
      return;
    }
    inode.stamp = undefined;
    inode.outdatedAt = this.#epoch;
  }

  /** Names were changed here, and it is not known which inodes lost or gained them. */
  namespaceChanged(): void {
    this.#allOutdatedAt = ++this.#epoch;
  }

  /** Whether the kernel may be believing attributes of now, which it was told under the present lease. */
  isTold(ino: number): boolean {
    const fresh = this.fresh(ino);
    return fresh !== undefined && this.#inodes.peek(ino)?.told === fresh.attr.change;
  }

  /** These attributes go to the kernel, which believes them for a while. */
  tell(attr: Attr): void {
    const inode = this.#inodes.peek(attr.ino);
    if (inode) inode.told = attr.change;
  }

  /**
   * @param attr as of this open
   * @returns whether the kernel's pages may stay, and whether the attributes that it believes may be older than these:
   *   it would not read beyond the size that it knows
   */
  opened(attr: Attr): { keepPages: boolean; attrStale: boolean } {
    const inode = this.#inodes.peek(attr.ino);
    if (!inode) return { keepPages: false, attrStale: true };
    const leased =
      inode.pagesStamp !== undefined && this.#leases.covers(attr.ino, inode.pagesStamp, this.#clock.now());
    const keepPages = leased || inode.pagesAsOf === attr.change;
    inode.pagesAsOf = attr.change;
    inode.pagesStamp = leased ? inode.pagesStamp : this.#leases.stamp();
    return { keepPages, attrStale: !keepPages && inode.told !== attr.change };
  }

  // ---- extended attributes, symlinks

  /** The value; 'absent'; undefined: ask. */
  xattr(ino: number, name: string): Buffer | 'absent' | undefined {
    const inode = this.#xattrsOf(ino);
    if (!inode?.xattrs) return undefined;
    if (inode.xattrs.has(name)) return inode.xattrs.get(name) ?? 'absent';
    if (inode.xattrNames?.every((known) => known.toString('latin1') !== name)) return 'absent';
    return undefined;
  }

  xattrNames(ino: number): Buffer[] | undefined {
    return this.#xattrsOf(ino)?.xattrNames;
  }

  /** @param value undefined: it does not exist. @param stamp of the answer; it is dropped when no lease covers it */
  learnXattr(ino: number, name: string, value: Buffer | undefined, stamp: Stamp): void {
    const inode = this.#learnXattrs(ino, stamp);
    if (!inode?.xattrs || (value && value.length > XATTR_CACHED_BYTES_MAX)) return;
    if (inode.xattrs.size >= XATTRS_PER_INODE_MAX) inode.xattrs.clear();
    inode.xattrs.set(name, value);
  }

  learnXattrNames(ino: number, names: Buffer[], stamp: Stamp): void {
    const inode = this.#learnXattrs(ino, stamp);
    if (inode && names.length <= XATTRS_PER_INODE_MAX) inode.xattrNames = names;
  }

  /** An extended attribute is being changed here. */
  xattrsChanged(ino: number): void {
    const inode = this.#inodes.peek(ino);
    this.#epoch++;
    if (!inode) {
      this.#othersOutdatedAt = this.#epoch;
      return;
    }
    inode.xattrs = undefined;
    inode.xattrNames = undefined;
    inode.xattrsOutdatedAt = this.#epoch;
  }

  target(ino: number): Buffer | undefined {
    return this.#inodes.peek(ino)?.target;
  }

  learnTarget(ino: number, target: Buffer): void {
    const inode = this.#inodes.peek(ino);
    if (inode) inode.target = target;
  }

  /** The lease was given up; pages and attributes that the kernel had are invalidated by whoever gives it up. */
  leaseLost(ino: number): void {
    const inode = this.#inodes.peek(ino);
    if (!inode) return;
    inode.stamp = undefined;
    inode.pagesAsOf = undefined;
    inode.pagesStamp = undefined;
    inode.told = undefined;
    inode.xattrs = undefined;
    inode.xattrNames = undefined;
  }

  forget(ino: number): void {
    this.#inodes.delete(ino);
  }

  /** What was foretold of it does not come to pass: the server is right, although what it says looks older. */
  mistaken(ino: number): void {
    this.#inodes.delete(ino);
    this.#othersOutdatedAt = ++this.#epoch;
  }

  /** @param known what is remembered of the inode already: it is changed in place, for this happens several times for a new file */
  #put(attr: Attr, stamp: Stamp, known: Inode | undefined): Inode {
    const inode = known ?? unknownInode(attr, this.#othersOutdatedAt);
    inode.attr = attr;
    inode.stamp = stamp.epoch >= inode.outdatedAt ? stamp : undefined;
    this.#inodes.set(attr.ino, inode);
    if (this.#inodes.size > INODES_MAX) this.#inodes.shift();
    return inode;
  }

  #xattrsOf(ino: number): Inode | undefined {
    const inode = this.#inodes.peek(ino);
    return inode && this.#covers(ino, inode.xattrsAsOf, this.#clock.now()) ? inode : undefined;
  }

  #learnXattrs(ino: number, { asOf, epoch }: Stamp): Inode | undefined {
    const inode = this.#inodes.peek(ino);
    if (!inode || epoch < inode.xattrsOutdatedAt) return undefined;
    if (!this.#leases.covers(ino, asOf, this.#clock.now())) return undefined;
    if (!inode.xattrs || !this.#xattrsOf(ino)) {
      inode.xattrs = new Map();
      inode.xattrNames = undefined;
      inode.xattrsAsOf = asOf;
    }
    return inode;
  }
}

/** Written out: a listing makes a thousand at once, and V8 copies by `...` with a call into its runtime. */
function unknownInode(attr: Attr, outdatedAt: number): Inode {
  return {
    attr,
    stamp: undefined,
    outdatedAt,
    pagesAsOf: undefined,
    pagesStamp: undefined,
    told: undefined,
    xattrs: undefined,
    xattrNames: undefined,
    xattrsAsOf: 0,
    xattrsOutdatedAt: outdatedAt,
    target: undefined,
  };
}
