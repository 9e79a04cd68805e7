import { assert } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import type { ClusterMap, Fence } from '../../proto/gen/cluster.js';
import type { CommandResult, InitCluster, ReadReply, ReadRequest } from '../../proto/gen/meta.js';
import { MAX_INO, ROOT_INO } from '../../proto/types.js';
import type { Kv } from '../store/kv.js';
import { applyEntry } from './apply.js';
import { Batch } from './batch.js';
import { ClusterState } from './cluster-state.js';
import { attrOf, type Inode } from './inode-codec.js';
import { COUNTERS_KEY, FORMAT_KEY, FORMAT_VERSION } from './keys.js';
import { withinQuota } from './quota-room.js';
import { QuotaTable } from './quota-table.js';
import { QuotaView } from './quota-view.js';
import { lookup, readDir, readInode, readLink } from './reads.js';
import { listReclaims, type ReclaimItem } from './reclaim.js';
import { type Counters, decodeCounters, encodeCounters, type Session } from './records.js';
import { isReservedFor } from './reserved.js';
import { SessionTable } from './sessions.js';
import { getXattr, listXattr } from './xattr.js';

/** Readdir cookies below are free for "." and ".." of whoever needs them. */
const FIRST_COOKIE = 16;

/** Bytes as a user sees them: already divided by the replication. */
export interface Capacity {
  totalBytes: number;
  freeBytes: number;
  availBytes: number;
}

export interface MetaStateMachineOptions {
  /** For StatFs; without it the sizes are 0. */
  capacity?: () => Capacity;
}

/**
 * The metadata service's replicated state machine on a Kv: the namespace, the sessions, and the cluster map. Synchronous
 * and deterministic: equal logs give equal stores, however they are cut into batches.
 */
export class MetaStateMachine {
  private readonly counters: Counters;
  private readonly sessionTable: SessionTable;
  private readonly cluster_: ClusterState;
  private readonly quotaTable: QuotaTable;
  /** What stopped this machine: its memory may differ from its store. */
  private failure: unknown;

  /** @throws HoldfastError VERSION when the store was written by another version */
  constructor(
    private readonly kv: Kv,
    private readonly options: MetaStateMachineOptions = {},
  ) {
    this.counters = loadCounters(kv);
    this.sessionTable = new SessionTable(kv);
    this.cluster_ = new ClusterState(kv);
    this.quotaTable = new QuotaTable(kv);
  }

  /**
   * Applies entries of the log in one transaction, with the last one's index inside it; empty data is a no-op.
   * A refused command is a result. Their indices rise, above `appliedIndex()`.
   * @throws when the store fails or an invariant does not hold: then this machine is of no further use
   */
  apply(entries: readonly { index: number; data: Buffer }[]): CommandResult[] {
    this.check();
    if (entries.length === 0) return [];
    try {
      return this.kv.transaction((txn) => {
        const batch = new Batch(txn, this.counters, () => this.cluster_.chunkSize(), this.quotaTable);
        const context = { batch, sessions: this.sessionTable, cluster: this.cluster_ };
        const results = entries.map(({ index, data }) => {
          assert(index > this.counters.applied, `entry ${index} after ${this.counters.applied}`);
          this.counters.applied = index;
          return applyEntry(context, data);
        });
        batch.flush();
        this.sessionTable.flush(txn);
        this.quotaTable.flush(txn);
        txn.put(COUNTERS_KEY, encodeCounters(this.counters));
        return results;
      });
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }

  /** Index of the last entry applied; 0: none. */
  appliedIndex(): number {
    return this.counters.applied;
  }

  /** Answers a read from what is applied now. @throws HoldfastError a POSIX error; UNAVAILABLE before InitCluster */
  read(request: ReadRequest): ReadReply {
    this.check();
    this.cluster_.require();
    const { op } = request;
    if (!op) throw new HoldfastError('PROTOCOL', 'read without an operation');
    switch (op.$case) {
      case 'lookup':
        return attrAnswer(lookup(this.kv, op.value));
      case 'getAttr':
      case 'open':
        return attrAnswer(readInode(this.kv, op.value.ino));
      case 'readDir':
        return answer({ $case: 'dir', value: readDir(this.kv, op.value) });
      case 'readLink':
        return answer({ $case: 'target', value: readLink(this.kv, op.value.ino) });
      case 'getXattr': {
        const inode = readInode(this.kv, op.value.ino);
        return answer({ $case: 'value', value: getXattr(this.kv, inode, op.value.name) });
      }
      case 'listXattr': {
        const names = listXattr(this.kv, readInode(this.kv, op.value.ino));
        return answer({ $case: 'names', value: { names } });
      }
      case 'statFs':
        return this.statFs(op.value.ino);
    }
  }

  /** The settings of InitCluster; undefined before it was applied. */
  cluster(): InitCluster | undefined {
    return this.cluster_.init();
  }

  /** The cluster map; empty, of version 0, before InitCluster. It is replaced, never changed. */
  map(): ClusterMap {
    return this.cluster_.map();
  }

  mapVersion(): number {
    return this.cluster_.map().version;
  }

  session(id: number): Readonly<Session> | undefined {
    return this.sessionTable.get(id);
  }

  sessions(): Readonly<Session>[] {
    return this.sessionTable.all();
  }

  /** Sessions that expired and are not known yet to be shut out everywhere. */
  fencing(): number[] {
    return this.sessionTable.fencing();
  }

  /** Which sessions chunkservers are to refuse, as of the last command applied. */
  fence(): Fence {
    const { applied, nextSession } = this.counters;
    const live = this.sessionTable.all().map(({ id }) => id);
    return { version: applied, upto: nextSession - 1, live };
  }

  /** Waiting deletes and truncates behind `after`, by (ino, truncateSeq), at most `limit`. */
  reclaims(after: { ino: number; truncateSeq: number } | undefined, limit: number): ReclaimItem[] {
    return listReclaims(this.kv, after, limit);
  }

  /** A session may yet make an inode of this number; so may anybody of one that was never given. */
  isReserved(ino: number): boolean {
    if (ino >= this.counters.nextIno) return true;
    return this.sessionTable.all().some(({ id }) => isReservedFor(this.kv, id, ino));
  }

  /** Inodes that exist (orphans included), orphans, and bytes stored for one copy. */
  usage(): { inodes: number; orphans: number; allocatedBytes: number } {
    const { inodes, orphans, allocated } = this.counters;
    return { inodes, orphans, allocatedBytes: allocated };
  }

  quotas(): QuotaView {
    return new QuotaView(this.kv, this.quotaTable);
  }

  private statFs(ino: number | undefined): ReadReply {
    const capacity = this.options.capacity?.() ?? { totalBytes: 0, freeBytes: 0, availBytes: 0 };
    const { inodes, nextIno } = this.counters;
    const value = { ...capacity, inodesUsed: inodes, inodesFree: MAX_INO - nextIno + 1 };
    const room = ino ? this.quotas().room(ino) : undefined;
    return answer({ $case: 'statFs', value: room ? withinQuota(value, room) : value });
  }

  private check(): void {
    if (this.failure !== undefined) throw this.failure;
  }
}

function attrAnswer(inode: Inode): ReadReply {
  return answer({ $case: 'attr', value: attrOf(inode) });
}

/** Without leases: those are the leader's to give. */
function answer(result: NonNullable<ReadReply['result']>): ReadReply {
  return { result, leases: [] };
}

/** Reads the counters, or writes the first ones into an empty store. */
function loadCounters(kv: Kv): Counters {
  const format = kv.get(FORMAT_KEY);
  if (format && format.readUInt32BE(0) !== FORMAT_VERSION) {
    const found = format.readUInt32BE(0);
    throw new HoldfastError(
      'VERSION',
      `the namespace has format ${found}, this server knows ${FORMAT_VERSION}`,
    );
  }
  const stored = kv.get(COUNTERS_KEY);
  if (format && stored) return decodeCounters(stored);
  const counters: Counters = {
    applied: 0,
    nextIno: ROOT_INO + 1,
    nextSession: 1,
    nextCookie: FIRST_COOKIE,
    inodes: 0,
    orphans: 0,
    allocated: 0,
  };
  kv.transaction((txn) => {
    const version = Buffer.alloc(4);
    version.writeUInt32BE(FORMAT_VERSION);
    txn.put(FORMAT_KEY, version);
    txn.put(COUNTERS_KEY, encodeCounters(counters));
  });
  return counters;
}
