import { HoldfastError } from './errors.js';

/** Where the bytes of a COPY come from: the payload of its request. */
export interface CopySource {
  ino: number;
  chunk: number;
  /** Within the chunk, bytes. */
  offset: number;
  /** As a READ of the client would carry it. */
  truncateSeq: number;
}

/** Little-endian: 0 inode u64, 8 chunk u32, 12 offset u32, 16 truncate seq u32. */
const COPY_SOURCE_BYTES = 20;

/** Payload of COPY. */
export function packCopySource({ ino, chunk, offset, truncateSeq }: CopySource): Buffer {
  const bytes = Buffer.allocUnsafe(COPY_SOURCE_BYTES);
  bytes.writeBigUInt64LE(BigInt(ino), 0);
  bytes.writeUInt32LE(chunk, 8);
  bytes.writeUInt32LE(offset, 12);
  bytes.writeUInt32LE(truncateSeq, 16);
  return bytes;
}

/** @throws HoldfastError EINVAL */
export function unpackCopySource(bytes: Buffer): CopySource {
  if (bytes.length < COPY_SOURCE_BYTES) throw new HoldfastError('EINVAL', 'a COPY without its source');
  const ino = Number(bytes.readBigUInt64LE(0));
  if (!Number.isSafeInteger(ino) || ino === 0) throw new HoldfastError('EINVAL', 'a COPY from no inode');
  return {
    ino,
    chunk: bytes.readUInt32LE(8),
    offset: bytes.readUInt32LE(12),
    truncateSeq: bytes.readUInt32LE(16),
  };
}
