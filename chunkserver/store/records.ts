import type { DataRange } from '../../proto/extents.js';
import type { Version } from './chunk-store.js';

/** Raised with every change of the records or of the index. Version 2: chunks may have reserved space. */
export const STORE_FORMAT_VERSION = 2;
/** Stores from this version on are opened, and are of the present one from then on. */
export const STORE_FORMAT_VERSION_MIN = 1;
/** What the log itself is made of: segments of stores of both versions are the same. */
export const STORE_LOG_VERSION = 1;
export const STORE_LOG_KIND = 'chunks';

/** Types of log records. On-disk format: numbers are never reused. */
export const RecordType = {
  WRITE: 1,
  TRUNCATE: 2,
  DELETE_INODE: 3,
  INSTALL: 4,
  REMOVE: 5,
  PG_STATE: 6,
  /** The same bytes as before at a new place (compaction). */
  MOVE: 7,
  DROP_PG: 8,
  TRUNCATE_SEQ: 9,
  /** `count` bytes at `offset` of the chunk are a hole. */
  PUNCH: 10,
  /** Several runs of a chunk: what follows the meta is as proto/extent-table.ts says. */
  WRITE_EXTENTS: 11,
  /** Space is kept for those of `count` bytes at `offset` of the chunk that take none. */
  RESERVE: 12,
} as const;

/**
 * What every record starts with; a field that a type does not need is 0. Little-endian:
 * u32 pg, u32 chunk, f64 ino, u32 offset, u32 count, f64 epoch, f64 seq, f64 a, f64 b.
 */
export interface RecordMeta {
  pg: number;
  ino: number;
  chunk: number;
  /**
   * WRITE, MOVE: bytes from the start of the chunk. TRUNCATE: chunk size. PG_STATE: 1 when clean. INSTALL: lost ranges, whose
   * table (u32 offset and u32 length each) stands behind the data.
   */
  offset: number;
  /** INSTALL: extents in the table behind the meta, u32 offset and u32 length each. */
  count: number;
  version: Version;
  /**
   * TRUNCATE: bytes of the file that stay. INSTALL: runs in which space is kept, whose table stands behind that of the lost
   * ranges.
   */
  from: number;
  truncateSeq: number;
}

export const META_BYTES = 56;
export const EXTENT_ENTRY_BYTES = 8;
const NO_VERSION: Version = { epoch: 0, seq: 0 };

/** What a record says of itself; what is left out is 0. */
export function encodeMeta(meta: Partial<RecordMeta> & { pg: number }): Buffer {
  const { version = NO_VERSION } = meta;
  const bytes = Buffer.allocUnsafe(META_BYTES);
  bytes.writeUInt32LE(meta.pg, 0);
  bytes.writeUInt32LE(meta.chunk ?? 0, 4);
  bytes.writeDoubleLE(meta.ino ?? 0, 8);
  bytes.writeUInt32LE(meta.offset ?? 0, 16);
  bytes.writeUInt32LE(meta.count ?? 0, 20);
  bytes.writeDoubleLE(version.epoch, 24);
  bytes.writeDoubleLE(version.seq, 32);
  bytes.writeDoubleLE(meta.from ?? 0, 40);
  bytes.writeDoubleLE(meta.truncateSeq ?? 0, 48);
  return bytes;
}

export function decodeMeta(bytes: Buffer): RecordMeta {
  return {
    pg: bytes.readUInt32LE(0),
    chunk: bytes.readUInt32LE(4),
    ino: bytes.readDoubleLE(8),
    offset: bytes.readUInt32LE(16),
    count: bytes.readUInt32LE(20),
    version: { epoch: bytes.readDoubleLE(24), seq: bytes.readDoubleLE(32) },
    from: bytes.readDoubleLE(40),
    truncateSeq: bytes.readDoubleLE(48),
  };
}

/** A table of INSTALL: u32 offset and u32 length each. */
export function encodeRanges(ranges: readonly DataRange[]): Buffer {
  const table = Buffer.allocUnsafe(ranges.length * EXTENT_ENTRY_BYTES);
  ranges.forEach(({ start, end }, i) => {
    table.writeUInt32LE(start, i * EXTENT_ENTRY_BYTES);
    table.writeUInt32LE(end - start, i * EXTENT_ENTRY_BYTES + 4);
  });
  return table;
}

/** @param count of ranges in the table that begins at `from` */
export function decodeRanges(bytes: Buffer, from: number, count: number): DataRange[] {
  return Array.from({ length: count }, (_, i) => {
    const start = bytes.readUInt32LE(from + i * EXTENT_ENTRY_BYTES);
    return { start, end: start + bytes.readUInt32LE(from + i * EXTENT_ENTRY_BYTES + 4) };
  });
}
