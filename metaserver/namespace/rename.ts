import { HoldfastError } from '../../proto/errors.js';
import { MakeNode, type MutationReply, type Rename } from '../../proto/gen/meta.js';
import {
  LINK_MAX,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  ROOT_INO,
  S_IFCHR,
} from '../../proto/types.js';
import type { Batch } from './batch.js';
import { checkMayGain, checkMayLose } from './flags.js';
import { type Inode, isDirectory } from './inode-codec.js';
import { checkName, checkTaken, dots } from './names.js';
import { checkTreeChange, followTree } from './quota-commands.js';
import type { Dentry } from './records.js';
import { okReply, placedAt, withParents } from './replies.js';
import { addNode, admitNew, dropDirectory, dropLink } from './tree.js';

/** One end of a rename: a name in a directory, and what it stands for. */
interface End {
  parent: Inode;
  name: Buffer;
  dentry: Dentry | undefined;
  inode: Inode | undefined;
}

type FullEnd = End & { dentry: Dentry; inode: Inode };

/** rename(2), renameat2(2). The order of the checks is that of Linux' do_renameat2 and vfs_rename. */
export function rename(batch: Batch, op: Rename): MutationReply {
  const exchange = (op.flags & RENAME_EXCHANGE) !== 0;
  const noReplace = (op.flags & RENAME_NOREPLACE) !== 0;
  const whiteout = (op.flags & RENAME_WHITEOUT) !== 0;
  const unknown = op.flags & ~(RENAME_EXCHANGE | RENAME_NOREPLACE | RENAME_WHITEOUT);
  if (unknown || (exchange && (noReplace || whiteout))) throw new HoldfastError('EINVAL');
  const from = endOf(batch, op.parent, op.name);
  const to = endOf(batch, op.newParent, op.newName);
  if (dots(op.name) || dots(op.newName)) throw new HoldfastError('EBUSY');
  if (!present(from)) throw new HoldfastError('ENOENT');
  if (noReplace && present(to)) throw new HoldfastError('EEXIST');
  if (exchange && !present(to)) throw new HoldfastError('ENOENT');
  checkTaken(op.replaced, to.dentry);
  checkCycles(batch, from, to, exchange);
  if (from.inode === to.inode) return okReply();

  checkMayLose(from.parent, from.inode, op.uid);
  if (present(to)) checkMayLose(to.parent, to.inode, op.uid);
  else checkMayGain(to.parent);
  const parents = from.parent === to.parent ? [from.parent] : [from.parent, to.parent];
  if (exchange && present(to)) {
    // Two at once: neither may leave its tree.
    checkTreeChange(batch, from.inode, to.parent, false);
    checkTreeChange(batch, to.inode, from.parent, false);
  }
  if (exchange && present(to)) return withParents(swap(batch, from, to), ...parents);
  if (present(to)) checkReplaceable(from.inode, to.inode);
  const gainsLink = isDirectory(from.inode) && from.parent !== to.parent && !to.inode;
  if (gainsLink && to.parent.nlink >= LINK_MAX) throw new HoldfastError('EMLINK');
  checkTreeChange(batch, from.inode, to.parent, isAlone(batch, from.inode));
  const mark = whiteout ? whiteoutOf(from, op) : undefined;
  if (mark && !batch.acknowledged) admitNew(batch, from.parent, mark);
  const reply = move(batch, from, to);
  if (mark) addNode(batch, from.parent, mark);
  return withParents(reply, ...parents);
}

function whiteoutOf({ parent, name }: End, { uid, gid }: Rename): MakeNode {
  const owner = { uid, gid: gid ?? uid };
  return MakeNode.fromPartial({ parent: parent.ino, name, mode: S_IFCHR, rdev: 0, ...owner });
}

function endOf(batch: Batch, parentIno: number, name: Buffer): End {
  const parent = batch.directory(parentIno);
  checkName(name);
  const dentry = batch.dentry(parent.ino, name);
  return { parent, name, dentry, inode: dentry && batch.inode(dentry.ino) };
}

function present(end: End): end is FullEnd {
  return end.inode !== undefined;
}

function checkReplaceable(source: Inode, target: Inode): void {
  if (isDirectory(source) && !isDirectory(target)) throw new HoldfastError('ENOTDIR');
  if (!isDirectory(source) && isDirectory(target)) throw new HoldfastError('EISDIR');
  if (isDirectory(target) && target.entries > 0) throw new HoldfastError('ENOTEMPTY');
}

/**
 * A directory must not move below itself: EINVAL. Nor may an ancestor be replaced (it is not empty: ENOTEMPTY) or be
 * exchanged (EINVAL). Within one directory neither can happen.
 */
function checkCycles(batch: Batch, from: FullEnd, to: End, exchange: boolean): void {
  if (from.parent === to.parent) return;
  if (isDirectory(from.inode) && isBelow(batch, to.parent, from.inode)) throw new HoldfastError('EINVAL');
  if (to.inode && isDirectory(to.inode) && isBelow(batch, from.parent, to.inode)) {
    throw new HoldfastError(exchange ? 'EINVAL' : 'ENOTEMPTY');
  }
}

/** Whether `directory` is `ancestor` or lies beneath it. Ends at the root, since the tree has no cycle. */
function isBelow(batch: Batch, directory: Inode, ancestor: Inode): boolean {
  let at = directory;
  while (at !== ancestor) {
    if (at.ino === ROOT_INO) return false;
    at = batch.directory(at.parent);
  }
  return true;
}

function isAlone({ quotas }: Batch, inode: Inode): boolean {
  return isDirectory(inode) ? inode.entries === 0 && !quotas.rootedAt(inode) : inode.nlink === 1;
}

function move(batch: Batch, from: FullEnd, to: End): MutationReply {
  if (present(to)) {
    batch.dropName(to.parent, to.name, to.dentry);
    to.parent.entries--;
    if (isDirectory(to.inode)) to.parent.nlink--;
  }
  // In its own directory the entry keeps its place: who renames while he reads it meets each entry once.
  const cookie = from.parent === to.parent ? from.dentry.cookie : undefined;
  batch.dropName(from.parent, from.name, from.dentry);
  const place = batch.putName(to.parent, to.name, from.inode.ino, from.inode.mode, cookie);
  from.parent.entries--;
  to.parent.entries++;
  reparent(from.inode, from.parent, to.parent);
  followTree(batch, from.inode, to.parent);
  batch.touch(from.inode);
  batch.touch(from.parent, true);
  if (to.parent !== from.parent) batch.touch(to.parent, true);
  if (!present(to)) return placedAt(okReply(), place);
  if (isDirectory(to.inode)) dropDirectory(batch, to.inode);
  else dropLink(batch, to.inode);
  return placedAt(okReply(to.inode), place);
}

function swap(batch: Batch, from: FullEnd, to: FullEnd): MutationReply {
  batch.putName(from.parent, from.name, to.inode.ino, to.inode.mode, from.dentry.cookie);
  batch.putName(to.parent, to.name, from.inode.ino, from.inode.mode, to.dentry.cookie);
  reparent(from.inode, from.parent, to.parent);
  reparent(to.inode, to.parent, from.parent);
  batch.touch(from.inode);
  batch.touch(to.inode);
  batch.touch(from.parent, true);
  if (to.parent !== from.parent) batch.touch(to.parent, true);
  return okReply();
}

/** A directory's ".." follows it, and counts as a link of its parent. */
function reparent(inode: Inode, from: Inode, to: Inode): void {
  if (!isDirectory(inode) || from === to) return;
  inode.parent = to.ino;
  from.nlink--;
  to.nlink++;
}
