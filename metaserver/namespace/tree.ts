import { HoldfastError } from '../../proto/errors.js';
import type { Link, MakeNode, MutationReply, Unlink } from '../../proto/gen/meta.js';
import { inheritedFlags } from '../../proto/inode-flags.js';
import {
  DIRECTORY_SIZE_BYTES,
  LINK_MAX,
  MAX_INO,
  PERMISSION_BITS,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  S_ISGID,
  SYMLINK_MAX_BYTES,
  SYMLINK_MODE,
} from '../../proto/types.js';
import type { Batch } from './batch.js';
import { checkCommit, checkSetOfNew, commitWrite, setAttr } from './files.js';
import { checkMayGain, checkMayLose, checkUnguarded } from './flags.js';
import { type Inode, isDirectory, isRegular } from './inode-codec.js';
import { symlinkKey } from './keys.js';
import { checkName, checkTaken, dots } from './names.js';
import { checkTreeChange, followTree } from './quota-commands.js';
import { addOrphan, dropOrphan } from './reclaim.js';
import { attrReply, okReply, placedAt, withParents } from './replies.js';
import { claimReserved } from './reserved.js';
import { inheritAcls } from './xattr.js';

const KNOWN_TYPES = new Set([S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFLNK]);

/** mknod(2), mkdir(2), symlink(2), open(2) with O_CREAT. */
export function makeNode(batch: Batch, op: MakeNode, session: number): MutationReply {
  const type = op.mode & S_IFMT || S_IFREG;
  if (!KNOWN_TYPES.has(type)) throw new HoldfastError('EINVAL');
  const parent = batch.directory(op.parent);
  if (op.unnamed) return makeUnnamed(batch, parent, op, type);
  checkName(op.name);
  if (dots(op.name)) throw new HoldfastError(op.existingOk ? 'EISDIR' : 'EEXIST');
  const existing = batch.dentry(parent.ino, op.name);
  if (existing) {
    const inode = batch.inode(existing.ino);
    if (op.existingOk && type === S_IFREG && isRegular(inode)) return attrReply(inode);
    throw new HoldfastError(op.existingOk && isDirectory(inode) ? 'EISDIR' : 'EEXIST');
  }
  if (type === S_IFLNK) checkTarget(op.target);
  checkMayGain(parent);
  if (type === S_IFDIR && parent.nlink >= LINK_MAX) throw new HoldfastError('EMLINK');
  if (batch.counters.nextIno > MAX_INO) throw new HoldfastError('ENOSPC');

  if (op.written) checkCommit(type, op.written);
  if (op.set) checkSetOfNew(type, op.set);
  // Without the room that was taken for the making, a new owner might have none.
  if (op.set && !batch.acknowledged) throw new HoldfastError('EINVAL');
  if (!batch.acknowledged) admitNew(batch, parent, op);
  const useNumber = op.ino ? claimReserved(batch, session, op.ino) : undefined;

  const { inode, place } = addNode(batch, parent, op, useNumber);
  if (op.written) commitWrite(batch, { ...op.written, ino: inode.ino });
  if (op.set) setAttr(batch, { ...op.set, ino: inode.ino });
  return placedAt(withParents(attrReply(inode, true), parent), place);
}

/**
 * A new inode and its name, for which all has been checked.
 * @param useNumber takes the number that `op` names
 * @returns it, and its place in the directory
 */
export function addNode(
  batch: Batch,
  parent: Inode,
  op: MakeNode,
  useNumber?: () => void,
): { inode: Inode; place: number } {
  const type = op.mode & S_IFMT || S_IFREG;
  const inode = newInode(batch, parent, op, type);
  useNumber?.();
  batch.add(inode);
  inheritAcls(batch, parent, inode, op.askedMode ?? op.mode);
  const place = batch.putName(parent, op.name, inode.ino, inode.mode);
  if (type === S_IFLNK) batch.txn.put(symlinkKey(inode.ino), Buffer.from(op.target));
  parent.entries++;
  if (type === S_IFDIR) parent.nlink++;
  batch.touch(parent, true);
  return { inode, place };
}

/** open(2) with O_TMPFILE: an orphan from the start, which lives while it is open or until it gets a name. */
function makeUnnamed(batch: Batch, parent: Inode, op: MakeNode, type: number): MutationReply {
  if (type !== S_IFREG) throw new HoldfastError('EINVAL');
  checkMayGain(parent);
  if (batch.counters.nextIno > MAX_INO) throw new HoldfastError('ENOSPC');
  admitNew(batch, parent, op);
  const inode = newInode(batch, parent, op, type);
  inode.nlink = 0;
  inode.unnamed = true;
  batch.add(inode);
  inheritAcls(batch, parent, inode, op.askedMode ?? op.mode);
  addOrphan(batch, inode);
  return attrReply(inode, true);
}

/** @throws HoldfastError EDQUOT */
export function admitNew({ quotas }: Batch, parent: Inode, { uid, gid }: MakeNode): void {
  if (quotas.size === 0) return;
  const { project } = parent;
  quotas.admit({ project, uid, gid: parent.mode & S_ISGID ? parent.gid : gid }, undefined, 0, 1);
}

function checkTarget(target: Buffer): void {
  if (target.length === 0) throw new HoldfastError('ENOENT');
  if (target.length > SYMLINK_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
  if (target.includes(0)) throw new HoldfastError('EINVAL');
}

function newInode(batch: Batch, parent: Inode, op: MakeNode, type: number): Inode {
  const directory = type === S_IFDIR;
  const inherits = (parent.mode & S_ISGID) !== 0;
  const permissions = (op.mode & PERMISSION_BITS) | (directory && inherits ? S_ISGID : 0);
  return {
    ino: op.ino || batch.counters.nextIno++,
    generation: 1,
    mode: type === S_IFLNK ? SYMLINK_MODE : type | permissions,
    nlink: directory ? 2 : 1,
    uid: op.uid,
    gid: inherits ? parent.gid : op.gid,
    rdev: type === S_IFCHR || type === S_IFBLK ? op.rdev : 0,
    size: directory ? DIRECTORY_SIZE_BYTES : type === S_IFLNK ? op.target.length : 0,
    allocated: 0,
    atime: batch.time,
    mtime: batch.time,
    ctime: batch.time,
    birth: batch.time,
    chunkSize: type === S_IFREG ? batch.chunkSize() : 0,
    truncateSeq: 0,
    truncates: [],
    change: 1,
    parent: directory ? parent.ino : 0,
    entries: 0,
    xattrBytes: 0,
    xattrKinds: 0,
    unnamed: false,
    project: parent.project,
    flags: inheritedFlags(parent) ?? 0,
  };
}

/** link(2). A file that has lost its last name cannot get one again: ENOENT. */
export function link(batch: Batch, op: Link): MutationReply {
  const inode = batch.inode(op.ino);
  const parent = batch.directory(op.parent);
  checkName(op.name);
  if (dots(op.name) || batch.dentry(parent.ino, op.name)) throw new HoldfastError('EEXIST');
  checkMayGain(parent);
  checkUnguarded(inode);
  if (isDirectory(inode)) throw new HoldfastError('EPERM');
  if (inode.nlink === 0 && !inode.unnamed) throw new HoldfastError('ENOENT');
  if (inode.nlink >= LINK_MAX) throw new HoldfastError('EMLINK');
  checkTreeChange(batch, inode, parent, inode.unnamed);

  followTree(batch, inode, parent);
  if (inode.unnamed) dropOrphan(batch, inode);
  inode.unnamed = false;
  const place = batch.putName(parent, op.name, inode.ino, inode.mode);
  inode.nlink++;
  batch.touch(inode);
  parent.entries++;
  batch.touch(parent, true);
  return placedAt(withParents(attrReply(inode), parent), place);
}

/** unlink(2). EISDIR for a directory, as Linux has it (POSIX: EPERM). */
export function unlink(batch: Batch, op: Unlink): MutationReply {
  const parent = batch.directory(op.parent);
  checkName(op.name);
  if (dots(op.name)) throw new HoldfastError('EISDIR');
  const dentry = batch.dentry(parent.ino, op.name);
  if (!dentry) throw new HoldfastError('ENOENT');
  const inode = batch.inode(dentry.ino);
  checkMayLose(parent, inode, op.uid);
  if (isDirectory(inode)) throw new HoldfastError('EISDIR');

  batch.dropName(parent, op.name, dentry);
  parent.entries--;
  batch.touch(parent, true);
  dropLink(batch, inode);
  return withParents(okReply(inode), parent);
}

/** rmdir(2). */
export function rmdir(batch: Batch, op: Unlink): MutationReply {
  const parent = batch.directory(op.parent);
  checkName(op.name);
  if (dots(op.name)) throw new HoldfastError(dots(op.name) === 1 ? 'EINVAL' : 'ENOTEMPTY');
  const dentry = batch.dentry(parent.ino, op.name);
  if (!dentry) throw new HoldfastError('ENOENT');
  checkTaken(op.ino, dentry);
  const inode = batch.inode(dentry.ino);
  checkMayLose(parent, inode, op.uid);
  if (!isDirectory(inode)) throw new HoldfastError('ENOTDIR');
  if (inode.entries > 0) throw new HoldfastError('ENOTEMPTY');

  batch.dropName(parent, op.name, dentry);
  parent.entries--;
  parent.nlink--;
  batch.touch(parent, true);
  dropDirectory(batch, inode);
  return withParents(okReply(inode), parent);
}

/**
 * One name less for a non-directory. A regular file without names stays, as an orphan, until the leader knows that nobody
 * has it open and its data is gone; anything else goes with its last name.
 */
export function dropLink(batch: Batch, inode: Inode): void {
  inode.nlink--;
  batch.touch(inode);
  if (inode.nlink > 0) return;
  if (isRegular(inode)) addOrphan(batch, inode);
  else batch.remove(inode);
}

/** Removes an empty directory whose name is gone already. */
export function dropDirectory(batch: Batch, inode: Inode): void {
  inode.nlink = 0;
  batch.remove(inode);
}
