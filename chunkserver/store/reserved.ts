import type { DataRange } from '../../proto/extents.js';
import {
  type Extent,
  findExtent,
  isReserved,
  type OnLive,
  RESERVED_SEGMENT,
  replaceRanges,
  reservedExtent,
} from './extents.js';

/** What a chunk has of some range, in bytes. */
export interface Coverage {
  /** Written, or lost. */
  stored: number;
  /** Never written, with space kept for them. */
  reserved: number;
}

/** Has space kept for what of [start, end) takes none. Reserved neighbours become one extent. Returns the new extents. */
export function reserveGaps(
  extents: readonly Extent[],
  start: number,
  end: number,
  onLive: OnLive,
): readonly Extent[] {
  const gaps: Extent[] = [];
  let at = start;
  for (let i = findExtent(extents, start); i < extents.length && at < end; i++) {
    const extent = extents[i] as Extent;
    if (extent.start > at) gaps.push(reservedExtent(at, Math.min(extent.start, end)));
    at = extent.end;
  }
  if (at < end) gaps.push(reservedExtent(at, end));
  return gaps.length === 0 ? extents : joinReserved(replaceRanges(extents, gaps, onLive), onLive);
}

function joinReserved(extents: readonly Extent[], onLive: OnLive): readonly Extent[] {
  const joined: Extent[] = [];
  for (const extent of extents) {
    const last = joined.at(-1);
    if (last && isReserved(last) && isReserved(extent) && last.end === extent.start) {
      joined[joined.length - 1] = reservedExtent(last.start, extent.end);
      onLive(RESERVED_SEGMENT, 0, -1);
    } else joined.push(extent);
  }
  return joined;
}

/** What of the ranges, which ascend, takes space. */
export function coverage(extents: readonly Extent[], ranges: readonly DataRange[]): Coverage {
  const found = { stored: 0, reserved: 0 };
  for (const { start, end } of ranges) {
    for (let i = findExtent(extents, start); i < extents.length; i++) {
      const extent = extents[i] as Extent;
      if (extent.start >= end) break;
      const bytes = Math.min(extent.end, end) - Math.max(extent.start, start);
      if (isReserved(extent)) found.reserved += bytes;
      else found.stored += bytes;
    }
  }
  return found;
}

/**
 * Where space is kept, for a copy of the chunk: runs without a hole, together with what was written in them. Filling their
 * gaps (reserveGaps) in a chunk that has the same data makes it the same, and a file written here and there needs few of them.
 */
export function reservedRuns(extents: readonly Extent[]): DataRange[] {
  const runs: (DataRange & { reserves: boolean })[] = [];
  for (const extent of extents) {
    const { start, end } = extent;
    const last = runs.at(-1);
    if (last?.end === start) {
      last.end = end;
      last.reserves ||= isReserved(extent);
    } else runs.push({ start, end, reserves: isReserved(extent) });
  }
  return runs.filter(({ reserves }) => reserves).map(({ start, end }) => ({ start, end }));
}

/** Those that hold something to read. */
export function withoutReserved(extents: readonly Extent[]): readonly Extent[] {
  return extents.some(isReserved) ? extents.filter((extent) => !isReserved(extent)) : extents;
}
