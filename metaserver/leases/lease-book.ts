import { assert } from '../../common/assert.js';
import type { LruMap } from '../../common/lru-map.js';
import { LeaseMode } from '../../proto/gen/meta.js';

/** What waits until others have given back what stands in its way. */
export interface Waiter {
  readonly holder: Holder;
  /** What the others may keep. */
  readonly keep: LeaseMode;
  /** Grants that still stand in the way. */
  left: number;
  readonly run: () => void;
}

/** One session's lease on one inode. */
export interface Grant {
  readonly ino: number;
  readonly holder: Holder;
  /** NONE once it was given back. */
  mode: LeaseMode;
  /** Number of the last answer that carried it. */
  seq: number;
  /** What may be kept after the recall that is under way; undefined: none is. */
  asked: LeaseMode | undefined;
  /** The announcement of its holder that named it last, or within which it was granted. */
  round: number;
  waiters: Waiter[] | undefined;
}

/** A session, as far as leases go. */
export interface Holder {
  readonly session: number;
  /** False: it is never granted any. */
  readonly wants: boolean;
  /** By inode, in the order in which they were granted last. */
  readonly grants: LruMap<number, Grant>;
  /** Grants that are being recalled. */
  asked: number;
  /** When it was asked first, or last gave something back, in the clock's milliseconds. */
  progressAt: number;
  /** Counts its announcements. */
  round: number;
  /** What it waits for itself. */
  readonly waits: Set<Waiter>;
}

interface InodeLeases {
  readonly grants: Grant[];
  /** Sessions whose changes of the inode wait or are in the log; one entry for each change. */
  changers: number[];
}

const NOBODY: number[] = [];

/**
 * Who holds which lease, and which inodes are being changed: bookkeeping, no rules.
 * Invariants: a grant is in its holder's map and in its inode's list, or in neither; `asked` of a holder counts its
 * grants that are asked back; `size` and `asked` of the book are sums over the holders.
 */
export class LeaseBook {
  readonly #inodes = new Map<number, InodeLeases>();
  readonly holders = new Map<number, Holder>();
  size = 0;
  asked = 0;

  /** Grants on the inode, of everybody. */
  grants(ino: number): readonly Grant[] {
    return this.#inodes.get(ino)?.grants ?? [];
  }

  /** Whether nobody has a lease on the inode, nor is about to change it. */
  isUntouched(ino: number): boolean {
    return !this.#inodes.has(ino);
  }

  /** Whether another session than `session` holds an exclusive lease on the inode. */
  heldExclusively(ino: number, session: number): boolean {
    const inode = this.#inodes.get(ino);
    // An exclusive lease is the only one.
    const first = inode?.grants[0];
    return (
      first !== undefined && first.mode === LeaseMode.LEASE_EXCLUSIVE && first.holder.session !== session
    );
  }

  /** Whether another session than `session` holds any lease on the inode. */
  heldByOthers(ino: number, session: number): boolean {
    const inode = this.#inodes.get(ino);
    if (inode === undefined || inode.grants.length === 0) return false;
    return inode.grants.length > 1 || inode.grants[0]?.holder.session !== session;
  }

  /** Whether another session than `session` is about to change the inode. */
  changedByOthers(ino: number, session: number): boolean {
    const changers = this.#inodes.get(ino)?.changers;
    if (changers === undefined || changers.length === 0) return false;
    return changers.some((changer) => changer !== session);
  }

  put(holder: Holder, ino: number, mode: LeaseMode, seq: number): Grant {
    const grant: Grant = {
      ino,
      holder,
      mode,
      seq,
      asked: undefined,
      round: holder.round,
      waiters: undefined,
    };
    assert(!holder.grants.has(ino), 'one grant for each session and inode');
    holder.grants.set(ino, grant);
    this.#inode(ino).grants.push(grant);
    this.size++;
    return grant;
  }

  /** Makes it the most recently granted of its holder. */
  refresh(grant: Grant): void {
    grant.holder.grants.set(grant.ino, grant);
  }

  ask(grant: Grant, keep: LeaseMode, now: number): void {
    const { holder } = grant;
    if (grant.asked === undefined) {
      if (holder.asked === 0) holder.progressAt = now;
      holder.asked++;
      this.asked++;
    }
    grant.asked = keep;
  }

  /** The recall is over, whatever came of it. */
  settle(grant: Grant): void {
    if (grant.asked === undefined) return;
    grant.asked = undefined;
    grant.holder.asked--;
    this.asked--;
  }

  remove(grant: Grant): void {
    this.settle(grant);
    grant.mode = LeaseMode.LEASE_NONE;
    grant.holder.grants.delete(grant.ino);
    this.size--;
    const inode = this.#inodes.get(grant.ino);
    const at = inode?.grants.indexOf(grant) ?? -1;
    assert(inode && at >= 0, 'a grant is listed at its inode');
    inode.grants.splice(at, 1);
    this.#sweep(grant.ino, inode);
  }

  beginChange(ino: number, session: number): void {
    const inode = this.#inode(ino);
    if (inode.changers === NOBODY) inode.changers = [session];
    else inode.changers.push(session);
  }

  endChange(ino: number, session: number): void {
    const inode = this.#inodes.get(ino);
    const at = inode?.changers.indexOf(session) ?? -1;
    assert(inode && at >= 0, 'a change that ends was begun');
    const last = inode.changers.pop() as number;
    if (at < inode.changers.length) inode.changers[at] = last;
    this.#sweep(ino, inode);
  }

  clear(): void {
    this.#inodes.clear();
    this.holders.clear();
    this.size = 0;
    this.asked = 0;
  }

  /** Inodes with a lease or a change. */
  get inodes(): number {
    return this.#inodes.size;
  }

  #inode(ino: number): InodeLeases {
    let inode = this.#inodes.get(ino);
    if (!inode) {
      inode = { grants: [], changers: NOBODY };
      this.#inodes.set(ino, inode);
    }
    return inode;
  }

  #sweep(ino: number, inode: InodeLeases): void {
    if (inode.grants.length === 0 && inode.changers.length === 0) this.#inodes.delete(ino);
  }
}
