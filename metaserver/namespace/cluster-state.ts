import { HoldfastError } from '../../proto/errors.js';
import { ClusterMap } from '../../proto/gen/cluster.js';
import { InitCluster } from '../../proto/gen/meta.js';
import { DEFAULT_CHUNK_SIZE_BYTES, DIRECTORY_SIZE_BYTES, ROOT_INO, S_IFDIR } from '../../proto/types.js';
import { applyMapCommand, createMap, type MapCommand } from '../cluster/map-commands.js';
import type { KvReader, KvTransaction } from '../store/kv.js';
import type { Batch } from './batch.js';
import { CLUSTER_KEY, MAP_KEY, RESTORING_KEY } from './keys.js';

const ROOT_MODE = S_IFDIR | 0o755;

/** The cluster's settings and its map, in memory as in the store. A map that was handed out never changes. */
export class ClusterState {
  private settings: InitCluster | undefined;
  private current: ClusterMap | undefined;

  constructor(kv: KvReader) {
    this.reload(kv);
  }

  /** Settings of InitCluster; undefined before it was applied. */
  init(): InitCluster | undefined {
    return this.settings;
  }

  /** Before InitCluster: an empty map of version 0. */
  map(): ClusterMap {
    return this.current ?? ClusterMap.create({});
  }

  chunkSize(): number {
    return this.current?.chunkSize || DEFAULT_CHUNK_SIZE_BYTES;
  }

  /** @throws HoldfastError UNAVAILABLE before InitCluster */
  require(): ClusterMap {
    if (!this.current) throw new HoldfastError('UNAVAILABLE', 'the cluster is not initialised yet');
    return this.current;
  }

  /**
   * Makes the cluster with its root directory; true unless it was made before.
   * @throws HoldfastError WRONG_CLUSTER when another one was
   */
  initialise(batch: Batch, op: InitCluster): boolean {
    if (this.settings) {
      if (this.settings.clusterId === op.clusterId) return false;
      throw new HoldfastError('WRONG_CLUSTER', `this is cluster ${this.settings.clusterId}`);
    }
    const map = createMap(op);
    this.settings = op;
    batch.txn.put(CLUSTER_KEY, Buffer.from(InitCluster.encode(op).finish()));
    this.put(batch.txn, map);
    const { time } = batch;
    batch.add({
      ino: ROOT_INO,
      generation: 1,
      mode: ROOT_MODE,
      nlink: 2,
      uid: op.rootUid,
      gid: op.rootGid,
      rdev: 0,
      size: DIRECTORY_SIZE_BYTES,
      allocated: 0,
      atime: time,
      mtime: time,
      ctime: time,
      chunkSize: 0,
      truncateSeq: 0,
      truncates: [],
      change: 1,
      parent: ROOT_INO,
      entries: 0,
      xattrBytes: 0,
      xattrKinds: 0,
      unnamed: false,
      project: 0,
      birth: time,
      flags: 0,
    });
    return true;
  }

  /** Takes over what the store holds now; a snapshot that has not arrived whole makes no cluster. */
  reload(kv: KvReader): void {
    if (kv.get(RESTORING_KEY)) return;
    const settings = kv.get(CLUSTER_KEY);
    const map = kv.get(MAP_KEY);
    this.settings = settings && InitCluster.decode(settings);
    this.current = map && ClusterMap.decode(map);
  }

  /** True when the command changed the map. */
  change({ txn, counters }: Batch, command: MapCommand): boolean {
    const before = this.require();
    // The root alone: no file's data can be missed, for a deleted one counts until its data is gone.
    const nothingStored = counters.inodes === 1;
    const after = applyMapCommand(before, command, { nothingStored });
    if (after === before) return false;
    this.put(txn, after);
    return true;
  }

  private put(txn: KvTransaction, map: ClusterMap): void {
    this.current = map;
    txn.put(MAP_KEY, Buffer.from(ClusterMap.encode(map).finish()));
  }
}
