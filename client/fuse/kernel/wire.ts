import { endianness } from 'node:os';
import type { Timespec } from '../../../common/clock.js';
import { IN_HEADER_BYTES } from './protocol.js';

/**
 * The protocol's primitive types. All fields are in the byte order of the machine; only little-endian machines are
 * served (x86-64, arm64). 64-bit fields become numbers, exact below 2^53: inode numbers, sizes, offsets and handles
 * stay below it.
 */

const TWO_32 = 0x1_0000_0000;

/** Whether this machine has the byte order that this directory encodes. */
export function isSupportedByteOrder(): boolean {
  return endianness() === 'LE';
}

/** An unsigned 64-bit field; beyond 2^53 the nearest number. */
export function readU64(buf: Buffer, at: number): number {
  return buf.readUInt32LE(at) + buf.readUInt32LE(at + 4) * TWO_32;
}

/** A signed 64-bit field; beyond +-2^53 the nearest number. */
export function readS64(buf: Buffer, at: number): number {
  return buf.readUInt32LE(at) + buf.readInt32LE(at + 4) * TWO_32;
}

/** Writes an integer of magnitude below 2^53 as 64 bits, in two's complement when negative. */
export function writeS64(buf: Buffer, at: number, value: number): void {
  buf.writeUInt32LE(value >>> 0, at);
  buf.writeInt32LE(Math.floor(value / TWO_32) | 0, at + 4);
}

/** Writes an integer from 0 to 2^53 - 1 as 64 bits. @throws RangeError for any other */
export function writeU64(buf: Buffer, at: number, value: number): void {
  buf.writeUInt32LE(value >>> 0, at);
  buf.writeUInt32LE(Math.floor(value / TWO_32), at + 4);
}

/** Seconds beyond +-(2^53 - 1) are the last that can be kept, as on every file system with a bound. */
export function readTimespec(buf: Buffer, secAt: number, nsecAt: number): Timespec {
  const { MIN_SAFE_INTEGER, MAX_SAFE_INTEGER } = Number;
  const sec = Math.min(Math.max(readS64(buf, secAt), MIN_SAFE_INTEGER), MAX_SAFE_INTEGER);
  return { sec, nsec: buf.readUInt32LE(nsecAt) };
}

/** The kernel's OFFSET_MAX: in a lock, the end of the file. */
const OFFSET_MAX = 2n ** 63n - 1n;
/** Bytes at the end of the kernel's offsets that are told apart although they lie beyond 2^53. */
const LAST_BYTES = 2n ** 20n;
const LAST_BYTE = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * An offset of a lock as a number, in order: exact up to 2^53 - 2^20, where files end, and for the last 2^20 bytes up to
 * 2^63 - 1, which is 2^53 - 1 here ("to the end"). What lies between is one byte.
 */
export function readLockOffset(buf: Buffer, at: number): number {
  const offset = buf.readBigUInt64LE(at);
  const fromLast = OFFSET_MAX - offset;
  if (fromLast < LAST_BYTES) return Number(LAST_BYTE - (fromLast > 0n ? fromLast : 0n));
  const rest = LAST_BYTE - LAST_BYTES;
  return Number(offset < rest ? offset : rest);
}

/** The reverse of readLockOffset(). */
export function writeLockOffset(buf: Buffer, at: number, offset: number): void {
  const fromLast = LAST_BYTE - BigInt(offset);
  buf.writeBigUInt64LE(fromLast < LAST_BYTES ? OFFSET_MAX - fromLast : BigInt(offset), at);
}

/** struct fuse_in_header. */
export interface InHeader {
  length: number;
  opcode: number;
  unique: number;
  ino: number;
  uid: number;
  gid: number;
  pid: number;
}

/** Decodes the header every request begins with. @throws RangeError when there are fewer than 40 bytes */
export function readInHeader(buf: Buffer): InHeader {
  return {
    length: buf.readUInt32LE(0),
    opcode: buf.readUInt32LE(4),
    unique: readU64(buf, 8),
    ino: readU64(buf, 16),
    uid: buf.readUInt32LE(24),
    gid: buf.readUInt32LE(28),
    pid: buf.readUInt32LE(32),
  };
}

/** struct fuse_out_header. @param error 0, or a negative errno; a positive notify code when `unique` is 0 */
export function writeOutHeader(buf: Buffer, length: number, error: number, unique: number): void {
  buf.writeUInt32LE(length, 0);
  buf.writeInt32LE(error, 4);
  writeU64(buf, 8, unique);
}

/**
 * A NUL-terminated name inside a request, copied: the request's buffer is used again for the next one.
 * @returns the name without its NUL and the offset behind the NUL
 * @throws RangeError when there is no NUL before `end`
 */
export function readName(buf: Buffer, at: number, end: number): { name: Buffer; next: number } {
  const nul = buf.indexOf(0, at);
  if (nul < 0 || nul >= end) throw new RangeError('a name without its NUL');
  return { name: copyOf(buf, at, nul), next: nul + 1 };
}

/** A copy of buf[from, to) that outlives the request's buffer. */
export function copyOf(buf: Buffer, from: number, to: number): Buffer {
  const copy = Buffer.allocUnsafe(to - from);
  buf.copy(copy, 0, from, to);
  return copy;
}

/** Where the arguments of a request begin. */
export const ARGS_AT = IN_HEADER_BYTES;
