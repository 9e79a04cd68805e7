import { pgOfChunk } from '../../proto/types.js';
import type { ReclaimItem } from './ports.js';

/**
 * The PGs that may hold what a reclaim removes: those of the chunks in [from, size), and of one chunk beyond, for data
 * may have been written whose size was never committed. Ascending, without repetition.
 */
export function pgsToPurge(item: ReclaimItem, pgCount: number): number[] {
  const first = Math.floor(item.from / item.chunkSize);
  const last = Math.max(first, Math.ceil(item.size / item.chunkSize));
  const chunks = Math.min(last - first + 1, pgCount);
  const pgs = Array.from({ length: chunks }, (_, i) => pgOfChunk(item.ino, first + i, pgCount));
  return pgs.sort((a, b) => a - b);
}
