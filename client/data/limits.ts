import { HoldfastError } from '../../proto/errors.js';

/** Memory and parallelism of one mount's data path. Every field can be set; sizes are bytes. */
export interface DataLimits {
  /** Written and not yet on the chunkservers, all files together; a writer that meets it waits. */
  dirtyBytesMax: number;
  /** The same for one file, so that it cannot starve the others. */
  fileDirtyBytesMax: number;
  /** Write frames on their way at a time. */
  flushFramesInFlightMax: number;
  flushBytesInFlightMax: number;
  /**
   * Acknowledged by the chunkservers and not yet synced, kept to be written again should all of them lose it. From a quarter of it on
   * the oldest is synced unasked.
   */
  unsyncedKeptBytesMax: number;
  /** Dirty data is written back at the latest after this time, ms. */
  dirtyAgeMs: number;
  /** Blocks kept and being read ahead. */
  blockCacheBytesMax: number;
  /** Read ahead of one sequential reader. */
  readAheadBytesMax: number;
  /** Reading ahead begins with the second sequential read, and not before so many bytes. */
  readAheadRunBytesMin: number;
}

const MIB = 1024 * 1024;

export const DEFAULT_DATA_LIMITS: DataLimits = {
  dirtyBytesMax: 128 * MIB,
  fileDirtyBytesMax: 64 * MIB,
  flushFramesInFlightMax: 32,
  flushBytesInFlightMax: 32 * MIB,
  unsyncedKeptBytesMax: 64 * MIB,
  dirtyAgeMs: 1_000,
  blockCacheBytesMax: 128 * MIB,
  readAheadBytesMax: 16 * MIB,
  readAheadRunBytesMin: 128 * 1024,
};

/** Data is gathered and sent in extents within slots of this size, or of the chunk when that is smaller. */
export const SLOT_BYTES_MAX = 1 * MIB;
/** Smaller extents of one chunk leave together, in one message, up to so many bytes and extents. */
export const GATHER_EXTENT_BYTES_MAX = 64 * 1024;
export const GATHERED_BYTES_MAX = 1 * MIB;
export const GATHERED_EXTENTS_MAX = 256;
/** The unit of read-ahead and of the block cache, or the chunk when that is smaller. */
export const READ_BLOCK_BYTES_MAX = 1 * MIB;

/** @throws HoldfastError EINVAL naming the limit that makes no sense */
export function dataLimits(set: Partial<DataLimits> = {}): DataLimits {
  const limits = { ...DEFAULT_DATA_LIMITS, ...set };
  for (const [name, value] of Object.entries(limits)) {
    if (!(Number.isFinite(value) && value > 0)) throw new HoldfastError('EINVAL', `limit ${name}: ${value}`);
  }
  if (limits.fileDirtyBytesMax > limits.dirtyBytesMax) {
    throw new HoldfastError('EINVAL', 'limit fileDirtyBytesMax is above dirtyBytesMax');
  }
  return limits;
}

/** The largest size up to `max` that divides a chunk. */
export function unitWithin(chunkSize: number, max: number): number {
  if (chunkSize <= max) return chunkSize;
  let unit = max;
  while (chunkSize % unit !== 0) unit--;
  return unit;
}
