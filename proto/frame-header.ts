import { assert } from '../common/assert.js';
import { crc32c } from '../common/crc32c.js';
import { HoldfastError } from './errors.js';

/** What a frame asks for. A reply has the request's type with the REPLY bit set. */
export enum FrameType {
  /** First on a connection: payload FrameHello as JSON; answered likewise. */
  HELLO = 1,
  /** Client: pg, epoch, ino, chunk, offset, length, truncateSeq. Reply: payload (a trailing hole is left out), version. */
  READ = 2,
  /**
   * Client: pg, epoch, ino, chunk, offset, truncateSeq, payload; flag SYNC. Without a payload, `length` bytes become a hole.
   * Reply: aux = newly allocated bytes (negative for a hole), version. CUT: bytes that a newer truncate has overtaken.
   */
  WRITE = 3,
  /**
   * Client: pg, epoch. Everything acknowledged in this PG is on all in-sync disks when the reply comes, unless all their
   * servers lost it before: reply: aux, length and version say what (proto/lineage.ts).
   */
  SYNC = 4,
  /** Client: pg, epoch, ino, aux = file offset, truncateSeq, length = chunk size. Reply: aux = allocated bytes (negative). */
  TRUNCATE = 5,
  /** Any: answered at once. */
  PING = 6,
  /**
   * Client: pg, epoch, ino, chunk, truncateSeq; offset 1: reserved bytes count as data. Reply: where the first chunk from there
   * on that has data, has it (proto/extents.ts).
   */
  EXTENTS = 7,
  /**
   * Client to the primary of a chunk: pg, epoch, ino, chunk, offset, length, truncateSeq, payload: where to take the bytes
   * from (proto/copy-source.ts). Reply: as WRITE's. EOPNOTSUPP: the source cannot be read from there now.
   */
  COPY = 8,
  /**
   * Client: pg, epoch, ino, chunk, offset, length, truncateSeq; flag SYNC. Space is kept for what of the range takes none.
   * Reply: as WRITE's. ENOSPC: nothing was reserved.
   */
  RESERVE = 9,
  /** As WRITE of several runs of one chunk, all or none of them: the payload has their places (proto/extent-table.ts). */
  WRITE_EXTENTS = 31,

  /**
   * Primary to replica: one operation of the PG's order; version. Reply when written (with SYNC: durable): aux and versionSeq =
   * bytes that the disk has room for now, and for writes to where space is reserved.
   */
  REPLICATE_WRITE = 16,
  REPLICATE_TRUNCATE = 17,
  REPLICATE_DELETE = 18,
  REPLICATE_SYNC = 19,
  /**
   * Primary to replica at peering: its last version and whether it is clean; truncateSeq = epoch of its map; what it knows
   * of the lineage: length = since, chunk and ino = the boundary's epoch and seq.
   */
  PG_INFO = 20,
  /** Chunks of a PG behind (ino, chunk), at most `length`; reply payload: packed list (chunkserver/pg). */
  LIST = 21,
  /** One chunk whole; aux 1: also one that is damaged on all replicas; reply payload: packed extents (chunkserver/pg). */
  FETCH = 22,
  /** Primary to replica: compare with me and fetch what differs, then answer. */
  RESYNC = 23,
  /** Recovering replica to primary: everything is copied. */
  CAUGHT_UP = 24,
  /** As REPLICATE_WRITE: a RESERVE. */
  REPLICATE_RESERVE = 25,
  /** As REPLICATE_WRITE: one operation that writes several runs of one chunk (proto/extent-table.ts). */
  REPLICATE_EXTENTS = 32,

  /** Primary to in-sync replica: its chunks behind (ino, chunk) up to the payload's; offset 1: with checksums of contents. */
  CHECK = 60,
  /** Primary to in-sync replica: take my copy of a chunk; payload: what is wrong there and right here (service/audit). */
  REPAIR = 61,

  REPLY = 128,
}

/** Flag bits. */
export const FRAME_FLAG_SYNC = 1;
/** In replies to LIST: the end was reached. In PG_INFO: clean. */
export const FRAME_FLAG_END = 2;

/** As offset of EXTENTS: reserved bytes count as data. */
export const EXTENTS_RESERVED = 1;

export const FRAME_HEADER_BYTES = 80;
const MAGIC = 0x31444648; // "HFD1"
const DEADLINE_UNIT_MS = 100;

/** Header fields a sender may set; what is absent is 0. Which of them a type uses is said at FrameType. */
export interface FrameFields {
  type?: number;
  flags?: number;
  requestId?: number;
  /** Error code in replies; 0: success. In requests: the trace (proto/trace.ts); 0: none. */
  status?: number;
  pg?: number;
  epoch?: number;
  ino?: number;
  chunk?: number;
  /** Within the chunk, bytes. */
  offset?: number;
  length?: number;
  versionEpoch?: number;
  versionSeq?: number;
  truncateSeq?: number;
  /** Any number below 2^53, may be negative. */
  aux?: number;
  deadlineMs?: number;
}

/**
 * The fields of a frame, those of `over` before those of `under`. Written out: V8 joins objects of changing shapes by `...`
 * with calls into its runtime, 5 to 10 us each against one, and a write takes a dozen.
 */
export function joinFields<T extends number | undefined>(
  under: FrameFields & { type?: T },
  over: FrameFields,
): FrameFields & { type: T } {
  return {
    type: under.type as T,
    flags: over.flags ?? under.flags,
    requestId: over.requestId ?? under.requestId,
    status: over.status ?? under.status,
    pg: over.pg ?? under.pg,
    epoch: over.epoch ?? under.epoch,
    ino: over.ino ?? under.ino,
    chunk: over.chunk ?? under.chunk,
    offset: over.offset ?? under.offset,
    length: over.length ?? under.length,
    versionEpoch: over.versionEpoch ?? under.versionEpoch,
    versionSeq: over.versionSeq ?? under.versionSeq,
    truncateSeq: over.truncateSeq ?? under.truncateSeq,
    aux: over.aux ?? under.aux,
    deadlineMs: over.deadlineMs ?? under.deadlineMs,
  } satisfies Record<keyof FrameFields, unknown>;
}

/** A header as received. */
export interface FrameHeader extends Required<FrameFields> {
  isReply: boolean;
  payloadLength: number;
  payloadCrc: number;
}

/**
 * Little-endian layout: 0 magic u32, 4 type u8, 5 flags u8, 6 deadline u16 (100 ms), 8 request u32, 12 status u32,
 * 16 pg u32, 20 epoch u32, 24 inode u32 low, 28 u32 high, 32 chunk u32, 36 offset u32, 40 length u32,
 * 44 version epoch u32, 48 version seq f64, 56 truncate seq u32, 60 payload length u32, 64 payload crc u32,
 * 68 aux f64, 76 crc32c of bytes 0..75.
 */
export function writeHeader(
  target: Buffer,
  fields: FrameFields & { type: number },
  payloadLength: number,
  payloadCrc: number,
): void {
  const ino = fields.ino ?? 0;
  assert(payloadLength >= 0 && ino >= 0, 'frame fields are in range');
  const deadline = Math.min(0xffff, Math.ceil((fields.deadlineMs ?? 0) / DEADLINE_UNIT_MS));
  target.writeUInt32LE(MAGIC, 0);
  target.writeUInt8(fields.type, 4);
  target.writeUInt8(fields.flags ?? 0, 5);
  target.writeUInt16LE(deadline, 6);
  target.writeUInt32LE(fields.requestId ?? 0, 8);
  target.writeUInt32LE(fields.status ?? 0, 12);
  target.writeUInt32LE(fields.pg ?? 0, 16);
  target.writeUInt32LE(fields.epoch ?? 0, 20);
  target.writeUInt32LE(ino >>> 0, 24);
  target.writeUInt32LE(Math.floor(ino / 0x1_0000_0000), 28);
  target.writeUInt32LE(fields.chunk ?? 0, 32);
  target.writeUInt32LE(fields.offset ?? 0, 36);
  target.writeUInt32LE(fields.length ?? 0, 40);
  target.writeUInt32LE(fields.versionEpoch ?? 0, 44);
  target.writeDoubleLE(fields.versionSeq ?? 0, 48);
  target.writeUInt32LE(fields.truncateSeq ?? 0, 56);
  target.writeUInt32LE(payloadLength, 60);
  target.writeUInt32LE(payloadCrc, 64);
  target.writeDoubleLE(fields.aux ?? 0, 68);
  target.writeUInt32LE(crc32c(target.subarray(0, 76)), 76);
}

/** @throws HoldfastError PROTOCOL (not a frame) or CORRUPT (header checksum) */
export function readHeader(source: Buffer): FrameHeader {
  if (source.readUInt32LE(0) !== MAGIC) throw new HoldfastError('PROTOCOL', 'not a Holdfast frame');
  if (crc32c(source.subarray(0, 76)) !== source.readUInt32LE(76)) {
    throw new HoldfastError('CORRUPT', 'frame header');
  }
  const type = source.readUInt8(4);
  return {
    type: type & ~FrameType.REPLY,
    isReply: (type & FrameType.REPLY) !== 0,
    flags: source.readUInt8(5),
    deadlineMs: source.readUInt16LE(6) * DEADLINE_UNIT_MS,
    requestId: source.readUInt32LE(8),
    status: source.readUInt32LE(12),
    pg: source.readUInt32LE(16),
    epoch: source.readUInt32LE(20),
    ino: source.readUInt32LE(28) * 0x1_0000_0000 + source.readUInt32LE(24),
    chunk: source.readUInt32LE(32),
    offset: source.readUInt32LE(36),
    length: source.readUInt32LE(40),
    versionEpoch: source.readUInt32LE(44),
    versionSeq: source.readDoubleLE(48),
    truncateSeq: source.readUInt32LE(56),
    payloadLength: source.readUInt32LE(60),
    payloadCrc: source.readUInt32LE(64),
    aux: source.readDoubleLE(68),
  };
}
