import { rm } from 'node:fs/promises';
import path from 'node:path';
import { lockDirectory } from '../common/dir-lock.js';
import { nodeDisk } from '../common/disk.js';
import type { SnapshotBlock } from '../proto/gen/admin.js';
import type { RaftMember } from '../proto/gen/raft.js';
import { notedDamage } from './damage.js';
import { snapshotBlocks } from './fsck/snapshot-stream.js';
import { MetaStateMachine } from './namespace/state-machine.js';
import { isCommand } from './replica/applier.js';
import { memberIdOf, ReplicaFormatError, readFormat } from './replica/format.js';
import { LogStorage } from './replica/log-storage.js';
import { ReplicatedState } from './service/replicated-state.js';
import { LmdbKv } from './store/lmdb-kv.js';

const COPY_FILE = 'recover.mdb';
/** Entries applied to the copy in one transaction. */
const APPLY_BYTES = 1024 * 1024;

/** What one metaserver's disk knows, when the majority is gone. */
export interface SurvivingDisk {
  serverId: number;
  /** The last entry of its log. */
  index: number;
  term: number;
  /** Entries behind what it knew to be committed: some may never have been acknowledged to anybody. */
  uncertain: number;
  /** The other voters, as this disk knows them. */
  others: RaftMember[];
  voters: number;
  /** A snapshot of everything that the disk knows, uncertain entries included. @param savedSec seconds since 1970 */
  snapshot(savedSec: number): Generator<SnapshotBlock>;
  /** Leaves the directory as it was. */
  close(): Promise<void>;
}

/**
 * Opens the data directory of a metaserver that does not run, to save what it knows. The entries of its log are applied to a
 * copy of the state: the directory stays what it is, and the server can still be started on it.
 * @throws Error with one line for the operator: the server runs, the directory is damaged, or holds no metaserver
 */
export async function openSurvivingDisk(dataDir: string): Promise<SurvivingDisk> {
  const noted = notedDamage(dataDir);
  if (noted) throw new Error(`${dataDir} is damaged (${noted.reason}): use another metaserver's disk`);
  const format = await readFormat(nodeDisk, dataDir);
  if (!format) throw new ReplicaFormatError(`${dataDir} holds no data of a metaserver`);
  const opened: (() => Promise<void> | void)[] = [await lockDirectory(dataDir)];
  const close = async (): Promise<void> => {
    for (const each of opened.splice(0).reverse()) await each();
  };
  try {
    const state = await ReplicatedState.open(nodeDisk, dataDir);
    opened.push(() => state.close());
    const storage = await LogStorage.open({ disk: nodeDisk, dir: dataDir, format });
    opened.push(() => storage.close());
    await storage.recover(state.appliedIndex());
    const copy = path.join(dataDir, COPY_FILE);
    const removeCopy = async (): Promise<void> => {
      for (const file of [copy, `${copy}-lock`]) await rm(file, { force: true });
    };
    await removeCopy();
    opened.push(removeCopy);
    await state.backup(copy);
    const kv = LmdbKv.open(copy);
    opened.push(() => kv.close());
    await replay(storage, kv);
    const view = await kv.view();
    opened.push(() => view.close());
    const conf = storage.confAt(storage.lastIndex());
    const self = memberIdOf(format.diskUuid);
    const voting = new Set([...conf.voters, ...conf.votersOutgoing]);
    return {
      serverId: format.serverId,
      index: storage.lastIndex(),
      term: storage.term(storage.lastIndex()) ?? 0,
      uncertain: storage.lastIndex() - Math.max(storage.hardState.commit, state.appliedIndex()),
      others: conf.roster.filter(({ id }) => id !== self && voting.has(id)),
      voters: voting.size,
      snapshot: (savedSec) => snapshotBlocks(view, savedSec),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Applies what the log has and the copy has not. */
async function replay(storage: LogStorage, kv: LmdbKv): Promise<void> {
  const machine = new MetaStateMachine(kv);
  for (let from = machine.appliedIndex() + 1; from <= storage.lastIndex(); ) {
    const entries = storage.entries(from, storage.lastIndex() + 1, APPLY_BYTES) ?? [];
    const last = entries.at(-1);
    if (!last) throw new ReplicaFormatError(`entry ${from} is not in the log`);
    machine.apply(entries.filter(isCommand).map(({ index, data }) => ({ index, data })));
    await kv.behind();
    from = last.index + 1;
  }
}
