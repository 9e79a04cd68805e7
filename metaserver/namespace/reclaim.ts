import { HoldfastError } from '../../proto/errors.js';
import type { ReclaimDone } from '../../proto/gen/meta.js';
import { FLAG_EOF_BLOCKS, reservesBehindEnd } from '../../proto/inode-flags.js';
import { FILE_SIZE_MAX_BYTES, MAX_PENDING_TRUNCATES } from '../../proto/types.js';
import type { KvReader } from '../store/kv.js';
import type { Batch } from './batch.js';
import type { Inode } from './inode-codec.js';
import { parseReclaimKey, reclaimKey, reclaimRange, reclaimRangeOf, WHOLE_INODE } from './keys.js';
import { decodeReclaim, encodeReclaim, type ReclaimRecord } from './records.js';

/** Items that one call of `listReclaims` returns at most. */
export const MAX_RECLAIM_ITEMS = 4096;

/** Data that waits to be removed from the chunkservers. */
export interface ReclaimItem extends ReclaimRecord {
  ino: number;
  /** 0: all data of an inode without names; else the number of the truncate. */
  truncateSeq: number;
}

/** Notes that a file has lost its last name. Its chunks may reach as far as it ever was long since the last reclaim. */
export function addOrphan(batch: Batch, inode: Inode): void {
  let size = reachOf(inode);
  const { start, end } = reclaimRangeOf(inode.ino);
  if (inode.truncates.length > 0) {
    for (const { value } of batch.txn.range(start, end)) size = Math.max(size, decodeReclaim(value).size);
  }
  batch.txn.put(
    reclaimKey(inode.ino, WHOLE_INODE),
    encodeReclaim({ from: 0, size, chunkSize: inode.chunkSize }),
  );
  batch.counters.orphans++;
}

/** The orphan gets a name after all. */
export function dropOrphan(batch: Batch, inode: Inode): void {
  batch.txn.delete(reclaimKey(inode.ino, WHOLE_INODE));
  batch.counters.orphans--;
}

/** Keeps the orphan record as long as the file is, when an open file without names grows. */
export function growOrphan(batch: Batch, inode: Inode): void {
  const key = reclaimKey(inode.ino, WHOLE_INODE);
  const bytes = batch.txn.get(key);
  if (!bytes) return;
  const record = decodeReclaim(bytes);
  const size = reachOf(inode);
  if (record.size < size) batch.txn.put(key, encodeReclaim({ ...record, size }));
}

/** Its chunks lie before it: where space may be reserved behind the end, all groups have to be asked. */
function reachOf(inode: Inode): number {
  return reservesBehindEnd(inode) ? FILE_SIZE_MAX_BYTES : inode.size;
}

/**
 * Numbers a cut of the file to `from`, not behind its end, and notes what the chunkservers have to drop: also what is reserved
 * behind the end.
 * @throws HoldfastError UNAVAILABLE while too many earlier ones are pending
 */
export function addTruncate(batch: Batch, inode: Inode, from: number): void {
  checkTruncates(inode);
  inode.truncateSeq++;
  inode.truncates = [...inode.truncates, { seq: inode.truncateSeq, from }];
  const record = { from, size: reachOf(inode), chunkSize: inode.chunkSize };
  inode.flags &= ~FLAG_EOF_BLOCKS;
  batch.txn.put(reclaimKey(inode.ino, inode.truncateSeq), encodeReclaim(record));
}

/** @throws HoldfastError UNAVAILABLE: too many truncates of the inode have not reached all chunkservers */
export function checkTruncates(inode: Inode): void {
  if (inode.truncates.length < MAX_PENDING_TRUNCATES) return;
  throw new HoldfastError('UNAVAILABLE', 'earlier truncates of this file are still being applied');
}

/** The chunkservers have dropped the data. A repeat, or one for what never was, changes nothing. */
export function reclaimDone(batch: Batch, op: ReclaimDone): void {
  const key = reclaimKey(op.ino, op.truncateSeq);
  if (!batch.txn.get(key)) return;
  const inode = batch.find(op.ino);
  if (!inode) {
    batch.txn.delete(key);
    return;
  }
  if (op.truncateSeq !== WHOLE_INODE) {
    batch.txn.delete(key);
    inode.truncates = inode.truncates.filter(({ seq }) => seq !== op.truncateSeq);
    batch.keep(inode);
    return;
  }
  const { start, end } = reclaimRangeOf(op.ino);
  for (const entry of [...batch.txn.range(start, end)]) batch.txn.delete(Buffer.from(entry.key));
  batch.counters.orphans--;
  batch.remove(inode);
}

/** What waits behind `after`, by (ino, truncate number). */
export function listReclaims(
  kv: KvReader,
  after: { ino: number; truncateSeq: number } | undefined,
  limit: number,
): ReclaimItem[] {
  const { start, end } = reclaimRange(after);
  const items: ReclaimItem[] = [];
  for (const { key, value } of kv.range(start, end, { limit: Math.min(limit, MAX_RECLAIM_ITEMS) })) {
    items.push({ ...parseReclaimKey(key), ...decodeReclaim(value) });
  }
  return items;
}
