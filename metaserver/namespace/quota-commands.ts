import { HoldfastError } from '../../proto/errors.js';
import {
  type ChangeQuota,
  type MutationReply,
  type QuotaAmount,
  QuotaKind,
  type QuotaProgress,
  type ReserveQuota,
  type StepQuota,
} from '../../proto/gen/meta.js';
import type { KvReader } from '../store/kv.js';
import type { Batch } from './batch.js';
import { decodeInode, type Inode, isDirectory } from './inode-codec.js';
import {
  cookieRange,
  firstNumberOf,
  inodeKey,
  readU64,
  secondNumberOf,
  tableRange,
  treeWalkKey,
  writeU64,
} from './keys.js';
import { newQuota, type Quota, QuotaState } from './quota-records.js';
import { chargeOf, type Owner, QUOTAS_MAX } from './quota-table.js';
import { decodeCookieEntry } from './records.js';
import { okReply } from './replies.js';

/** Inodes of one step. */
export const QUOTA_STEP_INODES_MAX = 1024;

/**
 * Sets or ends a quota. A new one of a tree begins to be counted from its directory on; one of a user or group from the
 * first inode on. One tree at a time: what is below it must not be torn two ways.
 * @throws HoldfastError EBUSY, EINVAL, ENOENT, ENOTDIR, ENOSPC
 */
export function changeQuota(batch: Batch, op: ChangeQuota): QuotaProgress {
  batch.settle();
  if (op.remove) return removeQuota(batch, op);
  const { quotas } = batch;
  const existing = findQuota(batch, op);
  if (existing?.state === QuotaState.REMOVING) throw busy();
  if (!existing && !op.bytes && !op.inodes) throw new HoldfastError('EINVAL', 'a quota without a limit');
  const quota = existing ?? newQuotaOf(batch, op);
  quota.limitBytes = op.bytes ?? quota.limitBytes;
  quota.limitInodes = op.inodes ?? quota.limitInodes;
  quotas.changed(quota);
  return progressOf(quota);
}

function newQuotaOf(batch: Batch, op: ChangeQuota): Quota {
  const { quotas } = batch;
  if (quotas.size >= QUOTAS_MAX) throw new HoldfastError('ENOSPC', `more than ${QUOTAS_MAX} quotas`);
  if (op.kind !== QuotaKind.QUOTA_TREE) {
    const quota = newQuota(op.kind, op.id);
    quotas.add(quota);
    return quota;
  }
  const root = batch.directory(op.id);
  if (quotas.walking()) throw busy();
  // Numbers of inodes are given once, so those of trees among them too.
  const quota = newQuota(QuotaKind.QUOTA_TREE, batch.counters.nextIno++);
  quota.root = root.ino;
  quota.parent = root.project;
  quotas.add(quota);
  retag(batch, root, quota.id);
  return quota;
}

function removeQuota(batch: Batch, op: ChangeQuota): QuotaProgress {
  const { quotas } = batch;
  const quota = findQuota(batch, op);
  if (!quota) throw new HoldfastError('ENOENT', 'there is no such quota');
  if (quota.kind !== QuotaKind.QUOTA_TREE) {
    quotas.remove(quota);
    return { id: quota.id, done: quota.done, finished: true };
  }
  if (quotas.walking()) throw busy();
  const root = batch.inode(op.id);
  for (const tree of quotas.all())
    if (tree.kind === QuotaKind.QUOTA_TREE && tree.parent === quota.id) quotas.reparent(tree, quota.parent);
  quota.state = QuotaState.REMOVING;
  quota.done = 0;
  quotas.ended(quota);
  retag(batch, root, quota.parent);
  return progressOf(quota);
}

/** @throws HoldfastError ENOENT, ENOTDIR */
function findQuota(batch: Batch, op: ChangeQuota): Quota | undefined {
  const { quotas } = batch;
  if (op.kind !== QuotaKind.QUOTA_TREE) return quotas.get(op.kind, op.id);
  return quotas.rootedAt(batch.directory(op.id));
}

function busy(): HoldfastError {
  return new HoldfastError('EBUSY', 'the quota of a tree is being counted or removed: try again later');
}

function progressOf(quota: Quota): QuotaProgress {
  const { id, done, state } = quota;
  return { id, done, finished: state === QuotaState.ACTIVE || state === QuotaState.GONE };
}

/** Goes on with what changeQuota() began. */
export function stepQuota(batch: Batch, op: StepQuota): QuotaProgress {
  const quota = batch.quotas.get(op.kind, op.id);
  if (!quota) return { id: op.id, done: 0, finished: true };
  const most = Math.min(Math.max(1, op.max), QUOTA_STEP_INODES_MAX);
  if (quota.state === QuotaState.COUNTING || quota.state === QuotaState.REMOVING) {
    const finished =
      op.kind === QuotaKind.QUOTA_TREE ? stepTree(batch, quota, most) : stepOwner(batch, quota, most);
    if (finished) {
      // The inodes of this step still count as before.
      batch.chargeQuotas();
      finish(batch, quota);
    }
    batch.quotas.adjust(quota, 0, 0, 0);
  }
  return progressOf(quota);
}

function finish({ quotas }: Batch, quota: Quota): void {
  if (quota.state === QuotaState.COUNTING) {
    quota.state = QuotaState.ACTIVE;
    quotas.changed(quota);
    return;
  }
  quota.state = QuotaState.GONE;
  quotas.ended(quota);
}

/** Gives entries below the tree's directory to the tree, or to the one around it. @returns whether none is left */
function stepTree(batch: Batch, quota: Quota, most: number): boolean {
  const counting = quota.state === QuotaState.COUNTING;
  const [from, to] = counting ? [quota.parent, quota.id] : [quota.id, quota.parent];
  const { start, end } = tableRange('W');
  for (let left = most; left > 0; ) {
    const [row] = [...batch.txn.range(start, end, { limit: 1 })];
    if (!row) return true;
    const directory = firstNumberOf(row.key);
    const page = cookieRange(directory, readU64(row.value, 0));
    let cookie = 0;
    let count = 0;
    for (const { key, value } of [...batch.txn.range(page.start, page.end, { limit: left })]) {
      cookie = secondNumberOf(key);
      count++;
      const { ino } = decodeCookieEntry(value);
      const child = batch.find(ino);
      if (child) passOn(batch, child, from, to);
    }
    if (count < left) batch.txn.delete(treeWalkKey(directory));
    else putWalk(batch, directory, cookie);
    left -= Math.max(1, count);
    quota.done += count;
  }
  return false;
}

/** What belongs elsewhere already stays; of a tree within, only what is around it changes. */
function passOn(batch: Batch, child: Inode, from: number, to: number): void {
  const { quotas } = batch;
  if (child.project === from) {
    retag(batch, child, to);
    return;
  }
  const tree = quotas.rootedAt(child);
  if (tree?.parent === from && tree.id !== to) quotas.reparent(tree, to);
}

/** A directory's entries come later; those made in it from now on belong to the tree already. */
function retag(batch: Batch, inode: Inode, project: number): void {
  inode.project = project;
  inode.change++;
  batch.keep(inode);
  if (isDirectory(inode)) putWalk(batch, inode.ino, 0);
}

function putWalk({ txn }: Batch, directory: number, cookie: number): void {
  const value = Buffer.allocUnsafe(8);
  writeU64(value, 0, cookie);
  txn.put(treeWalkKey(directory), value);
}

/** Counts further inodes of a user or group, in the order of their numbers. @returns whether none is left */
function stepOwner(batch: Batch, quota: Quota, most: number): boolean {
  batch.settle();
  let count = 0;
  for (const { key, value } of batch.txn.range(inodeKey(quota.cursor), tableRange('I').end, {
    limit: most,
  })) {
    const ino = firstNumberOf(key);
    const { uid, gid, ...inode } = chargeOf(decodeInode(ino, value));
    const owner = quota.kind === QuotaKind.QUOTA_USER ? uid : gid;
    if (owner === quota.id) batch.quotas.adjust(quota, inode.bytes, 1, inode.orphan ? 1 : 0);
    quota.cursor = ino + 1;
    count++;
  }
  quota.done += count;
  return count < most;
}

/** A session sets aside what it is about to use, or gives it back. */
export function reserveQuota(batch: Batch, session: number, op: ReserveQuota): MutationReply {
  spend(batch, session, op.giveBack);
  const quota = batch.quotas.reserve(session, op.need, op.want);
  return { ...okReply(), quota };
}

/** Ends reservations: what the mutation takes counts instead. @returns what brings them back */
export function spend(batch: Batch, session: number, amounts: readonly QuotaAmount[]): () => void {
  const { quotas } = batch;
  const undo: (() => void)[] = [];
  for (const amount of amounts) {
    const quota = quotas.get(amount.kind, amount.id);
    if (!quota) continue;
    const taken = quotas.reservations.take(quota, session, amount);
    undo.push(() => quotas.reservations.add(quota, session, taken));
  }
  return () => {
    for (const one of undo) one();
  };
}

/**
 * Whether an inode may get a name in a directory, which may lie in another tree.
 * @param alone it has this name alone, and nothing below it: it can change trees by itself
 * @throws HoldfastError EXDEV, EDQUOT, UNAVAILABLE
 */
export function checkTreeChange(batch: Batch, inode: Inode, directory: Inode, alone: boolean): void {
  const { quotas } = batch;
  const outer = quotas.outer(inode);
  if (outer === directory.project) return;
  const walking = quotas.walking();
  const pair = walking && [walking.id, walking.parent];
  if (pair?.includes(outer) && pair.includes(directory.project))
    throw new HoldfastError('UNAVAILABLE', 'the quota of this tree is being counted');
  if (!alone) throw new HoldfastError('EXDEV');
  if (batch.acknowledged) return;
  const to: Owner = { ...inode, project: directory.project };
  quotas.admit(to, inode, inode.allocated, 1);
}

/** The inode has its only name in this directory now. */
export function followTree(batch: Batch, inode: Inode, directory: Inode): void {
  if (batch.quotas.outer(inode) !== directory.project) inode.project = directory.project;
}

/** The inodes that the next step of a tree looks at, at most `max`: nobody may believe what he knows of them then. */
export function nextInodes(kv: KvReader, max: number): number[] {
  const { start, end } = tableRange('W');
  const inos: number[] = [];
  let left = Math.min(max, QUOTA_STEP_INODES_MAX);
  for (const { key, value } of [...kv.range(start, end, { limit: left })]) {
    if (left <= 0) break;
    const page = cookieRange(firstNumberOf(key), readU64(value, 0));
    let count = 0;
    for (const entry of kv.range(page.start, page.end, { limit: left })) {
      inos.push(decodeCookieEntry(entry.value).ino);
      count++;
    }
    left -= Math.max(1, count);
  }
  return inos;
}
