import { HoldfastError } from './errors.js';
import type { Attr, SetAttr } from './gen/meta.js';
import { S_IFDIR, S_IFMT, S_ISGID, S_ISUID, S_IXGRP } from './types.js';

/**
 * Flags of an inode (Attr.flags) that are kept and obeyed: the bits and names of ioctl_iflags(2). Others are refused.
 */

/** Neither the file nor what is known of it changes; it gains and loses no name. Of a directory: nor do its names. */
export const FLAG_IMMUTABLE = 0x10;
/** It is written at its end alone. Of a directory: it gains names, and loses none. */
export const FLAG_APPEND = 0x20;
/** For dump(8) to see: it means nothing here. */
export const FLAG_NODUMP = 0x40;
/** Reads set no access time. */
export const FLAG_NOATIME = 0x80;

/** Only root sets and clears these. */
export const GUARDING_FLAGS = FLAG_IMMUTABLE | FLAG_APPEND;
export const KNOWN_FLAGS = GUARDING_FLAGS | FLAG_NODUMP | FLAG_NOATIME;
/**
 * Space may be reserved anywhere behind the end (ext4 calls it EOFBLOCKS): whatever cuts the file or deletes it asks all groups.
 * Kept by the metaservers; nobody sets it, or is shown it.
 */
export const FLAG_EOF_BLOCKS = 0x40_0000;
/** What is made in a directory has them from it, as on ext4. */
const INHERITED_FLAGS = FLAG_NODUMP | FLAG_NOATIME;

/** What Attr.flags says of an inode. */
export interface Flagged {
  flags?: number | undefined;
}

export function isImmutable({ flags = 0 }: Flagged): boolean {
  return (flags & FLAG_IMMUTABLE) !== 0;
}

export function isAppendOnly({ flags = 0 }: Flagged): boolean {
  return (flags & FLAG_APPEND) !== 0;
}

/** What a new inode has from its directory; undefined: none. */
export function inheritedFlags({ flags = 0 }: Flagged): number | undefined {
  return flags & INHERITED_FLAGS || undefined;
}

/** Of a file: the chunkservers may keep space behind its end. */
export function reservesBehindEnd({ flags = 0 }: Flagged): boolean {
  return (flags & FLAG_EOF_BLOCKS) !== 0;
}

/** Immutable or append-only: what may be done to it takes a look at the rules. */
export function isGuarded({ flags = 0 }: Flagged): boolean {
  return (flags & GUARDING_FLAGS) !== 0;
}

/**
 * What immutable and append-only forbid of a change of attributes: an append-only file takes the present as both of its times,
 * and what fallocate(2) does without a mode. @throws HoldfastError EPERM
 */
export function checkMaySet(inode: Flagged & Pick<Attr, 'mode' | 'size'>, op: Partial<SetAttr>): void {
  if (!isGuarded(inode)) return;
  const { mode, uid, gid, size, atime, mtime, atimeNow, mtimeNow, killPriv, allocating } = op;
  const owner = mode ?? uid ?? gid;
  const touches = atimeNow && mtimeNow;
  const times = atime !== undefined || mtime !== undefined || ((atimeNow || mtimeNow) && !touches);
  const cuts = size !== undefined && !(allocating && size >= inode.size);
  const loses = killPriv && losesBits(inode, op);
  if (isImmutable(inode) || owner !== undefined || cuts || loses || (times && !allocating))
    throw new HoldfastError('EPERM');
}

function losesBits({ mode }: Pick<Attr, 'mode'>, { killSgid }: Partial<SetAttr>): boolean {
  if ((mode & S_IFMT) === S_IFDIR) return false;
  const setgid = mode & S_IXGRP || killSgid ? S_ISGID : 0;
  return (mode & (S_ISUID | setgid)) !== 0;
}
