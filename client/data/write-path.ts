import type { Clock } from '../../common/clock.js';
import type { ChunkApi } from './api.js';
import { Flusher } from './flusher.js';
import type { DataLimits } from './limits.js';
import { SyncAhead, type SyncAheadDeps } from './sync-ahead.js';
import { UnsyncedTable } from './unsynced.js';

export interface WritePath {
  flusher: Flusher;
  unsynced: UnsyncedTable;
}

/** What all files of a mount write through: from dirty, over acknowledged, to synced. @param revive as in SyncAheadDeps */
export function newWritePath(
  clock: Clock,
  chunks: ChunkApi,
  limits: DataLimits,
  revive: SyncAheadDeps['revive'],
): WritePath {
  const unsynced = new UnsyncedTable(limits.unsyncedKeptBytesMax);
  const kept = new SyncAhead({
    ...{ table: unsynced, chunks, bytesMax: limits.unsyncedKeptBytesMax, revive },
    passed: () => flusher.resume(),
  });
  const flusher = new Flusher(clock, limits, kept);
  return { flusher, unsynced };
}
