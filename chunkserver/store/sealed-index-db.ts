import { crc32c } from '../../common/crc32c.js';
import type { IndexDb, IndexEntry } from './index-db.js';

const SEAL_BYTES = 4;
/** Values of one commit that are made in one turn of the event loop, bytes, and one value more: a few milliseconds. */
export const COMMIT_SLICE_BYTES = 256 * 1024;

interface Change {
  key: Buffer;
  value: Buffer | undefined;
}

/** Stands for a value that is not what was written, or not of its key: compare by identity. */
export const DAMAGED: Buffer = Buffer.alloc(0);

/**
 * An index whose values end in a CRC-32C over key and value (u32 little-endian, on-disk format): a flipped bit in either shows
 * when the entry is read. LMDB itself has no checksums.
 */
export class SealedIndexDb implements IndexDb {
  constructor(private readonly db: IndexDb) {}

  /** DAMAGED when the seal is broken. */
  get(key: Buffer): Buffer | undefined {
    const sealed = this.db.get(key);
    return sealed && unseal(key, sealed);
  }

  *range(start: Buffer, end: Buffer): Iterable<IndexEntry> {
    for (const { key, value } of this.db.range(start, end)) yield { key, value: unseal(key, value) };
  }

  /** The entries are asked for in slices, with turns of the event loop between them: what they are made of must not change. */
  async commit(entries: Iterable<Change>): Promise<void> {
    const sealed: Change[] = [];
    let bytes = 0;
    for (const { key, value } of entries) {
      sealed.push({ key, value: value && seal(key, value) });
      bytes += value?.length ?? 0;
      if (bytes < COMMIT_SLICE_BYTES) continue;
      bytes = 0;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await this.db.commit(sealed);
  }

  close(): Promise<void> {
    return this.db.close();
  }
}

function seal(key: Buffer, value: Buffer): Buffer {
  const sealed = Buffer.allocUnsafe(value.length + SEAL_BYTES);
  value.copy(sealed);
  sealed.writeUInt32LE(crc32c(value, crc32c(key)), value.length);
  return sealed;
}

function unseal(key: Buffer, sealed: Buffer): Buffer {
  const length = sealed.length - SEAL_BYTES;
  if (length < 0) return DAMAGED;
  const value = sealed.subarray(0, length);
  return crc32c(value, crc32c(key)) === sealed.readUInt32LE(length) ? value : DAMAGED;
}
