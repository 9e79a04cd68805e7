import { HoldfastError } from '../../proto/errors.js';
import type { SnapshotBlock } from '../../proto/gen/admin.js';
import { type InitCluster, InitCluster as InitClusterCodec, type RecordState } from '../../proto/gen/meta.js';
import { CLUSTER_KEY, COUNTERS_KEY, FORMAT_VERSION, tableRange } from '../namespace/keys.js';
import { decodeCounters } from '../namespace/records.js';
import { SNAPSHOT_SINGLES, SNAPSHOT_TABLES } from '../namespace/restore.js';
import type { KvReader } from '../store/kv.js';

/** Bytes of keys and values in one block: read in one turn of the event loop, and one command when it is restored. */
export const BLOCK_BYTES = 256 * 1024;
const BLOCK_RECORDS = 1024;

/**
 * The blocks of a snapshot, in order, of a view that stands still.
 * @throws HoldfastError UNAVAILABLE when there is no cluster, or the view was closed
 */
export function* snapshotBlocks(view: KvReader, savedSec: number): Generator<SnapshotBlock> {
  const settings = view.get(CLUSTER_KEY);
  const counters = view.get(COUNTERS_KEY);
  if (!settings || !counters) throw new HoldfastError('UNAVAILABLE', 'there is no cluster to save yet');
  const cluster: InitCluster = InitClusterCodec.decode(settings);
  const { inodes, applied } = decodeCounters(counters);
  const header = { format: FORMAT_VERSION, clusterId: cluster.clusterId, savedSec, inodes, index: applied };
  yield { body: { $case: 'header', value: header } };
  const singles = SNAPSHOT_SINGLES.map((key) => ({ key, value: copy(view.get(key)) }));
  let count = singles.length;
  yield { body: { $case: 'records', value: { records: singles } } };
  for (const tag of SNAPSHOT_TABLES) {
    let { start, end } = tableRange(tag);
    for (;;) {
      const records = readBlock(view, start, end);
      const last = records.at(-1);
      if (!last) break;
      count += records.length;
      yield { body: { $case: 'records', value: { records } } };
      start = Buffer.concat([last.key, Buffer.alloc(1)]);
    }
  }
  yield { body: { $case: 'end', value: { records: count, counters: copy(counters) as Buffer } } };
}

function readBlock(view: KvReader, start: Buffer, end: Buffer): RecordState[] {
  const records: RecordState[] = [];
  let bytes = 0;
  for (const { key, value } of view.range(start, end, { limit: BLOCK_RECORDS })) {
    records.push({ key: Buffer.from(key), value: Buffer.from(value) });
    bytes += key.length + value.length;
    if (bytes >= BLOCK_BYTES) break;
  }
  return records;
}

function copy(bytes: Buffer | undefined): Buffer | undefined {
  return bytes && Buffer.from(bytes);
}
