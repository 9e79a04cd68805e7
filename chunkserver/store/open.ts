import { randomUUID } from 'node:crypto';
import path from 'node:path';
import type { Clock } from '../../common/clock.js';
import { crc32c } from '../../common/crc32c.js';
import { lockDirectory } from '../../common/dir-lock.js';
import { type Disk, nodeDisk } from '../../common/disk.js';
import { cutAtFailure, writeFailureMark } from '../../common/failure-mark.js';
import type { Logger } from '../../common/logger.js';
import {
  DEFAULT_SEGMENT_BYTES,
  LogCorruptError,
  type Position,
  SegmentLog,
} from '../../common/segment-log.js';
import { appendBlockCrcs, blockCrcs } from '../../proto/block-crc.js';
import { ChunkIndex } from './chunk-index.js';
import type { ChunkKey, ChunkStore } from './chunk-store.js';
import { Compactor } from './compactor.js';
import { ExtentReader } from './extent-reader.js';
import { newExtent } from './extents.js';
import { openFormat, writeFormat } from './format-file.js';
import type { IndexDb } from './index-db.js';
import { LmdbIndexDb } from './lmdb-index.js';
import { LogChunkStore } from './log-chunk-store.js';
import { COMPACTION_QUIET_MS, Maintenance } from './maintenance.js';
import { encodeMeta, META_BYTES, RecordType, STORE_LOG_KIND, STORE_LOG_VERSION } from './records.js';
import { replayRecord } from './replay.js';
import { SpaceMeter } from './space.js';

/** Background rewriting of mostly dead segments; without limit while space is short. */
const DEFAULT_COMPACTION_BYTES_PER_SECOND = 64 * 1024 * 1024;

/**
 * What waits for the disk is what requests under way brought, so that each connection bounds it: it takes many peers to reach
 * this, each of which thinks that this server has room. Beyond it the server cannot go on.
 */
const MAX_BACKLOG_BYTES = 1024 * 1024 * 1024;

export interface ChunkStoreOptions {
  /** Holds format.json, lock, log/ and index/; made when it is missing. */
  dir: string;
  clock: Clock;
  logger: Logger;
  /** The log may take at most so many bytes; default: what the disk has. */
  capacityLimitBytes?: number;
  /** Default 64 MiB. */
  segmentBytes?: number;
  /** Default 64 MiB/s. */
  compactionBytesPerSecond?: number;
  /** Segments are rewritten when the store was not used for so long; 0: beside operations. Default 10 s. */
  compactionQuietMs?: number;
  /** Told once when the store can no longer write; its calls fail with EIO from then on. Restart is the only way out. */
  onFailure?: (error: unknown) => void;
  /** For tests: another disk, with another index and without the lock. */
  disk?: Disk;
  openIndex?: (dir: string) => IndexDb;
  lock?: (dir: string) => Promise<() => Promise<void>>;
  newUuid?: () => string;
}

/**
 * Opens the store in a directory, or makes one, and replays what the index has not seen.
 * @throws DirectoryLockedError; HoldfastError VERSION or EINVAL for a directory of another format; LogCorruptError,
 * LogFormatError for a damaged or foreign log; the disk's error
 */
export async function openChunkStore(options: ChunkStoreOptions): Promise<ChunkStore> {
  const { dir, disk = nodeDisk, newUuid = randomUUID } = options;
  await disk.mkdir(dir);
  const unlock = await (options.lock ?? lockDirectory)(dir);
  let db: IndexDb | undefined;
  try {
    const format = await openFormat(disk, dir, newUuid);
    const logDir = path.join(dir, 'log');
    await disk.mkdir(logDir);
    const cut = await cutAtFailure(disk, dir, logDir);
    if (cut !== undefined) {
      options.logger.warn(
        { bytes: cut },
        'what was written behind the last good sync before the disk failed was cut off',
      );
    }
    const indexDir = path.join(dir, 'index');
    db = (options.openIndex ?? ((at: string) => new LmdbIndexDb(at)))(indexDir);
    const index = new ChunkIndex(db, format.uuid);
    const { logger, segmentBytes } = options;
    let marked: Promise<void> | undefined;
    const onFailure = (durable: Position): void => {
      marked = writeFailureMark(disk, dir, durable).catch((error: unknown) => {
        logger.error({ err: error }, 'the failure of the disk could not be noted');
      });
    };
    const log = await openLog(disk, logDir, format.uuid, index, { segmentBytes, onFailure });
    const opened = db;
    return await assemble(options, log, index, {
      diskUuid: format.uuid,
      clusterId: format.clusterId,
      saveClusterId: (clusterId) => writeFormat(disk, dir, { ...format, clusterId }),
      release: async () => {
        await marked;
        await opened.close();
        await unlock();
      },
    });
  } catch (error) {
    await db?.close();
    await unlock();
    throw error;
  }
}

async function openLog(
  disk: Disk,
  dir: string,
  uuid: string,
  index: ChunkIndex,
  options: { segmentBytes?: number; onFailure(durable: Position): void },
): Promise<SegmentLog> {
  const { segmentBytes = DEFAULT_SEGMENT_BYTES, onFailure } = options;
  const log = await SegmentLog.open({
    disk,
    dir,
    kind: STORE_LOG_KIND,
    formatVersion: STORE_LOG_VERSION,
    segmentBytes,
    uuid,
    from: index.replayFrom,
    maxPendingBytes: MAX_BACKLOG_BYTES,
    onFailure,
    onRecord: (position, type, payload) => replayRecord(index, position, type, payload),
  });
  // Without an index the log must be whole; compaction and deletes do not survive the loss of their records.
  const whole = log.segments.every((segment, i) => segment === i + 1);
  if (!index.replayFrom && !whole) {
    await log.close();
    throw new LogCorruptError(dir, 0, 'the index is lost and the log is not complete');
  }
  return log;
}

async function assemble(
  options: ChunkStoreOptions,
  log: SegmentLog,
  index: ChunkIndex,
  identity: {
    diskUuid: string;
    clusterId: string;
    saveClusterId: (clusterId: string) => Promise<void>;
    release: () => Promise<void>;
  },
): Promise<ChunkStore> {
  const { dir, clock, logger, disk = nodeDisk, segmentBytes = DEFAULT_SEGMENT_BYTES } = options;
  if (log.tornBytes > 0) logger.warn({ bytes: log.tornBytes }, 'torn tail of the chunk log was cut off');
  const reader = new ExtentReader(log);
  const limit = options.capacityLimitBytes ?? Number.POSITIVE_INFINITY;
  const bytes = { pending: () => log.pendingBytes, reserved: () => index.reservedBytes };
  const space = new SpaceMeter(disk, dir, segmentBytes, limit, clock, bytes);
  await space.start(log.segments.reduce((sum, segment) => sum + log.sizeOf(segment), 0));
  const move = (pg: number, key: ChunkKey, offset: number, data: Buffer): void => {
    const meta = encodeMeta({ pg, ino: key.ino, chunk: key.chunk, offset });
    const crcs = blockCrcs(offset, data);
    const crc = appendBlockCrcs(crc32c(meta), offset, data.length, crcs);
    const position = log.append(RecordType.MOVE, [meta, data], crc);
    space.appended(SegmentLog.recordBytes(META_BYTES + data.length));
    const place = SegmentLog.payloadOffset(position) + META_BYTES;
    const extent = newExtent(offset, data.length, position.segment, place, crcs);
    index.applyWrite(pg, key, extent, undefined);
    maintenance.afterAppend(false);
  };
  const bytesPerSecond = options.compactionBytesPerSecond ?? DEFAULT_COMPACTION_BYTES_PER_SECOND;
  const compactor = new Compactor({ log, index, reader, space, clock, logger, bytesPerSecond, move });
  const onFailure = options.onFailure ?? (() => undefined);
  const quietMs = options.compactionQuietMs ?? COMPACTION_QUIET_MS;
  const parts = { log, index, reader, space, compactor, quietMs, clock, logger, onFailure };
  const maintenance = new Maintenance(parts);
  return new LogChunkStore({ log, index, reader, space, maintenance, logger, ...identity });
}
