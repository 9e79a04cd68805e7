import type { Timespec } from '../../common/clock.js';
import type { Attr, Time } from '../../proto/gen/meta.js';
import { S_IFMT, S_IFREG } from '../../proto/types.js';
import type { Entry, FileAttr } from '../fuse/binding.js';

/** st_blksize: what programs choose their buffers by. */
export const IO_BLOCK_BYTES = 64 * 1024;
const SECTOR_BYTES = 512;

const EPOCH: Timespec = { sec: 0, nsec: 0 };

export function toTimespec(time: Time | undefined): Timespec {
  return time ?? EPOCH;
}

/** The wire's attributes as the kernel wants them. */
export function toFileAttr(attr: Attr): FileAttr {
  return {
    ino: attr.ino,
    mode: attr.mode,
    nlink: attr.nlink,
    uid: attr.uid,
    gid: attr.gid,
    rdev: attr.rdev,
    size: attr.size,
    blocks: Math.ceil(attr.allocated / SECTOR_BYTES),
    blksize: IO_BLOCK_BYTES,
    atime: toTimespec(attr.atime),
    mtime: toTimespec(attr.mtime),
    ctime: toTimespec(attr.ctime),
    btime: attr.birth,
  };
}

/** @param ttlMs how long the kernel may believe name and attributes */
export function toEntry(attr: Attr, ttlMs: number): Entry {
  return { attr: toFileAttr(attr), generation: attr.generation, entryTtlMs: ttlMs, attrTtlMs: ttlMs };
}

export function isRegular(attr: Attr): boolean {
  return (attr.mode & S_IFMT) === S_IFREG;
}
