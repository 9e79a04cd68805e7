import { laterTime } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import type { CommitWrite, MutationReply, SetAtimes, SetAttr, Time } from '../../proto/gen/meta.js';
import { checkMaySet, FLAG_EOF_BLOCKS, FLAG_NOATIME, reservesBehindEnd } from '../../proto/inode-flags.js';
import {
  BLOCK_SIZE_BYTES,
  FILE_SIZE_MAX_BYTES,
  PERMISSION_BITS,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISUID,
  S_IXGRP,
} from '../../proto/types.js';
import type { Batch } from './batch.js';
import { type Inode, isDirectory, isRegular } from './inode-codec.js';
import { addTruncate, checkTruncates, growOrphan } from './reclaim.js';
import { attrReply, okReply } from './replies.js';
import { chmodAccessAcl, dropCapability } from './xattr.js';

const NSEC_PER_SEC = 1_000_000_000;

/** chmod(2), chown(2), truncate(2), utimensat(2), in any mixture. */
export function setAttr(batch: Batch, op: SetAttr): MutationReply {
  const inode = batch.inode(op.ino);
  checkSetAttr(inode, op);
  checkMaySet(inode, op);
  admitOwner(batch, inode, op);
  const { change: before, ctime } = inode;
  if (op.killPriv) killPrivileges(batch, inode, op.killSgid === true);
  if (op.size !== undefined) resize(batch, inode, op.size);
  if (op.reserving) reserveBehindEnd(batch, inode);
  if (op.mode !== undefined) {
    inode.mode = (inode.mode & S_IFMT) | (op.mode & PERMISSION_BITS);
    chmodAccessAcl(batch, inode);
    batch.touch(inode);
  }
  if (op.uid !== undefined || op.gid !== undefined) {
    inode.uid = op.uid ?? inode.uid;
    inode.gid = op.gid ?? inode.gid;
    batch.touch(inode);
  }
  const atime = op.atimeNow ? batch.time : op.atime;
  const mtime = op.mtimeNow ? batch.time : op.mtime;
  if (atime || mtime || op.ctime) {
    batch.touch(inode);
    inode.atime = atime ?? inode.atime;
    inode.mtime = mtime ?? inode.mtime;
  }
  if (op.ctime) inode.ctime = laterTime(ctime, op.ctime);
  // chown(2) with neither owner nor group: a new ctime is all of it.
  if (op.killPriv && inode.change === before) batch.touch(inode);
  // One call is one change, whatever it was made of.
  if (inode.change > before) inode.change = before + (op.changes ?? 1);
  return attrReply(inode);
}

/** A new owner takes the file over with all that it counts. @throws HoldfastError EDQUOT */
function admitOwner({ quotas, acknowledged }: Batch, inode: Inode, { uid, gid }: SetAttr): void {
  if (quotas.size === 0 || acknowledged || (uid === undefined && gid === undefined)) return;
  const to = { project: inode.project, uid: uid ?? inode.uid, gid: gid ?? inode.gid };
  quotas.admit(to, inode, inode.allocated, 1);
}

/** What can be said of attributes that go with the making of an inode. @throws HoldfastError EINVAL */
export function checkSetOfNew(type: number, op: SetAttr): void {
  if (type !== S_IFREG || op.size !== undefined || op.killPriv) throw new HoldfastError('EINVAL');
  for (const time of [op.atime, op.mtime, op.ctime]) checkTime(time);
}

function checkSetAttr(inode: Inode, op: SetAttr): void {
  for (const time of [op.atime, op.mtime, op.ctime]) checkTime(time);
  if (op.mode !== undefined && (inode.mode & S_IFMT) === S_IFLNK) throw new HoldfastError('EOPNOTSUPP');
  if (op.size === undefined) return;
  if (isDirectory(inode)) throw new HoldfastError('EISDIR');
  if (!isRegular(inode)) throw new HoldfastError('EINVAL');
  if (op.size > FILE_SIZE_MAX_BYTES) throw new HoldfastError('EFBIG');
  if (cuts(inode, op.size)) checkTruncates(inode);
}

/** @throws HoldfastError EINVAL */
export function checkTime(time: Time | undefined): void {
  if (time && time.nsec >= NSEC_PER_SEC) throw new HoldfastError('EINVAL');
}

/** Whether a new size takes anything away; the old one gives back what is reserved behind it, as on ext4. */
function cuts(inode: Inode, size: number): boolean {
  return size < inode.size || (size === inode.size && reservesBehindEnd(inode));
}

/** Cutting a file needs a number: data behind the cut may lie on the chunkservers, and must never come back. */
function resize(batch: Batch, inode: Inode, size: number): void {
  if (cuts(inode, size)) {
    addTruncate(batch, inode, size);
    const left = Math.ceil(size / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES;
    batch.setAllocated(inode, Math.min(inode.allocated, left));
  }
  inode.size = size;
  batch.touch(inode, true);
  if (inode.nlink === 0) growOrphan(batch, inode);
}

/** Said before space is reserved behind the end: whoever does that may die, and a cut or the deletion must still find it. */
function reserveBehindEnd(batch: Batch, inode: Inode): void {
  if (!isRegular(inode)) throw new HoldfastError('EINVAL');
  if (reservesBehindEnd(inode)) return;
  inode.flags |= FLAG_EOF_BLOCKS;
  batch.touch(inode);
  if (inode.nlink === 0) growOrphan(batch, inode);
}

/** Reports data that has reached the chunkservers. */
export function commitWrite(batch: Batch, op: CommitWrite): MutationReply {
  const inode = batch.inode(op.ino);
  checkCommit(inode.mode & S_IFMT, op);
  if (op.truncateSeq > inode.truncateSeq) throw new HoldfastError('EINVAL');
  if (op.killPriv) killPrivileges(batch, inode);
  // Data written before a truncate that the writer did not know of was cut off: it must not bring back the old length.
  if (op.truncateSeq === inode.truncateSeq && op.newSize > inode.size) {
    inode.size = op.newSize;
    if (inode.nlink === 0) growOrphan(batch, inode);
  }
  const allocated = Math.min(FILE_SIZE_MAX_BYTES, Math.max(0, inode.allocated + op.allocatedDelta));
  batch.setAllocated(inode, allocated);
  const before = inode.ctime;
  batch.touch(inode, true);
  if (op.mtime) inode.mtime = op.mtime;
  // The writer has shown this ctime already; another change made meanwhile must not be hidden by it.
  if (op.ctime) inode.ctime = laterTime(before, op.ctime);
  return attrReply(inode);
}

/** Access times move forward alone, and do not count as a change. */
export function setAtimes(batch: Batch, op: SetAtimes): MutationReply {
  for (const { ino, atime } of op.atimes) {
    const inode = batch.find(ino);
    if (!inode || !atime || atime.nsec >= NSEC_PER_SEC || inode.flags & FLAG_NOATIME) continue;
    inode.atime = laterTime(inode.atime, atime);
    batch.keep(inode);
  }
  return okReply();
}

/** What can be said without the inode. @throws HoldfastError EISDIR, EINVAL, EFBIG */
export function checkCommit(type: number, op: CommitWrite): void {
  if (type !== S_IFREG) throw new HoldfastError(type === S_IFDIR ? 'EISDIR' : 'EINVAL');
  if (op.newSize > FILE_SIZE_MAX_BYTES) throw new HoldfastError('EFBIG');
  checkTime(op.mtime);
  checkTime(op.ctime);
}

/**
 * What chown, truncate and write take from a file: setuid, setgid where the group may execute (without that bit it means
 * mandatory locking) or the caller is outside the group, and file capabilities.
 */
function killPrivileges(batch: Batch, inode: Inode, outsider = false): void {
  if (isDirectory(inode)) return;
  let mode = inode.mode & ~S_ISUID;
  if (mode & S_IXGRP || outsider) mode &= ~S_ISGID;
  if (mode !== inode.mode) {
    inode.mode = mode;
    batch.touch(inode);
  }
  dropCapability(batch, inode);
}
