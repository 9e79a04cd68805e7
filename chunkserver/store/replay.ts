import { LogFormatError, type Position, SegmentLog } from '../../common/segment-log.js';
import { blockCount, blockCrcs } from '../../proto/block-crc.js';
import { runCrcs, tableBytes, unpackTable } from '../../proto/extent-table.js';
import type { DataRange } from '../../proto/extents.js';
import type { ChunkIndex } from './chunk-index.js';
import { type Extent, lostExtent, newExtent, replaceRange } from './extents.js';
import {
  decodeMeta,
  decodeRanges,
  EXTENT_ENTRY_BYTES,
  META_BYTES,
  type RecordMeta,
  RecordType,
} from './records.js';
import { coverage, reserveGaps } from './reserved.js';

/** Extents of an INSTALL record whose data lies one after the other behind meta and table. */
export function installExtents(
  position: Position,
  table: readonly DataRange[],
  crcs: readonly Uint32Array[],
): Extent[] {
  let place = SegmentLog.payloadOffset(position) + META_BYTES + table.length * EXTENT_ENTRY_BYTES;
  return table.map(({ start, end }, i) => {
    const extent = newExtent(start, end - start, position.segment, place, crcs[i] as Uint32Array);
    place += end - start;
    return extent;
  });
}

/** Ranges that are lost, over what there is otherwise, and space kept in what is left of the reserved runs. */
export function withPlaceless(
  extents: readonly Extent[],
  lost: readonly DataRange[],
  reserved: readonly DataRange[],
): Extent[] {
  let all = extents;
  for (const { start, end } of lost) all = replaceRange(all, start, end, lostExtent(start, end), () => {});
  for (const { start, end } of reserved) all = reserveGaps(all, start, end, () => {});
  return [...all];
}

/** By how much a copy of a chunk reserves more than what it replaces; at least 0. @param data, lost, reserved of the copy */
export function moreReserved(
  before: readonly Extent[],
  data: readonly DataRange[],
  lost: readonly DataRange[],
  reserved: readonly DataRange[],
): number {
  if (reserved.length === 0) return 0;
  const everywhere = [{ start: 0, end: Number.POSITIVE_INFINITY }];
  const taken = data.map(({ start, end }) => lostExtent(start, end));
  const after = withPlaceless(taken, lost, reserved);
  return Math.max(0, coverage(after, everywhere).reserved - coverage(before, everywhere).reserved);
}

/** Extents of a WRITE_EXTENTS record. */
export function runExtents(position: Position, runs: readonly DataRange[], crcs: Uint32Array): Extent[] {
  let place = SegmentLog.payloadOffset(position) + META_BYTES + tableBytes(runs.length);
  let used = 0;
  return runs.map(({ start, end }) => {
    const blocks = blockCount(start, end);
    const extent = newExtent(start, end - start, position.segment, place, crcs.subarray(used, used + blocks));
    place += end - start;
    used += blocks;
    return extent;
  });
}

/** Applies one record of the log to the index, just as the operation did that wrote it. */
export function replayRecord(index: ChunkIndex, position: Position, type: number, payload: Buffer): void {
  const meta = decodeMeta(payload);
  const { pg, ino, chunk, version } = meta;
  const key = { ino, chunk };
  switch (type as (typeof RecordType)[keyof typeof RecordType]) {
    case RecordType.WRITE:
    case RecordType.MOVE: {
      const move = type === RecordType.MOVE;
      const extent = dataExtent(meta, position, payload);
      if (extent) index.applyWrite(pg, key, extent, move ? undefined : version);
      if (!move) index.applied(pg, version);
      return;
    }
    case RecordType.WRITE_EXTENTS: {
      const data = payload.subarray(META_BYTES);
      const runs = unpackTable(data);
      index.applyWrites(pg, key, runExtents(position, runs, runCrcs(data, runs)), version);
      index.applied(pg, version);
      return;
    }
    case RecordType.PUNCH:
      index.applyPunch(pg, key, meta.offset, meta.offset + meta.count, version);
      index.applied(pg, version);
      return;
    case RecordType.RESERVE:
      index.applyReserve(pg, key, meta.offset, meta.offset + meta.count, version);
      index.applied(pg, version);
      return;
    case RecordType.TRUNCATE:
      index.applyTruncate(pg, ino, meta.from, meta.offset, version);
      index.raiseTruncateSeq(pg, ino, meta.truncateSeq);
      index.applied(pg, version);
      return;
    case RecordType.DELETE_INODE:
      index.applyDeleteInode(pg, ino, version);
      return;
    case RecordType.INSTALL:
      index.applyInstall(pg, key, { version, extents: replayInstall(meta, position, payload) });
      index.raiseTruncateSeq(pg, ino, meta.truncateSeq);
      return;
    case RecordType.REMOVE:
      index.applyInstall(pg, key, undefined);
      return;
    case RecordType.PG_STATE:
      index.setPgState(pg, { last: version, clean: meta.offset === 1 });
      return;
    case RecordType.DROP_PG:
      index.setPgState(pg, undefined);
      return;
    case RecordType.TRUNCATE_SEQ:
      index.setTruncateSeq(pg, ino, meta.truncateSeq);
      return;
    default:
      throw new LogFormatError(`record of unknown type ${type} at ${position.segment}:${position.offset}`);
  }
}

function dataExtent(meta: RecordMeta, position: Position, payload: Buffer): Extent | undefined {
  const data = payload.subarray(META_BYTES);
  if (data.length === 0) return undefined;
  const place = SegmentLog.payloadOffset(position) + META_BYTES;
  return newExtent(meta.offset, data.length, position.segment, place, blockCrcs(meta.offset, data));
}

function replayInstall(meta: RecordMeta, position: Position, payload: Buffer): Extent[] {
  const table = decodeRanges(payload, META_BYTES, meta.count);
  const crcs: Uint32Array[] = [];
  let dataAt = META_BYTES + meta.count * EXTENT_ENTRY_BYTES;
  for (const { start, end } of table) {
    crcs.push(blockCrcs(start, payload.subarray(dataAt, dataAt + end - start)));
    dataAt += end - start;
  }
  const lost = decodeRanges(payload, dataAt, meta.offset);
  const reserved = decodeRanges(payload, dataAt + lost.length * EXTENT_ENTRY_BYTES, meta.from);
  return withPlaceless(installExtents(position, table, crcs), lost, reserved);
}
