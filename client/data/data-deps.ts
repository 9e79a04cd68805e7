import type { Logger } from '../../common/logger.js';
import type { FileClock } from '../file-clock.js';
import type { QuotaBook } from '../quota/quota-book.js';
import type { ChunkApi, CommitApi } from './api.js';
import type { BlockCache } from './block-cache.js';
import type { Tenure } from './file-tail.js';
import type { Flusher } from './flusher.js';
import type { UnsyncedTable } from './unsynced.js';

/** What all files of a mount share. */
export interface DataDeps {
  clock: FileClock;
  log: Logger;
  chunks: ChunkApi;
  meta: CommitApi;
  flusher: Flusher;
  blocks: BlockCache;
  unsynced: UnsyncedTable;
  /** Nobody else can have written to the file since this mount did. */
  owns(ino: number): boolean;
  /** For as long as nobody else sees or changes the file, from now on. */
  tenure(ino: number): Tenure;
  /** Absent: nothing is limited. */
  quotas?: QuotaBook;
}
