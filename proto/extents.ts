import { HoldfastError } from './errors.js';

/** Bytes [start, end) of a chunk that hold data. */
export interface DataRange {
  start: number;
  end: number;
}

/** A chunk that has data, and where; ranges ascend and do not touch. */
export interface ChunkRanges {
  chunk: number;
  ranges: DataRange[];
}

/** What one answer tells at most: beyond it, the rest of the chunk counts as data. */
export const RANGES_MAX = 65_536;
const HEAD_BYTES = 4;
const RANGE_BYTES = 8;

/** Payload of a reply to EXTENTS, little-endian: u32 chunk, then u32 start and u32 end of each range; empty: no chunk. */
export function packRanges(found: ChunkRanges | undefined): Buffer {
  if (!found) return Buffer.alloc(0);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + found.ranges.length * RANGE_BYTES);
  bytes.writeUInt32LE(found.chunk, 0);
  for (const [index, { start, end }] of found.ranges.entries()) {
    bytes.writeUInt32LE(start, HEAD_BYTES + index * RANGE_BYTES);
    bytes.writeUInt32LE(end, HEAD_BYTES + index * RANGE_BYTES + 4);
  }
  return bytes;
}

/** @throws HoldfastError PROTOCOL */
export function unpackRanges(bytes: Buffer): ChunkRanges | undefined {
  if (bytes.length === 0) return undefined;
  if (bytes.length < HEAD_BYTES || (bytes.length - HEAD_BYTES) % RANGE_BYTES !== 0)
    throw new HoldfastError('PROTOCOL', 'malformed ranges of a chunk');
  const ranges: DataRange[] = [];
  for (let at = HEAD_BYTES; at < bytes.length; at += RANGE_BYTES)
    ranges.push({ start: bytes.readUInt32LE(at), end: bytes.readUInt32LE(at + 4) });
  return { chunk: bytes.readUInt32LE(0), ranges };
}

/** Joins what touches; at most RANGES_MAX, the last one then reaches to the end of all. */
export function joinRanges(extents: readonly DataRange[]): DataRange[] {
  const ranges: DataRange[] = [];
  for (const { start, end } of extents) {
    const last = ranges.at(-1);
    if (last && (last.end === start || ranges.length >= RANGES_MAX)) last.end = end;
    else ranges.push({ start, end });
  }
  return ranges;
}
