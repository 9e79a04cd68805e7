import { laterTime } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Time } from '../../proto/gen/meta.js';
import { S_IFLNK, S_IFMT, TYPE_SHIFT } from '../../proto/types.js';
import type { KvReader, KvTransaction } from '../store/kv.js';
import { decodeInode, encodeInode, type Inode, isDirectory } from './inode-codec.js';
import { cookieKey, dentryKey, inodeKey, symlinkKey, xattrRange } from './keys.js';
import { type Charge, chargeOf, type QuotaTable } from './quota-table.js';
import { type Counters, type Dentry, decodeDentry, encodeCookieEntry, encodeDentry } from './records.js';

/** The inode as stored, or undefined. */
export function loadInode(kv: KvReader, ino: number): Inode | undefined {
  const bytes = kv.get(inodeKey(ino));
  return bytes && decodeInode(ino, bytes);
}

export function loadDentry(kv: KvReader, parent: number, name: Buffer): Dentry | undefined {
  const bytes = kv.get(dentryKey(parent, name));
  return bytes && decodeDentry(bytes);
}

/**
 * What one batch of commands works on: the transaction, and the inodes it has touched, which are written once at its
 * end. A command must check everything before its first change: there is no undo for one command of a batch.
 */
export class Batch {
  /** Undefined: the inode does not exist (any more). */
  private readonly inodes = new Map<number, Inode | undefined>();
  private readonly dirty = new Set<number>();
  /** What the quotas count of the inodes in memory; nothing is kept while there are none. */
  private readonly charged = new Map<number, Charge>();
  /** Changed by the command being applied, as far as quotas may have to know. */
  private readonly changed = new Set<number>();
  /** The change was answered by a client already: it must not be refused for want of room. */
  acknowledged = false;
  /** Of the command being applied. */
  time: Time = { sec: 0, nsec: 0 };

  constructor(
    readonly txn: KvTransaction,
    readonly counters: Counters,
    /** Layout of new files, in bytes. */
    readonly chunkSize: () => number,
    readonly quotas: QuotaTable,
  ) {}

  /** Shared with all commands of the batch: call `touch` after a change. */
  find(ino: number): Inode | undefined {
    if (this.inodes.has(ino)) return this.inodes.get(ino);
    const inode = loadInode(this.txn, ino);
    this.inodes.set(ino, inode);
    if (inode && this.quotas.size > 0) this.charged.set(ino, chargeOf(inode));
    return inode;
  }

  /** @throws HoldfastError ENOENT */
  inode(ino: number): Inode {
    const inode = this.find(ino);
    if (!inode) throw new HoldfastError('ENOENT');
    return inode;
  }

  /** @throws HoldfastError ENOENT, ENOTDIR */
  directory(ino: number): Inode {
    const inode = this.inode(ino);
    if (!isDirectory(inode)) throw new HoldfastError('ENOTDIR');
    return inode;
  }

  dentry(parent: number, name: Buffer): Dentry | undefined {
    return loadDentry(this.txn, parent, name);
  }

  /**
   * Counts a change of the inode and sets its ctime, which never goes back: the commit of a write that a mount has shown may be
   * recorded before a change that was made earlier. With `data` sets its mtime too.
   */
  touch(inode: Inode, data = false): void {
    inode.change++;
    inode.ctime = laterTime(inode.ctime, this.time);
    if (data) inode.mtime = this.time;
    this.mark(inode.ino);
  }

  /** Has the inode written, without counting a change. */
  keep(inode: Inode): void {
    this.mark(inode.ino);
  }

  /** Takes a new inode into the store. */
  add(inode: Inode): void {
    this.inodes.set(inode.ino, inode);
    this.mark(inode.ino);
    this.counters.inodes++;
  }

  /** Removes an inode with all that hangs on it, except names and data to reclaim. */
  remove(inode: Inode): void {
    this.inodes.set(inode.ino, undefined);
    this.mark(inode.ino);
    this.counters.inodes--;
    this.counters.allocated -= inode.allocated;
    if (inode.xattrBytes > 0) {
      const { start, end } = xattrRange(inode.ino);
      for (const { key } of [...this.txn.range(start, end)]) this.txn.delete(Buffer.from(key));
    }
    if ((inode.mode & S_IFMT) === S_IFLNK) this.txn.delete(symlinkKey(inode.ino));
  }

  /**
   * Puts a name into a directory, whose own record the caller keeps.
   * @param cookie the entry's place in readdir; without it the name comes last
   * @returns its place
   */
  putName(parent: Inode, name: Buffer, ino: number, mode: number, cookie?: number): number {
    const type = mode >>> TYPE_SHIFT;
    const place = cookie ?? this.counters.nextCookie++;
    this.txn.put(dentryKey(parent.ino, name), encodeDentry({ ino, type, cookie: place }));
    this.txn.put(cookieKey(parent.ino, place), encodeCookieEntry(ino, type, name));
    return place;
  }

  dropName(parent: Inode, name: Buffer, dentry: Dentry): void {
    this.txn.delete(dentryKey(parent.ino, name));
    this.txn.delete(cookieKey(parent.ino, dentry.cookie));
  }

  setAllocated(inode: Inode, allocated: number): void {
    this.counters.allocated += allocated - inode.allocated;
    inode.allocated = allocated;
  }

  private mark(ino: number): void {
    this.dirty.add(ino);
    if (this.quotas.size > 0) this.changed.add(ino);
  }

  /** Has the quotas count what the command has changed. To be called behind each. */
  chargeQuotas(): void {
    for (const ino of this.changed) {
      const inode = this.inodes.get(ino);
      const after = inode && chargeOf(inode);
      this.quotas.move(ino, this.charged.get(ino), after);
      if (after) this.charged.set(ino, after);
      else this.charged.delete(ino);
    }
    this.changed.clear();
  }

  /** Writes the inodes that were touched and forgets all: what is read from now on is what the store holds. */
  settle(): void {
    this.chargeQuotas();
    this.flush();
    this.inodes.clear();
    this.charged.clear();
  }

  /** Writes the inodes that were touched. */
  flush(): void {
    for (const ino of this.dirty) {
      const inode = this.inodes.get(ino);
      if (inode) this.txn.put(inodeKey(ino), encodeInode(inode));
      else this.txn.delete(inodeKey(ino));
    }
    this.dirty.clear();
  }
}
