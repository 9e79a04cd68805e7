import { crc32c } from '../../common/crc32c.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { START_OF_KEYS } from '../pg/recovery-page.js';
import { compareKeys } from '../pg/types.js';
import type { ChunkContent, ChunkInfo, ChunkKey, ChunkStore, Version } from '../store/chunk-store.js';

/** One chunk as a replica has it. */
export interface ChunkReport extends ChunkKey {
  version: Version;
  /** Allocated. */
  bytes: number;
  /** End of its data within the chunk; 0 when contents were not read. */
  end: number;
  /** CRC-32C of [0, end), holes as zeros; 0 when contents were not read. */
  sum: number;
  /** It cannot be read as it was written. */
  damaged: boolean;
}

/** How much one page may hold: it is read into memory. */
export interface PageLimits {
  chunks: number;
  /** Exceeded by the last chunk at most. */
  bytes: number;
}

/** A part of a group, as it was at the moment of the call. */
export interface Inspection {
  /** The page ends here; undefined: with the group, or with what was asked for. */
  last: ChunkKey | undefined;
  reports: Promise<ChunkReport[]>;
}

/**
 * Looks at the chunks behind `after`, up to `until`. Which versions there are, and which bytes are read, is settled before it
 * returns: operations that come later do not show.
 */
export function inspect(
  store: ChunkStore,
  pg: number,
  range: { after: ChunkKey; until: ChunkKey },
  limits: PageLimits,
  contents: boolean,
): Inspection {
  const { after, until } = range;
  const listed = store
    .list(pg, after.ino === START_OF_KEYS.ino ? undefined : after, limits.chunks + 1)
    .filter((info) => compareKeys(info, until) <= 0);
  let bytes = 0;
  let count = 0;
  while (count < listed.length && count < limits.chunks && (count === 0 || bytes < limits.bytes)) {
    bytes += (listed[count] as ChunkInfo).bytes;
    count++;
  }
  const page = listed.slice(0, count);
  const last = count < listed.length ? page.at(-1) : undefined;
  const reports = page.map((info) => {
    // Called for all of the page in this turn: each takes its chunk as it is now.
    return contents ? report(info, store.readChunk(pg, info)) : report(info, undefined);
  });
  return { last, reports: Promise.all(reports) };
}

async function report(
  info: ChunkInfo,
  reading: Promise<ChunkContent | undefined> | undefined,
): Promise<ChunkReport> {
  const { ino, chunk, version, bytes } = info;
  const base = { ino, chunk, version, bytes, end: 0, sum: 0, damaged: version.seq === 0 };
  if (!reading) return base;
  try {
    const content = await reading;
    const last = content?.extents.at(-1);
    return {
      ...base,
      end: last ? last.offset + last.data.length : 0,
      sum: content ? contentSum(content) : 0,
    };
  } catch (error) {
    if (toHoldfastError(error).errorName !== 'CORRUPT') throw error;
    return { ...base, damaged: true };
  }
}

const ZEROS = Buffer.alloc(64 * 1024);

function contentSum({ extents }: ChunkContent): number {
  let crc = 0;
  let at = 0;
  for (const { offset, data } of extents) {
    for (; at < offset; at += Math.min(ZEROS.length, offset - at)) {
      crc = crc32c(ZEROS.subarray(0, Math.min(ZEROS.length, offset - at)), crc);
    }
    crc = crc32c(data, crc);
    at = offset + data.length;
  }
  return crc;
}

/**
 * Payload of CHECK replies, little-endian, 44 bytes each: ino f64, chunk u32, version epoch u32, version seq f64, bytes u32,
 * end u32, sum u32, damaged u32, reserved u32.
 */
const REPORT_BYTES = 44;

/** A page of reports. */
export function packReports(reports: readonly ChunkReport[]): Buffer {
  const packed = Buffer.alloc(reports.length * REPORT_BYTES);
  reports.forEach((each, index) => {
    const at = index * REPORT_BYTES;
    packed.writeDoubleLE(each.ino, at);
    packed.writeUInt32LE(each.chunk, at + 8);
    packed.writeUInt32LE(each.version.epoch, at + 12);
    packed.writeDoubleLE(each.version.seq, at + 16);
    packed.writeUInt32LE(each.bytes, at + 24);
    packed.writeUInt32LE(each.end, at + 28);
    packed.writeUInt32LE(each.sum, at + 32);
    packed.writeUInt32LE(each.damaged ? 1 : 0, at + 36);
  });
  return packed;
}

/** @throws HoldfastError PROTOCOL */
export function unpackReports(packed: Buffer): ChunkReport[] {
  if (packed.length % REPORT_BYTES !== 0) throw new HoldfastError('PROTOCOL', 'report of chunks');
  return Array.from({ length: packed.length / REPORT_BYTES }, (_, index) => {
    const at = index * REPORT_BYTES;
    return {
      ino: packed.readDoubleLE(at),
      chunk: packed.readUInt32LE(at + 8),
      version: { epoch: packed.readUInt32LE(at + 12), seq: packed.readDoubleLE(at + 16) },
      bytes: packed.readUInt32LE(at + 24),
      end: packed.readUInt32LE(at + 28),
      sum: packed.readUInt32LE(at + 32),
      damaged: packed.readUInt32LE(at + 36) === 1,
    };
  });
}
