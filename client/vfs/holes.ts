import { HoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import { BLOCK_SIZE_BYTES } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import type { FileData } from '../data/file-data.js';
import type { Interrupt } from '../wait.js';

/**
 * Holes of a file as lseek(2) tells them: whole blocks without a byte of data. What is dirty must have been flushed.
 * @throws HoldfastError ENXIO when no data follows; as ChunkApi.read()
 */
export async function seekData(
  chunks: ChunkApi,
  file: FileData,
  offset: number,
  signal: Interrupt,
): Promise<number> {
  const { chunkSize, size } = file;
  const last = Math.floor((size - 1) / chunkSize);
  for (let chunk = Math.floor(offset / chunkSize); chunk <= last; ) {
    const ranges = blockRanges(await chunks.ranges(file, chunk, signal), chunk * chunkSize);
    const range = ranges.find(({ end }) => end > offset);
    if (range && range.start < size) return Math.max(offset, range.start);
    const next = chunk < last ? await chunks.nextChunk(file, chunk + 1, last, signal) : undefined;
    if (next === undefined) break;
    chunk = next;
  }
  throw new HoldfastError('ENXIO', 'no data behind this offset');
}

/** The next hole; the end of the file is one. */
export async function seekHole(
  chunks: ChunkApi,
  file: FileData,
  offset: number,
  signal: Interrupt,
): Promise<number> {
  const { chunkSize, size } = file;
  let at = offset;
  while (at < size) {
    const chunk = Math.floor(at / chunkSize);
    const ranges = blockRanges(await chunks.ranges(file, chunk, signal), chunk * chunkSize);
    const range = ranges.find(({ start, end }) => start <= at && at < end);
    if (!range) return at;
    at = range.end;
    if (at < (chunk + 1) * chunkSize) break;
  }
  return Math.min(at, size);
}

/** Ranges of a chunk as ranges of the file, widened to whole blocks and joined. */
function blockRanges(ranges: readonly DataRange[], base: number): DataRange[] {
  const blocks: DataRange[] = [];
  for (const range of ranges) {
    const start = base + Math.floor(range.start / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES;
    const end = base + Math.ceil(range.end / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES;
    const last = blocks.at(-1);
    if (last && last.end >= start) last.end = Math.max(last.end, end);
    else blocks.push({ start, end });
  }
  return blocks;
}
