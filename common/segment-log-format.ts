import { crc32c } from './crc32c.js';

/**
 * Bytes of a segment file (little-endian; part of the on-disk format).
 *
 *   segment header, 64 bytes           record header, 32 bytes, before its payload
 *    0 magic "HFSEGLOG"                  0 magic "HFRC"
 *    8 u32 layout version (this file)    4 u32 payload bytes
 *   12 u32 format version of the kind    8 u8 type, 3 bytes zero
 *   16 16 bytes kind, ASCII, zeros      12 u32 CRC-32C of the payload
 *   32 16 bytes uuid of the log         16 u32 u32 position known durable when this was appended
 *   48 u32 segment number               24 u32 zero
 *   52 u32 end of the segment before     28 u32 CRC-32C of bytes 0..27, seeded with uuid and position
 *   60 u32 CRC-32C of bytes 0..59
 *
 * The seed keeps a record from being taken for one in any other place: user data may hold the copy of a whole segment.
 */
export const LAYOUT_VERSION = 1;
export const SEGMENT_HEADER_BYTES = 64;
export const RECORD_HEADER_BYTES = 32;
export const KIND_MAX_BYTES = 16;
const SEGMENT_MAGIC = Buffer.from('HFSEGLOG', 'latin1');
export const RECORD_MAGIC = Buffer.from('HFRC', 'latin1');
const RECORD_MAGIC_U32 = RECORD_MAGIC.readUInt32LE(0);

/** A place in the log. Offsets are bytes from the start of the segment file. */
export interface Position {
  segment: number;
  offset: number;
}

/** Negative, zero or positive as `a` lies before, at or behind `b`. */
export function comparePositions(a: Position, b: Position): number {
  return a.segment - b.segment || a.offset - b.offset;
}

/** Bytes of the log do not say what was written there; reading on could return wrong data. */
export class LogCorruptError extends Error {
  override name = 'LogCorruptError';
  constructor(
    readonly file: string,
    readonly offset: number,
    what: string,
  ) {
    super(`${file}: ${what} at offset ${offset}`);
  }
}

/** The log is of another version, kind or owner than was asked for. */
export class LogFormatError extends Error {
  override name = 'LogFormatError';
}

/** A write or fdatasync failed earlier: nothing may be appended or promised any more. */
export class LogFailedError extends Error {
  override name = 'LogFailedError';
}

/** Too much waits to be written: the record was not appended, later ones may be. */
export class LogOverloadedError extends Error {
  override name = 'LogOverloadedError';
}

export interface LogIdentity {
  kind: string;
  formatVersion: number;
  uuid: string;
}

/** The 16 bytes of a UUID in its usual text form. @throws LogFormatError */
export function uuidBytes(uuid: string): Buffer {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  if (bytes.length !== 16) throw new LogFormatError(`not a UUID: ${uuid}`);
  return bytes;
}

function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** The file that holds a segment. */
export function segmentName(segment: number): string {
  return `${String(segment).padStart(10, '0')}.seg`;
}

/** The number in a segment's file name; undefined for any other file. */
export function segmentOfName(name: string): number | undefined {
  return /^\d{10}\.seg$/.test(name) ? Number(name.slice(0, 10)) : undefined;
}

/** @param previousEnd length of the segment before, so that its loss of a tail shows; 0: unknown or none */
export function encodeSegmentHeader(identity: LogIdentity, segment: number, previousEnd: number): Buffer {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
  SEGMENT_MAGIC.copy(header, 0);
  header.writeUInt32LE(LAYOUT_VERSION, 8);
  header.writeUInt32LE(identity.formatVersion, 12);
  header.write(identity.kind, 16, KIND_MAX_BYTES, 'latin1');
  uuidBytes(identity.uuid).copy(header, 32);
  header.writeUInt32LE(segment, 48);
  header.writeUInt32LE(previousEnd, 52);
  header.writeUInt32LE(crc32c(header.subarray(0, 60)), 60);
  return header;
}

/**
 * What a segment header says, or undefined when it is none (torn, zeros, foreign bytes).
 * @throws LogFormatError for a layout that this program does not know
 */
export function decodeSegmentHeader(
  file: string,
  header: Buffer,
): (LogIdentity & { segment: number; previousEnd: number }) | undefined {
  if (header.length < SEGMENT_HEADER_BYTES || !header.subarray(0, 8).equals(SEGMENT_MAGIC)) return undefined;
  // Before the version: a bit that has flipped in it is damage. Every layout begins with such a header.
  if (header.readUInt32LE(60) !== crc32c(header.subarray(0, 60))) return undefined;
  const layout = header.readUInt32LE(8);
  if (layout !== LAYOUT_VERSION) {
    throw new LogFormatError(`${file}: log layout version ${layout}; this program knows ${LAYOUT_VERSION}`);
  }
  return {
    kind: header.toString('latin1', 16, 16 + KIND_MAX_BYTES).replace(/\0+$/, ''),
    formatVersion: header.readUInt32LE(12),
    uuid: uuidText(header.subarray(32, 48)),
    segment: header.readUInt32LE(48),
    previousEnd: header.readUInt32LE(52),
  };
}

/** The per-log part of every record header's checksum. */
export function recordSeed(uuid: string): number {
  return crc32c(uuidBytes(uuid));
}

function positionSeed(seed: number, segment: number, offset: number): number {
  return (seed ^ (Math.imul(segment, 0x9e3779b1) + offset)) >>> 0;
}

export interface RecordHeader {
  type: number;
  length: number;
  payloadCrc: number;
  /** Everything before this position was durable when the record was appended. */
  durable: Position;
}

/** The header of a record at its place. @param seed of the log: see recordSeed() */
export function encodeRecordHeader(seed: number, at: Position, record: RecordHeader): Buffer {
  const header = Buffer.allocUnsafe(RECORD_HEADER_BYTES);
  header.writeUInt32LE(RECORD_MAGIC_U32, 0);
  header.writeUInt32LE(record.length, 4);
  header.writeUInt32LE(record.type, 8);
  header.writeUInt32LE(record.payloadCrc, 12);
  header.writeUInt32LE(record.durable.segment, 16);
  header.writeUInt32LE(record.durable.offset, 20);
  header.writeUInt32LE(0, 24);
  header.writeUInt32LE(crc32c(header.subarray(0, 28), positionSeed(seed, at.segment, at.offset)), 28);
  return header;
}

/** The record header at `at` in `bytes`, or undefined when there is no sound one. */
export function decodeRecordHeader(
  seed: number,
  position: Position,
  bytes: Buffer,
  at: number,
): RecordHeader | undefined {
  if (at + RECORD_HEADER_BYTES > bytes.length || bytes.readUInt32LE(at) !== RECORD_MAGIC_U32)
    return undefined;
  const sum = crc32c(bytes.subarray(at, at + 28), positionSeed(seed, position.segment, position.offset));
  if (bytes.readUInt32LE(at + 28) !== sum) return undefined;
  return {
    length: bytes.readUInt32LE(at + 4),
    type: bytes.readUInt32LE(at + 8),
    payloadCrc: bytes.readUInt32LE(at + 12),
    durable: { segment: bytes.readUInt32LE(at + 16), offset: bytes.readUInt32LE(at + 20) },
  };
}
