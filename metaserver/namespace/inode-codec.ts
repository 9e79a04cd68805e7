import { HoldfastError } from '../../proto/errors.js';
import type { Attr, Time, Truncate } from '../../proto/gen/meta.js';
import { DIRECTORY_SIZE_BYTES, S_IFDIR, S_IFMT, S_IFREG } from '../../proto/types.js';
import { readU64, writeU64 } from './keys.js';

/** An inode in memory. Times and `truncates` are replaced as a whole, never changed in place. */
export interface Inode {
  ino: number;
  generation: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  allocated: number;
  atime: Time;
  mtime: Time;
  ctime: Time;
  chunkSize: number;
  truncateSeq: number;
  truncates: readonly Truncate[];
  change: number;
  /** Directories: the inode of "..", else 0. */
  parent: number;
  /** Directories: how many names are in it, else 0. */
  entries: number;
  /** Bytes of extended attribute names, each with the NUL that listxattr puts behind it; 0: there are none. */
  xattrBytes: number;
  /** Bits HAS_ACCESS_ACL, HAS_DEFAULT_ACL, HAS_CAPABILITY. */
  xattrKinds: number;
  /** Made without a name (O_TMPFILE), and never had one: it may get one. */
  unnamed: boolean;
  /** The innermost tree with a quota that it is counted in, 0: none. A directory's goes to what is made in it. */
  project: number;
  /** When it was made; unknown of inodes that were stored before this was kept, and changed since they were made. */
  birth: Time | undefined;
  /** proto/inode-flags.ts */
  flags: number;
}

export function isDirectory(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFDIR;
}

export function isRegular(inode: Inode): boolean {
  return (inode.mode & S_IFMT) === S_IFREG;
}

/** The inode as the wire has it: a copy that later changes do not reach. */
export function attrOf(inode: Inode): Attr {
  return {
    ino: inode.ino,
    generation: inode.generation,
    mode: inode.mode,
    nlink: inode.nlink,
    uid: inode.uid,
    gid: inode.gid,
    rdev: inode.rdev,
    size: inode.size,
    allocated: inode.allocated,
    atime: inode.atime,
    mtime: inode.mtime,
    ctime: inode.ctime,
    chunkSize: inode.chunkSize,
    truncateSeq: inode.truncateSeq,
    truncates: inode.truncates as Truncate[],
    change: inode.change,
    xattrKinds: inode.xattrKinds,
    project: inode.project || undefined,
    hasXattrs: inode.xattrBytes > 0,
    birth: inode.birth,
    flags: inode.flags || undefined,
  };
}

// Durable layout, big-endian; version 1 of inodes without flags (chattr), 2 of those with some:
//   u8 version, u8 flags, u16 mode, u32 nlink, u32 uid, u32 gid, u32 generation, u64 change, time mtime, then by flag
//   TIMES      time atime, time ctime     (else both equal mtime)
//   DIRECTORY  u64 parent, u32 entries
//   CONTENT    u64 size, u64 allocated, u32 chunk size, u32 truncate seq
//   DEVICE     u32 rdev
//   XATTRS     u8 kinds, u24 bytes of names
//   TRUNCATES  u8 count, count times (u32 seq, u64 from)
//   UNNAMED    nothing
//   PROJECT    u64 project
// then, when it is known and differs from one of the others: time birth,
// and at the end of version 2: u32 flags.
// A time is i64 sec, u32 nsec.
const INODE_VERSION = 1;
const FLAGGED_INODE_VERSION = 2;
const HAS_TIMES = 1;
const HAS_DIRECTORY = 2;
const HAS_CONTENT = 4;
const HAS_DEVICE = 8;
const HAS_XATTRS = 16;
const HAS_TRUNCATES = 32;
const IS_UNNAMED = 64;
const HAS_PROJECT = 128;
const XATTR_KINDS_SHIFT = 24;
const FIXED_BYTES = 40;
const TIME_BYTES = 12;
const TRUNCATE_BYTES = 12;
const FLAGS_BYTES = 4;
const MAX_BYTES = FIXED_BYTES + 3 * TIME_BYTES + 12 + 24 + 4 + 4 + 1 + 8 + FLAGS_BYTES;
const U32_RANGE = 0x1_0000_0000;

export function encodeInode(inode: Inode): Buffer {
  const sameTimes = sameTime(inode.atime, inode.mtime) && sameTime(inode.ctime, inode.mtime);
  const directory = isDirectory(inode);
  const flags =
    (sameTimes ? 0 : HAS_TIMES) |
    (directory ? HAS_DIRECTORY : HAS_CONTENT) |
    (inode.rdev ? HAS_DEVICE : 0) |
    (inode.xattrBytes ? HAS_XATTRS : 0) |
    (inode.truncates.length ? HAS_TRUNCATES : 0) |
    (inode.unnamed ? IS_UNNAMED : 0) |
    (inode.project ? HAS_PROJECT : 0);
  const bytes = Buffer.allocUnsafe(MAX_BYTES + inode.truncates.length * TRUNCATE_BYTES);
  bytes[0] = inode.flags ? FLAGGED_INODE_VERSION : INODE_VERSION;
  bytes[1] = flags;
  bytes.writeUInt16BE(inode.mode, 2);
  bytes.writeUInt32BE(inode.nlink, 4);
  bytes.writeUInt32BE(inode.uid, 8);
  bytes.writeUInt32BE(inode.gid, 12);
  bytes.writeUInt32BE(inode.generation, 16);
  writeU64(bytes, 20, inode.change);
  let at = writeTime(bytes, 28, inode.mtime);
  if (!sameTimes) at = writeTime(bytes, writeTime(bytes, at, inode.atime), inode.ctime);
  if (directory) {
    writeU64(bytes, at, inode.parent);
    at = bytes.writeUInt32BE(inode.entries, at + 8);
  } else {
    writeU64(bytes, at, inode.size);
    writeU64(bytes, at + 8, inode.allocated);
    bytes.writeUInt32BE(inode.chunkSize, at + 16);
    at = bytes.writeUInt32BE(inode.truncateSeq, at + 20);
  }
  if (inode.rdev) at = bytes.writeUInt32BE(inode.rdev, at);
  if (inode.xattrBytes)
    at = bytes.writeUInt32BE((inode.xattrKinds << XATTR_KINDS_SHIFT) | inode.xattrBytes, at);
  if (inode.truncates.length) {
    at = bytes.writeUInt8(inode.truncates.length, at);
    for (const { seq, from } of inode.truncates) {
      bytes.writeUInt32BE(seq, at);
      writeU64(bytes, at + 4, from);
      at += TRUNCATE_BYTES;
    }
  }
  if (inode.project) {
    writeU64(bytes, at, inode.project);
    at += 8;
  }
  if (inode.birth && !(sameTimes && sameTime(inode.birth, inode.mtime)))
    at = writeTime(bytes, at, inode.birth);
  if (inode.flags) at = bytes.writeUInt32BE(inode.flags, at);
  return bytes.subarray(0, at);
}

/** @throws HoldfastError VERSION on an unknown layout */
export function decodeInode(ino: number, bytes: Buffer): Inode {
  const version = bytes[0] as number;
  if (version !== INODE_VERSION && version !== FLAGGED_INODE_VERSION)
    throw new HoldfastError('VERSION', `inode ${ino} is stored in layout ${version}, which is not known`);
  const flags = bytes[1] as number;
  const mtime = readTime(bytes, 28);
  const inode: Inode = {
    ino,
    generation: bytes.readUInt32BE(16),
    mode: bytes.readUInt16BE(2),
    nlink: bytes.readUInt32BE(4),
    uid: bytes.readUInt32BE(8),
    gid: bytes.readUInt32BE(12),
    rdev: 0,
    size: DIRECTORY_SIZE_BYTES,
    allocated: 0,
    atime: mtime,
    mtime,
    ctime: mtime,
    chunkSize: 0,
    truncateSeq: 0,
    truncates: [],
    change: readU64(bytes, 20),
    parent: 0,
    entries: 0,
    xattrBytes: 0,
    xattrKinds: 0,
    unnamed: (flags & IS_UNNAMED) !== 0,
    project: 0,
    birth: flags & HAS_TIMES ? undefined : mtime,
    flags: version === FLAGGED_INODE_VERSION ? bytes.readUInt32BE(bytes.length - FLAGS_BYTES) : 0,
  };
  let at = FIXED_BYTES;
  if (flags & HAS_TIMES) {
    inode.atime = readTime(bytes, at);
    inode.ctime = readTime(bytes, at + TIME_BYTES);
    at += 2 * TIME_BYTES;
  }
  if (flags & HAS_DIRECTORY) {
    inode.parent = readU64(bytes, at);
    inode.entries = bytes.readUInt32BE(at + 8);
    at += 12;
  }
  if (flags & HAS_CONTENT) {
    inode.size = readU64(bytes, at);
    inode.allocated = readU64(bytes, at + 8);
    inode.chunkSize = bytes.readUInt32BE(at + 16);
    inode.truncateSeq = bytes.readUInt32BE(at + 20);
    at += 24;
  }
  return decodeRare(inode, bytes, flags, at);
}

function decodeRare(inode: Inode, bytes: Buffer, flags: number, start: number): Inode {
  let at = start;
  if (flags & HAS_DEVICE) {
    inode.rdev = bytes.readUInt32BE(at);
    at += 4;
  }
  if (flags & HAS_XATTRS) {
    inode.xattrKinds = bytes.readUInt8(at);
    inode.xattrBytes = bytes.readUIntBE(at + 1, 3);
    at += 4;
  }
  if (flags & HAS_TRUNCATES) {
    const truncates: Truncate[] = [];
    for (let left = bytes.readUInt8(at++); left > 0; left--, at += TRUNCATE_BYTES) {
      truncates.push({ seq: bytes.readUInt32BE(at), from: readU64(bytes, at + 4) });
    }
    inode.truncates = truncates;
  }
  if (flags & HAS_PROJECT) {
    inode.project = readU64(bytes, at);
    at += 8;
  }
  if (at < bytes.length - (inode.flags ? FLAGS_BYTES : 0)) inode.birth = readTime(bytes, at);
  return inode;
}

function sameTime(a: Time, b: Time): boolean {
  return a === b || (a.sec === b.sec && a.nsec === b.nsec);
}

/** `sec` may be negative: two's complement, high word first. */
function writeTime(target: Buffer, offset: number, time: Time): number {
  const high = Math.floor(time.sec / U32_RANGE);
  target.writeInt32BE(high, offset);
  target.writeUInt32BE(time.sec - high * U32_RANGE, offset + 4);
  return target.writeUInt32BE(time.nsec, offset + 8);
}

function readTime(source: Buffer, offset: number): Time {
  return {
    sec: source.readInt32BE(offset) * U32_RANGE + source.readUInt32BE(offset + 4),
    nsec: source.readUInt32BE(offset + 8),
  };
}
