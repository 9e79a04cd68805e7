import { HoldfastError } from '../../proto/errors.js';
import type { MutationReply, SetFlags } from '../../proto/gen/meta.js';
import {
  FLAG_EOF_BLOCKS,
  GUARDING_FLAGS,
  isAppendOnly,
  isGuarded,
  isImmutable,
  KNOWN_FLAGS,
} from '../../proto/inode-flags.js';
import type { Batch } from './batch.js';
import { type Inode, isDirectory, isRegular } from './inode-codec.js';
import { checkSticky } from './names.js';
import { attrReply } from './replies.js';

/** chattr(1), ioctl_iflags(2), by the rules of ext4; like there it changes the ctime, whatever the flags were before. */
export function setFlags(batch: Batch, op: SetFlags): MutationReply {
  const inode = batch.inode(op.ino);
  const changed = (op.flags ^ inode.flags) & KNOWN_FLAGS;
  if (op.uid !== 0 && op.uid !== inode.uid) throw new HoldfastError('EPERM');
  if (op.uid !== 0 && changed & GUARDING_FLAGS) throw new HoldfastError('EPERM');
  if (op.flags & ~KNOWN_FLAGS) throw new HoldfastError('EOPNOTSUPP');
  if (!isRegular(inode) && !isDirectory(inode)) throw new HoldfastError('EOPNOTSUPP');
  if (changed && isImmutable(inode) && isImmutable(op)) throw new HoldfastError('EPERM');
  inode.flags = op.flags | (inode.flags & FLAG_EOF_BLOCKS);
  batch.touch(inode);
  return attrReply(inode);
}

// ---- what immutable and append-only forbid. The order among the checks of a call is that of Linux' fs/namei.c and fs/attr.c.

/** A name is about to be made in the directory. @throws HoldfastError EPERM */
export function checkMayGain(directory: Inode): void {
  if (isImmutable(directory)) throw new HoldfastError('EPERM');
}

/** A name of `victim` in the directory is about to go, or to stand for something else. @throws HoldfastError EPERM */
export function checkMayLose(directory: Inode, victim: Inode, uid: number): void {
  if (isGuarded(directory) || isGuarded(victim)) throw new HoldfastError('EPERM');
  checkSticky(directory, victim, uid);
}

/** It is about to get a further name, an attribute, or to lose one. @throws HoldfastError EPERM */
export function checkUnguarded(inode: Inode): void {
  if (isGuarded(inode)) throw new HoldfastError('EPERM');
}

/** A write may take an attribute from what it is appended to. @throws HoldfastError EPERM */
export function checkMayLoseXattr(inode: Inode, written: boolean): void {
  if (isAppendOnly(inode) && !isImmutable(inode) && written) return;
  checkUnguarded(inode);
}
