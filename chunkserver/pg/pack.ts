import { HoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import type { ChunkContent, ChunkExtent, ChunkInfo } from '../store/chunk-store.js';

/**
 * Payloads of LIST and FETCH replies, little-endian. An inode number and a sequence number are 8 bytes: float64.
 *  - list of chunks: 32 bytes each: ino f64, chunk u32, version epoch u32, version seq f64, bytes u32, reserved u32
 *  - list of truncate numbers: 16 bytes each: ino f64, truncate seq u32, reserved u32
 *  - chunk: version epoch u32, extents u32, version seq f64, truncate seq u32, lost ranges u32, reserved runs u32; per extent
 *    offset u32 and length u32; the same per lost range and per reserved run; then the extents' data, one after the other
 */
const CHUNK_ENTRY_BYTES = 32;
const SEQ_ENTRY_BYTES = 16;
const CONTENT_HEAD_BYTES = 28;
const EXTENT_HEAD_BYTES = 8;
/** More are joined by zeros: reads cannot tell, and a frame has to hold them beside 4 MiB of data. */
export const PACKED_EXTENTS_MAX = 4096;

/** Chunks, in the order of LIST. */
export function packList(chunks: readonly ChunkInfo[]): Buffer {
  const packed = Buffer.alloc(chunks.length * CHUNK_ENTRY_BYTES);
  let at = 0;
  for (const { ino, chunk, version, bytes } of chunks) {
    packed.writeDoubleLE(ino, at);
    packed.writeUInt32LE(chunk, at + 8);
    packed.writeUInt32LE(version.epoch, at + 12);
    packed.writeDoubleLE(version.seq, at + 16);
    packed.writeUInt32LE(bytes, at + 24);
    at += CHUNK_ENTRY_BYTES;
  }
  return packed;
}

/** @throws HoldfastError PROTOCOL */
export function unpackList(packed: Buffer): ChunkInfo[] {
  if (packed.length % CHUNK_ENTRY_BYTES !== 0) throw new HoldfastError('PROTOCOL', 'list of chunks');
  const chunks: ChunkInfo[] = [];
  for (let at = 0; at < packed.length; at += CHUNK_ENTRY_BYTES) {
    chunks.push({
      ino: packed.readDoubleLE(at),
      chunk: packed.readUInt32LE(at + 8),
      version: { epoch: packed.readUInt32LE(at + 12), seq: packed.readDoubleLE(at + 16) },
      bytes: packed.readUInt32LE(at + 24),
    });
  }
  return chunks;
}

export interface TruncateSeqEntry {
  ino: number;
  truncateSeq: number;
}

/** As LIST answers with LIST_TRUNCATE_SEQS. */
export function packTruncateSeqs(entries: readonly TruncateSeqEntry[]): Buffer {
  const packed = Buffer.alloc(entries.length * SEQ_ENTRY_BYTES);
  entries.forEach(({ ino, truncateSeq }, index) => {
    packed.writeDoubleLE(ino, index * SEQ_ENTRY_BYTES);
    packed.writeUInt32LE(truncateSeq, index * SEQ_ENTRY_BYTES + 8);
  });
  return packed;
}

/** @throws HoldfastError PROTOCOL */
export function unpackTruncateSeqs(packed: Buffer): TruncateSeqEntry[] {
  if (packed.length % SEQ_ENTRY_BYTES !== 0) throw new HoldfastError('PROTOCOL', 'list of truncate numbers');
  const entries: TruncateSeqEntry[] = [];
  for (let at = 0; at < packed.length; at += SEQ_ENTRY_BYTES) {
    entries.push({ ino: packed.readDoubleLE(at), truncateSeq: packed.readUInt32LE(at + 8) });
  }
  return entries;
}

/** A chunk as parts to send; the extents' buffers are not copied. */
export function packContent(content: ChunkContent): Buffer[] {
  const extents = joinExtents(content.extents);
  const { lost = [] } = content;
  const reserved = joinRuns(content.reserved ?? []);
  const ranges = [...lost, ...reserved];
  const head = Buffer.alloc(CONTENT_HEAD_BYTES + (extents.length + ranges.length) * EXTENT_HEAD_BYTES);
  head.writeUInt32LE(content.version.epoch, 0);
  head.writeUInt32LE(extents.length, 4);
  head.writeDoubleLE(content.version.seq, 8);
  head.writeUInt32LE(content.truncateSeq, 16);
  head.writeUInt32LE(lost.length, 20);
  head.writeUInt32LE(reserved.length, 24);
  ranges.forEach(({ start, end }, index) => {
    const at = CONTENT_HEAD_BYTES + (extents.length + index) * EXTENT_HEAD_BYTES;
    head.writeUInt32LE(start, at);
    head.writeUInt32LE(end - start, at + 4);
  });
  const parts: Buffer[] = [head];
  extents.forEach((run, index) => {
    head.writeUInt32LE(run.offset, CONTENT_HEAD_BYTES + index * EXTENT_HEAD_BYTES);
    head.writeUInt32LE(run.length, CONTENT_HEAD_BYTES + index * EXTENT_HEAD_BYTES + 4);
    parts.push(...run.parts);
  });
  return parts;
}

/** @throws HoldfastError PROTOCOL */
export function unpackContent(packed: Buffer): ChunkContent {
  if (packed.length < CONTENT_HEAD_BYTES) throw new HoldfastError('PROTOCOL', 'chunk without a head');
  const count = packed.readUInt32LE(4);
  const lostCount = packed.readUInt32LE(20);
  const reservedCount = packed.readUInt32LE(24);
  let at = CONTENT_HEAD_BYTES + (count + lostCount + reservedCount) * EXTENT_HEAD_BYTES;
  if (packed.length < at) throw new HoldfastError('PROTOCOL', 'chunk with a short head');
  const extents: ChunkExtent[] = [];
  for (let i = 0; i < count; i++) {
    const offset = packed.readUInt32LE(CONTENT_HEAD_BYTES + i * EXTENT_HEAD_BYTES);
    const length = packed.readUInt32LE(CONTENT_HEAD_BYTES + i * EXTENT_HEAD_BYTES + 4);
    if (at + length > packed.length) throw new HoldfastError('PROTOCOL', 'chunk with short data');
    extents.push({ offset, data: packed.subarray(at, at + length) });
    at += length;
  }
  return {
    version: { epoch: packed.readUInt32LE(0), seq: packed.readDoubleLE(8) },
    extents,
    truncateSeq: packed.readUInt32LE(16),
    ...(lostCount > 0 ? { lost: unpackRanges(packed, count, lostCount) } : {}),
    ...(reservedCount > 0 ? { reserved: unpackRanges(packed, count + lostCount, reservedCount) } : {}),
  };
}

/** @param first so many entries stand before them */
function unpackRanges(packed: Buffer, first: number, count: number): DataRange[] {
  return Array.from({ length: count }, (_, index) => {
    const at = CONTENT_HEAD_BYTES + (first + index) * EXTENT_HEAD_BYTES;
    const start = packed.readUInt32LE(at);
    return { start, end: start + packed.readUInt32LE(at + 4) };
  });
}

interface Run {
  offset: number;
  length: number;
  parts: Buffer[];
}

/** Neighbours become one; with too many left, holes are filled with zeros, the smallest first by doubling the limit. */
function joinExtents(extents: readonly ChunkExtent[]): Run[] {
  for (let gap = 0; ; gap = Math.max(512, gap * 2)) {
    const runs: Run[] = [];
    for (const { offset, data } of extents) {
      const last = runs.at(-1);
      const hole = last ? offset - last.offset - last.length : 0;
      if (last && hole <= gap) {
        if (hole > 0) last.parts.push(Buffer.alloc(hole));
        last.parts.push(data);
        last.length += hole + data.length;
      } else runs.push({ offset, length: data.length, parts: [data] });
    }
    if (runs.length <= PACKED_EXTENTS_MAX) return runs;
  }
}

/** As joinExtents(): with too many, space is kept for holes too. */
function joinRuns(runs: readonly DataRange[]): DataRange[] {
  for (let gap = 0; ; gap = Math.max(512, gap * 2)) {
    const joined: DataRange[] = [];
    for (const { start, end } of runs) {
      const last = joined.at(-1);
      if (last && start - last.end <= gap) last.end = end;
      else joined.push({ start, end });
    }
    if (joined.length <= PACKED_EXTENTS_MAX) return joined;
  }
}
