import { crc32c } from '../../common/crc32c.js';

/** What a stored value is longer than the value itself. */
export const SEAL_BYTES = 4;

const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** FNV-1a, 32 bits: seeds the value's checksum. Keys are short: that is cheaper than a second call into native code. */
function keySeed(key: Buffer): number {
  let hash = FNV_OFFSET;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ (key[i] as number), FNV_PRIME);
  return hash >>> 0;
}

/**
 * A value as it is stored: followed by its CRC-32C (little-endian), seeded with the FNV-1a hash of its key. LMDB's pages carry
 * no checksums; with this, a flipped bit is found when the value is read, and a value that came under another's key as well.
 */
export function seal(key: Buffer, value: Buffer): Buffer {
  const stored = Buffer.allocUnsafe(value.length + SEAL_BYTES);
  value.copy(stored);
  stored.writeUInt32LE(crc32c(value, keySeed(key)), value.length);
  return stored;
}

/** The value, without a copy; undefined when the checksum is wrong. */
export function unseal(key: Buffer, stored: Buffer): Buffer | undefined {
  const length = stored.length - SEAL_BYTES;
  if (length < 0) return undefined;
  const value = stored.subarray(0, length);
  return crc32c(value, keySeed(key)) === stored.readUInt32LE(length) ? value : undefined;
}
