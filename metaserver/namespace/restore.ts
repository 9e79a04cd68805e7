import { HoldfastError } from '../../proto/errors.js';
import { ClusterMap } from '../../proto/gen/cluster.js';
import type { RestoreRecords } from '../../proto/gen/meta.js';
import { MAX_INO } from '../../proto/types.js';
import type { Batch } from './batch.js';
import type { ClusterState } from './cluster-state.js';
import { decodeInode, encodeInode, isRegular } from './inode-codec.js';
import {
  CLUSTER_KEY,
  firstNumberOf,
  MAP_KEY,
  RESTORING_KEY,
  readU64,
  type Tag,
  tableRange,
  tagOfKey,
  writeU64,
} from './keys.js';
import { decodeCounters } from './records.js';

/** What a snapshot holds: files, names, data to reclaim. Sessions, and what is theirs, end with the cluster that had them. */
export const SNAPSHOT_TABLES: readonly Tag[] = ['I', 'D', 'C', 'L', 'X', 'P', 'Q', 'W'];
export const SNAPSHOT_SINGLES: readonly Buffer[] = [CLUSTER_KEY, MAP_KEY];

/**
 * The chunkservers have gone on since the snapshot was taken. So that nothing they know of can be mistaken for something
 * new, all that is numbered goes on far behind what can have been given meanwhile.
 */
export const RESTORE_EPOCHS_SKIPPED = 2 ** 20;
export const RESTORE_TRUNCATES_SKIPPED = 2 ** 16;
export const RESTORE_INODES_SKIPPED = 2 ** 32;
export const RESTORE_SESSIONS_SKIPPED = 2 ** 20;

/**
 * Fills the store of metaservers that hold no cluster from a snapshot. Until its end there is no cluster.
 * @returns true at the end: there is a cluster map
 * @throws HoldfastError EEXIST when there is a cluster, EINVAL for foreign or missing records
 */
export function restoreRecords(batch: Batch, cluster: ClusterState, op: RestoreRecords): boolean {
  const { txn } = batch;
  if (cluster.init()) throw new HoldfastError('EEXIST', 'these metaservers hold a cluster already');
  if (op.begin) clear(batch);
  const counted = txn.get(RESTORING_KEY);
  if (!counted && !op.begin) throw new HoldfastError('EINVAL', 'no restore was begun');
  let count = counted && !op.begin ? readU64(counted, 0) : 0;
  for (const { key, value } of op.records) {
    const tag = tagOfKey(key);
    const known =
      (tag && SNAPSHOT_TABLES.includes(tag)) || SNAPSHOT_SINGLES.some((single) => single.equals(key));
    if (!known || !value) throw new HoldfastError('EINVAL', 'a record that no snapshot holds');
    txn.put(Buffer.from(key), tag === 'I' ? renumbered(firstNumberOf(key), value) : Buffer.from(value));
    count++;
  }
  if (!op.end) {
    const bytes = Buffer.alloc(8);
    writeU64(bytes, 0, count);
    txn.put(RESTORING_KEY, bytes);
    return false;
  }
  if (count !== op.count) throw new HoldfastError('EINVAL', `${count} records for ${op.count}`);
  finish(batch, cluster, op.counters);
  return true;
}

function clear(batch: Batch): void {
  const { txn } = batch;
  for (const tag of SNAPSHOT_TABLES) {
    const { start, end } = tableRange(tag);
    for (const { key } of [...txn.range(start, end)]) txn.delete(Buffer.from(key));
  }
  for (const key of [CLUSTER_KEY, MAP_KEY, RESTORING_KEY]) txn.delete(key);
  batch.settle();
}

function renumbered(ino: number, value: Buffer): Buffer {
  const inode = decodeInode(ino, value);
  if (!isRegular(inode)) return Buffer.from(value);
  return encodeInode({ ...inode, truncateSeq: inode.truncateSeq + RESTORE_TRUNCATES_SKIPPED });
}

function finish(batch: Batch, cluster: ClusterState, encodedCounters: Buffer): void {
  const { txn, counters } = batch;
  const map = txn.get(MAP_KEY);
  if (encodedCounters.length === 0 || !map || !txn.get(CLUSTER_KEY))
    throw new HoldfastError('EINVAL', 'the snapshot names no cluster');
  const { applied } = counters;
  Object.assign(counters, decodeCounters(encodedCounters), { applied });
  counters.nextIno = Math.min(MAX_INO, counters.nextIno + RESTORE_INODES_SKIPPED);
  counters.nextSession += RESTORE_SESSIONS_SKIPPED;
  const before = ClusterMap.decode(map);
  const pgs = before.pgs.map((pg) => {
    const epoch = pg.epoch + RESTORE_EPOCHS_SKIPPED;
    return { ...pg, epoch, interval: epoch };
  });
  const after = { ...before, version: before.version + RESTORE_EPOCHS_SKIPPED, pgs };
  txn.put(MAP_KEY, Buffer.from(ClusterMap.encode(after).finish()));
  txn.delete(RESTORING_KEY);
  cluster.reload(txn);
  batch.quotas.reload(txn);
}
