import { assert } from '../../common/assert.js';
import { blockCeil, blockCount, blockFloor } from '../../proto/block-crc.js';
import type { Version } from './chunk-store.js';

/**
 * A run of a chunk's bytes and where in the log they lie. Immutable. Invariants: blockStart <= start < end <= blockEnd;
 * less than one block lies between each pair; one checksum for each block that [blockStart, blockEnd) touches.
 */
export interface Extent {
  /** Live bytes, as offsets in the chunk. */
  start: number;
  end: number;
  /** What must be read to verify the live bytes: whole blocks, as far as the record has them. */
  blockStart: number;
  blockEnd: number;
  segment: number;
  /** Offset in the segment of the byte at `blockStart`. */
  place: number;
  crcs: Uint32Array;
}

/** No segment has this number: bytes that lie there were lost with their place in the index, and any read of them fails. */
export const LOST_SEGMENT = 0;
/** Nor this: no byte was written there, but space is kept for each. They read as zeros. */
export const RESERVED_SEGMENT = 0xffff_ffff;
const UINT32_MAX = 0xffff_ffff;

export function isLost(extent: Extent): boolean {
  return extent.segment === LOST_SEGMENT;
}

export function isReserved(extent: Extent): boolean {
  return extent.segment === RESERVED_SEGMENT;
}

/** Bytes that are lost: reads of them fail until they are written over, or another replica's copy is installed. */
export function lostExtent(start: number, end: number): Extent {
  return placeless(start, end, LOST_SEGMENT);
}

/** Bytes for which space is kept. */
export function reservedExtent(start: number, end: number): Extent {
  return placeless(start, end, RESERVED_SEGMENT);
}

function placeless(start: number, end: number, segment: number): Extent {
  return { start, end, blockStart: 0, blockEnd: 0, segment, place: 0, crcs: new Uint32Array(0) };
}

/** One chunk in the index. Immutable; extents ascend and do not overlap. */
export interface ChunkState {
  version: Version;
  extents: readonly Extent[];
  /** Sum of the extents' live bytes. */
  bytes: number;
}

/**
 * A chunk of which the index has lost everything. Whatever it held, reads fail until another replica's copy is installed;
 * writes put sound bytes over the lost ones. Its version is older than any, until an operation touches it.
 */
export const LOST_CHUNK: ChunkState = {
  version: { epoch: 0, seq: 0 },
  extents: [lostExtent(0, UINT32_MAX)],
  bytes: 0,
};

/** The extent of freshly logged data. */
export function newExtent(
  start: number,
  length: number,
  segment: number,
  place: number,
  crcs: Uint32Array,
): Extent {
  const end = start + length;
  return { start, end, blockStart: start, blockEnd: end, segment, place, crcs };
}

/** The part of an extent that covers [start, end), which must lie within it and not be empty. */
export function sliceExtent(extent: Extent, start: number, end: number): Extent {
  assert(extent.start <= start && start < end && end <= extent.end, 'slice within the extent');
  if (start === extent.start && end === extent.end) return extent;
  if (isLost(extent) || isReserved(extent)) return { ...extent, start, end };
  const blockStart = Math.max(extent.blockStart, blockFloor(start));
  const blockEnd = Math.min(extent.blockEnd, blockCeil(end));
  const first = blockCount(extent.blockStart, blockStart);
  return {
    start,
    end,
    blockStart,
    blockEnd,
    segment: extent.segment,
    place: extent.place + (blockStart - extent.blockStart),
    crcs: extent.crcs.subarray(first, first + blockCount(blockStart, blockEnd)),
  };
}

/** True when both describe the same bytes in the log. */
export function sameExtent(a: Extent, b: Extent): boolean {
  return (
    a.segment === b.segment &&
    a.place === b.place &&
    a.start === b.start &&
    a.end === b.end &&
    a.blockStart === b.blockStart
  );
}

/** Index of the first extent that ends behind `offset`. */
export function findExtent(extents: readonly Extent[], offset: number): number {
  let low = 0;
  let high = extents.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((extents[middle] as Extent).end > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Told of the bytes and extents that a change adds to (positive) or takes from (negative) a segment. */
export type OnLive = (segment: number, bytes: number, extents: number) => void;

/** Tells of an extent that [start, end) is cut out of, which overlaps it. */
function tellCut(old: Extent, start: number, end: number, onLive: OnLive): void {
  const left = (old.start < start ? 1 : 0) + (old.end > end ? 1 : 0);
  onLive(old.segment, Math.max(old.start, start) - Math.min(old.end, end), left - 1);
}

/** Replaces [start, end) by `extent` (or by a hole). Returns the new extents. */
export function replaceRange(
  extents: readonly Extent[],
  start: number,
  end: number,
  extent: Extent | undefined,
  onLive: OnLive,
): readonly Extent[] {
  const first = findExtent(extents, start);
  const middle: Extent[] = [];
  let last = first;
  let tail: Extent | undefined;
  for (; last < extents.length; last++) {
    const old = extents[last] as Extent;
    if (old.start >= end) break;
    tellCut(old, start, end, onLive);
    if (old.start < start) middle.push(sliceExtent(old, old.start, start));
    if (old.end > end) tail = sliceExtent(old, end, old.end);
  }
  if (extent) {
    onLive(extent.segment, extent.end - extent.start, 1);
    middle.push(extent);
  }
  if (tail) middle.push(tail);
  if (first === extents.length) return extents.length === 0 ? middle : extents.concat(middle);
  return [...extents.slice(0, first), ...middle, ...extents.slice(last)];
}

/** replaceRange() for several extents, which ascend and do not overlap, in one pass. */
export function replaceRanges(
  extents: readonly Extent[],
  added: readonly Extent[],
  onLive: OnLive,
): readonly Extent[] {
  const first = findExtent(extents, (added[0] as Extent).start);
  const result = extents.slice(0, first);
  let next = first;
  let old = extents[next];
  for (const extent of added) {
    const { start, end } = extent;
    for (; old && old.end <= start; old = extents[++next]) result.push(old);
    for (; old && old.start < end; old = extents[++next]) {
      tellCut(old, start, end, onLive);
      if (old.start < start) result.push(sliceExtent(old, old.start, start));
      if (old.end <= end) continue;
      old = sliceExtent(old, end, old.end);
      break;
    }
    onLive(extent.segment, end - start, 1);
    result.push(extent);
  }
  for (; old; old = extents[++next]) result.push(old);
  return result;
}

/** Sum of live bytes, lost ones left off. */
export function coveredBytes(extents: readonly Extent[]): number {
  let bytes = 0;
  for (const extent of extents) if (!isLost(extent)) bytes += extent.end - extent.start;
  return bytes;
}

const HEAD_BYTES = 24;
const EXTENT_BYTES = 24;

/** The index's value (little-endian, on-disk format): head, extents, then the checksums of all extents. */
export function encodeChunkState(state: ChunkState): Buffer {
  let crcs = 0;
  for (const extent of state.extents) crcs += extent.crcs.length;
  const value = Buffer.allocUnsafe(HEAD_BYTES + state.extents.length * EXTENT_BYTES + crcs * 4);
  value.writeDoubleLE(state.version.epoch, 0);
  value.writeDoubleLE(state.version.seq, 8);
  value.writeUInt32LE(state.bytes, 16);
  value.writeUInt32LE(state.extents.length, 20);
  let at = HEAD_BYTES;
  let crcAt = HEAD_BYTES + state.extents.length * EXTENT_BYTES;
  for (const extent of state.extents) {
    value.writeUInt32LE(extent.start, at);
    value.writeUInt32LE(extent.end, at + 4);
    value.writeUInt32LE(extent.blockStart, at + 8);
    value.writeUInt32LE(extent.blockEnd, at + 12);
    value.writeUInt32LE(extent.segment, at + 16);
    value.writeUInt32LE(extent.place, at + 20);
    at += EXTENT_BYTES;
    for (let i = 0; i < extent.crcs.length; i++, crcAt += 4)
      value.writeUInt32LE(extent.crcs[i] as number, crcAt);
  }
  return value;
}

/** Copies all that it returns. */
export function decodeChunkState(value: Buffer): ChunkState {
  const { version, bytes } = decodeChunkHead(value);
  const count = value.readUInt32LE(20);
  let crcAt = HEAD_BYTES + count * EXTENT_BYTES;
  const crcs = new Uint32Array((value.length - crcAt) / 4);
  for (let i = 0; i < crcs.length; i++, crcAt += 4) crcs[i] = value.readUInt32LE(crcAt);
  const extents: Extent[] = [];
  let firstCrc = 0;
  for (let i = 0, at = HEAD_BYTES; i < count; i++, at += EXTENT_BYTES) {
    const blockStart = value.readUInt32LE(at + 8);
    const blockEnd = value.readUInt32LE(at + 12);
    const blocks = blockCount(blockStart, blockEnd);
    extents.push({
      start: value.readUInt32LE(at),
      end: value.readUInt32LE(at + 4),
      blockStart,
      blockEnd,
      segment: value.readUInt32LE(at + 16),
      place: value.readUInt32LE(at + 20),
      crcs: crcs.subarray(firstCrc, firstCrc + blocks),
    });
    firstCrc += blocks;
  }
  return { version, extents, bytes };
}

/** Version and size without the extents. */
export function decodeChunkHead(value: Buffer): { version: Version; bytes: number } {
  return {
    version: { epoch: value.readDoubleLE(0), seq: value.readDoubleLE(8) },
    bytes: value.readUInt32LE(16),
  };
}
