import type { Timespec } from '../../../common/clock.js';
import type { FileAttr, StatFs } from '../binding.js';

/** Structures that fuse-native takes: numbers of 32 bits and times in milliseconds. */

/** What its getStatArray reads. */
export interface NativeStat {
  mode: number;
  uid: number;
  gid: number;
  size: number;
  dev: number;
  nlink: number;
  ino: number;
  rdev: number;
  blksize: number;
  blocks: number;
  /** Milliseconds since 1970. */
  atime: number;
  mtime: number;
  ctime: number;
}

/** What its getStatfsArray reads. */
export interface NativeStatfs {
  bsize: number;
  frsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  favail: number;
  fsid: number;
  flag: number;
  namemax: number;
}

const MAX_U32 = 0xffff_ffff;
const TWO_63 = 2 ** 63;

/** Its C side divides without a sign: what lies before 1970 is shown as 1970. */
function toMs(time: Timespec): number {
  return Math.max(0, time.sec * 1000 + Math.floor(time.nsec / 1_000_000));
}

export function toNativeStat(attr: FileAttr): NativeStat {
  return {
    mode: attr.mode,
    uid: attr.uid,
    gid: attr.gid,
    size: attr.size,
    dev: 0,
    nlink: attr.nlink,
    ino: attr.ino,
    rdev: attr.rdev,
    blksize: attr.blksize,
    blocks: attr.blocks,
    atime: toMs(attr.atime),
    mtime: toMs(attr.mtime),
    ctime: toMs(attr.ctime),
  };
}

/** Counts of blocks are 32 bits wide: the block grows until they fit. */
export function toNativeStatfs(stats: StatFs): NativeStatfs {
  let scale = 1;
  while (stats.blocks / scale > MAX_U32) scale *= 2;
  const scaled = (blocks: number): number => Math.floor(blocks / scale);
  const clamped = (count: number): number => Math.min(count, MAX_U32);
  return {
    bsize: stats.blockSize * scale,
    frsize: stats.blockSize * scale,
    blocks: scaled(stats.blocks),
    bfree: scaled(stats.free),
    bavail: scaled(stats.available),
    files: clamped(stats.files),
    ffree: clamped(stats.filesFree),
    favail: clamped(stats.filesFree),
    fsid: 0,
    flag: 0,
    namemax: stats.nameMax,
  };
}

/**
 * The time of a utimens request.
 * @returns undefined for one before 1970: it arrives as a huge unsigned number, rounded
 */
export function fromNativeMs(ms: number): Timespec | undefined {
  if (!(ms >= 0 && ms < TWO_63)) return undefined;
  return { sec: Math.floor(ms / 1000), nsec: Math.round((ms % 1000) * 1_000_000) };
}
