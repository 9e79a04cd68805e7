import { crc32c } from '../common/crc32c.js';
import { BLOCK_SIZE_BYTES } from './types.js';

/**
 * Checksums of the blocks of one extent. Blocks lie on the chunk's grid of BLOCK_SIZE_BYTES, so the first and the last
 * one of an extent may be partial. Their checksums also combine into that of the whole, without a second pass.
 */

/** Start of the block that `offset` lies in. */
export function blockFloor(offset: number): number {
  return offset - (offset % BLOCK_SIZE_BYTES);
}

/** End of the block that the byte before `offset` lies in. */
export function blockCeil(offset: number): number {
  return blockFloor(offset + BLOCK_SIZE_BYTES - 1);
}

/** How many blocks [start, end) touches. */
export function blockCount(start: number, end: number): number {
  return end <= start ? 0 : (blockCeil(end) - blockFloor(start)) / BLOCK_SIZE_BYTES;
}

/** CRC-32C of each block that `data`, lying at `offset` of its chunk, touches. */
export function blockCrcs(offset: number, data: Buffer): Uint32Array {
  const crcs = new Uint32Array(blockCount(offset, offset + data.length));
  let at = 0;
  for (let i = 0; i < crcs.length; i++) {
    const end = Math.min(blockFloor(offset + at) + BLOCK_SIZE_BYTES - offset, data.length);
    crcs[i] = crc32c(data.subarray(at, end));
    at = end;
  }
  return crcs;
}

/**
 * CRC-32C of `data`, lying at `offset` of its chunk, when its blocks have their checksums; undefined when one has not.
 * One pass over all bytes is compared with what the blocks' checksums combine into, which takes half the time of a pass for
 * each block. A damaged block is seen as surely as by its own checksum: whatever follows, the combination tells two
 * checksums of it apart.
 */
export function verifiedCrc(offset: number, data: Buffer, crcs: Uint32Array): number | undefined {
  const crc = crc32c(data);
  return crc === appendBlockCrcs(0, offset, data.length, crcs) ? crc : undefined;
}

/** The first block of `data` (at `offset` of its chunk) that does not have its checksum; -1 when all do. */
export function firstBadBlock(offset: number, data: Buffer, crcs: Uint32Array, firstCrc: number): number {
  let at = 0;
  for (let i = firstCrc; at < data.length; i++) {
    const end = Math.min(blockFloor(offset + at) + BLOCK_SIZE_BYTES - offset, data.length);
    if (crc32c(data.subarray(at, end)) !== crcs[i]) return offset + at;
    at = end;
  }
  return -1;
}

/** CRC-32C of bytes with checksum `before`, followed by the blocks of [offset, offset + length). */
export function appendBlockCrcs(before: number, offset: number, length: number, crcs: Uint32Array): number {
  let crc = before;
  let at = offset;
  const end = offset + length;
  for (const block of crcs) {
    const next = Math.min(blockFloor(at) + BLOCK_SIZE_BYTES, end);
    crc = (shiftZeros(crc, next - at) ^ block) >>> 0;
    at = next;
  }
  return crc;
}

/** CRC-32C of bytes with checksum `before`, followed by `length` bytes with checksum `crc`. */
export function appendCrc(before: number, crc: number, length: number): number {
  return before === 0 ? crc : (shiftZeros(before, length) ^ crc) >>> 0;
}

/** CRC-32C's polynomial, reflected. */
const POLYNOMIAL = 0x82f63b78;
const CRC_BITS = 32;
/** Lengths below 2^32 bytes. */
const LENGTH_BITS = 32;

/**
 * The linear operators "append 2^k zero bytes" over GF(2), as in zlib's crc32_combine (Mark Adler): operator[bit] is the
 * image of that bit of the checksum.
 */
const ZERO_OPERATORS = zeroOperators();
/** "Append BLOCK_SIZE_BYTES zero bytes" by lookup, four tables of 256. */
const BLOCK_TABLES = [0, 8, 16, 24].map((shift) =>
  Uint32Array.from({ length: 256 }, (_, byte) => shiftByOperators((byte << shift) >>> 0, BLOCK_SIZE_BYTES)),
) as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];

function zeroOperators(): Uint32Array[] {
  const oneBit = new Uint32Array(CRC_BITS);
  oneBit[0] = POLYNOMIAL;
  for (let bit = 1; bit < CRC_BITS; bit++) oneBit[bit] = (1 << (bit - 1)) >>> 0;
  const oneByte = squared(squared(squared(oneBit)));
  const operators = [oneByte];
  while (operators.length < LENGTH_BITS) operators.push(squared(operators.at(-1) as Uint32Array));
  return operators;
}

function squared(operator: Uint32Array): Uint32Array {
  return operator.map((image) => apply(operator, image));
}

function apply(operator: Uint32Array, crc: number): number {
  let sum = 0;
  for (let bit = 0, left = crc; left !== 0; bit++, left >>>= 1) {
    if (left & 1) sum ^= operator[bit] as number;
  }
  return sum >>> 0;
}

function shiftByOperators(crc: number, zeros: number): number {
  let shifted = crc;
  for (let bit = 0, left = zeros; left !== 0; bit++, left >>>= 1) {
    if (left & 1) shifted = apply(ZERO_OPERATORS[bit] as Uint32Array, shifted);
  }
  return shifted;
}

function shiftZeros(crc: number, zeros: number): number {
  if (zeros !== BLOCK_SIZE_BYTES) return shiftByOperators(crc, zeros);
  const [t0, t1, t2, t3] = BLOCK_TABLES;
  return (
    ((t0[crc & 0xff] as number) ^
      (t1[(crc >>> 8) & 0xff] as number) ^
      (t2[(crc >>> 16) & 0xff] as number) ^
      (t3[crc >>> 24] as number)) >>>
    0
  );
}
