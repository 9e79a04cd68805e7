import type { Timespec } from '../../../common/clock.js';
import type {
  AttrReply,
  CreateReply,
  DirEntry,
  Entry,
  FileAttr,
  FileLock,
  OpenReply,
  StatFs,
} from '../binding.js';
import {
  ATTR_OUT_BYTES,
  DIRENT_HEADER_BYTES,
  ENTRY_OUT_BYTES,
  F_RDLCK,
  F_UNLCK,
  F_WRLCK,
  OPEN_OUT_BYTES,
  OpenOutFlag,
  STATFS_OUT_BYTES,
  STATX_BASIC_STATS,
  STATX_BTIME,
  STATX_OUT_BYTES,
} from './protocol.js';
import { writeLockOffset, writeS64, writeU64 } from './wire.js';

/** Encoders of the structures in replies. Each writes at `at` and returns the bytes it took. */

const MS_PER_SEC = 1000;
const NS_PER_MS = 1_000_000;

function writeTime(buf: Buffer, secAt: number, nsecAt: number, time: Timespec): void {
  writeS64(buf, secAt, time.sec);
  buf.writeUInt32LE(time.nsec, nsecAt);
}

/** struct fuse_attr, 88 bytes. */
function writeAttr(buf: Buffer, at: number, attr: FileAttr): void {
  writeU64(buf, at, attr.ino);
  writeU64(buf, at + 8, attr.size);
  writeU64(buf, at + 16, attr.blocks);
  writeTime(buf, at + 24, at + 48, attr.atime);
  writeTime(buf, at + 32, at + 52, attr.mtime);
  writeTime(buf, at + 40, at + 56, attr.ctime);
  buf.writeUInt32LE(attr.mode, at + 60);
  buf.writeUInt32LE(attr.nlink, at + 64);
  buf.writeUInt32LE(attr.uid, at + 68);
  buf.writeUInt32LE(attr.gid, at + 72);
  buf.writeUInt32LE(attr.rdev, at + 76);
  buf.writeUInt32LE(attr.blksize, at + 80);
  buf.writeUInt32LE(0, at + 84);
}

/** A duration split into the seconds and nanoseconds fields. */
function writeTtl(buf: Buffer, secAt: number, nsecAt: number, ms: number): void {
  const sec = Math.floor(ms / MS_PER_SEC);
  writeU64(buf, secAt, sec);
  buf.writeUInt32LE(Math.floor((ms - sec * MS_PER_SEC) * NS_PER_MS), nsecAt);
}

/** struct fuse_entry_out. */
export function writeEntry(buf: Buffer, at: number, entry: Entry): number {
  writeU64(buf, at, entry.attr.ino);
  writeU64(buf, at + 8, entry.generation);
  writeTtl(buf, at + 16, at + 32, entry.entryTtlMs);
  writeTtl(buf, at + 24, at + 36, entry.attrTtlMs);
  writeAttr(buf, at + 40, entry.attr);
  return ENTRY_OUT_BYTES;
}

/** struct fuse_attr_out. */
export function writeAttrReply(buf: Buffer, at: number, reply: AttrReply): number {
  writeTtl(buf, at, at + 8, reply.ttlMs);
  buf.writeUInt32LE(0, at + 12);
  writeAttr(buf, at + 16, reply.attr);
  return ATTR_OUT_BYTES;
}

/** struct fuse_statx_out, which ends in a struct fuse_statx laid out as struct statx of statx(2). */
export function writeStatx(buf: Buffer, at: number, { attr, ttlMs }: AttrReply): number {
  buf.fill(0, at, at + STATX_OUT_BYTES);
  writeTtl(buf, at, at + 8, ttlMs);
  const stat = at + 32;
  buf.writeUInt32LE(STATX_BASIC_STATS | (attr.btime ? STATX_BTIME : 0), stat);
  buf.writeUInt32LE(attr.blksize, stat + 4);
  buf.writeUInt32LE(attr.nlink, stat + 16);
  buf.writeUInt32LE(attr.uid, stat + 20);
  buf.writeUInt32LE(attr.gid, stat + 24);
  buf.writeUInt16LE(attr.mode, stat + 28);
  writeU64(buf, stat + 32, attr.ino);
  writeU64(buf, stat + 40, attr.size);
  writeU64(buf, stat + 48, attr.blocks);
  const times = [attr.atime, attr.btime, attr.ctime, attr.mtime];
  for (const [index, time] of times.entries()) {
    const timeAt = stat + 64 + 16 * index;
    if (time) writeTime(buf, timeAt, timeAt + 8, time);
  }
  buf.writeUInt32LE(deviceMajor(attr.rdev), stat + 128);
  buf.writeUInt32LE(deviceMinor(attr.rdev), stat + 132);
  return STATX_OUT_BYTES;
}

/** Linux' new_encode_dev(): 12 bits of the major number between the low 8 and the high 12 of the minor one. */
function deviceMajor(rdev: number): number {
  return (rdev >>> 8) & 0xfff;
}

function deviceMinor(rdev: number): number {
  return (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
}

/** struct fuse_open_out. */
export function writeOpen(buf: Buffer, at: number, reply: OpenReply): number {
  writeU64(buf, at, reply.handle);
  const flags =
    (reply.directIo ? OpenOutFlag.DIRECT_IO : 0) |
    (reply.keepCache ? OpenOutFlag.KEEP_CACHE : 0) |
    (reply.cacheDir ? OpenOutFlag.CACHE_DIR : 0) |
    (reply.noFlush ? OpenOutFlag.NOFLUSH : 0);
  writeU64(buf, at + 8, flags);
  return OPEN_OUT_BYTES;
}

/** struct fuse_entry_out followed by struct fuse_open_out. */
export function writeCreate(buf: Buffer, at: number, reply: CreateReply): number {
  const entryBytes = writeEntry(buf, at, reply.entry);
  return entryBytes + writeOpen(buf, at + entryBytes, reply);
}

/** struct fuse_write_out and struct fuse_getxattr_out: a 32-bit count and padding. */
export function writeCount(buf: Buffer, at: number, count: number): number {
  buf.writeUInt32LE(count, at);
  buf.writeUInt32LE(0, at + 4);
  return 8;
}

/** struct fuse_lseek_out. */
export function writeOffset(buf: Buffer, at: number, offset: number): number {
  writeU64(buf, at, offset);
  return 8;
}

/** struct fuse_statfs_out. */
export function writeStatfs(buf: Buffer, at: number, stats: StatFs): number {
  buf.fill(0, at, at + STATFS_OUT_BYTES);
  writeU64(buf, at, stats.blocks);
  writeU64(buf, at + 8, stats.free);
  writeU64(buf, at + 16, stats.available);
  writeU64(buf, at + 24, stats.files);
  writeU64(buf, at + 32, stats.filesFree);
  buf.writeUInt32LE(stats.blockSize, at + 40);
  buf.writeUInt32LE(stats.nameMax, at + 44);
  buf.writeUInt32LE(stats.blockSize, at + 48);
  return STATFS_OUT_BYTES;
}

const LOCK_TYPES = { read: F_RDLCK, write: F_WRLCK, unlock: F_UNLCK } as const;

/** struct fuse_lk_out. */
export function writeLock(buf: Buffer, at: number, lock: FileLock): number {
  writeLockOffset(buf, at, lock.start);
  writeLockOffset(buf, at + 8, lock.end);
  buf.writeUInt32LE(LOCK_TYPES[lock.type], at + 16);
  buf.writeUInt32LE(lock.pid, at + 20);
  return 24;
}

/** Bytes that an entry with a name of `nameBytes` takes in a listing. */
export function dirEntryBytes(nameBytes: number, plus: boolean): number {
  const bytes = DIRENT_HEADER_BYTES + nameBytes;
  return (plus ? ENTRY_OUT_BYTES : 0) + ((bytes + 7) & ~7);
}

/**
 * A listing of struct fuse_dirent or struct fuse_direntplus.
 * @param size bytes that the kernel gave room for
 * @returns the listing and how many of the entries it holds
 */
export function encodeListing(
  entries: readonly DirEntry[],
  size: number,
  plus: boolean,
): { listing: Buffer; taken: number } {
  let length = 0;
  let taken = 0;
  for (const { name } of entries) {
    const bytes = dirEntryBytes(name.length, plus);
    if (length + bytes > size) break;
    length += bytes;
    taken++;
  }
  const listing = Buffer.alloc(length);
  let at = 0;
  for (let i = 0; i < taken; i++) {
    const entry = entries[i]!;
    const start = at;
    if (plus) {
      // An entry of zeros tells the kernel a name only: it counts no lookup.
      if (entry.entry) writeEntry(listing, at, entry.entry);
      at += ENTRY_OUT_BYTES;
    }
    writeU64(listing, at, entry.ino);
    writeU64(listing, at + 8, entry.cookie);
    listing.writeUInt32LE(entry.name.length, at + 16);
    listing.writeUInt32LE(entry.type, at + 20);
    entry.name.copy(listing, at + DIRENT_HEADER_BYTES);
    at = start + dirEntryBytes(entry.name.length, plus);
  }
  return { listing, taken };
}
