import { crc32c as native } from '@node-rs/crc32';

/**
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4), hardware-accelerated.
 * @param seed the CRC of the bytes before, to continue over several buffers
 */
export function crc32c(data: Buffer, seed = 0): number {
  return native(data, seed);
}
