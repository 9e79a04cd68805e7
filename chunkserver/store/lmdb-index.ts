import { open, type RootDatabase } from 'lmdb';
import type { IndexDb, IndexEntry } from './index-db.js';

/** Address space that is reserved (not memory): about 1/1000 of the data's size is needed. */
const MAP_SIZE_BYTES = 64 * 1024 * 1024 * 1024;

/** The index on LMDB, in a directory of its own. */
export class LmdbIndexDb implements IndexDb {
  private readonly db: RootDatabase<Buffer, Buffer>;

  constructor(dir: string) {
    this.db = open<Buffer, Buffer>({
      path: dir,
      noSubdir: false,
      keyEncoding: 'binary',
      encoding: 'binary',
      mapSize: MAP_SIZE_BYTES,
      maxReaders: 16,
    });
  }

  get(key: Buffer): Buffer | undefined {
    return this.db.getBinaryFast(key) as Buffer | undefined;
  }

  *range(start: Buffer, end: Buffer): Iterable<IndexEntry> {
    for (const { key, value } of this.db.getRange({ start, end })) yield { key, value };
  }

  async commit(entries: Iterable<{ key: Buffer; value: Buffer | undefined }>): Promise<void> {
    await this.db.transaction(() => {
      for (const { key, value } of entries) {
        if (value) this.db.put(key, value);
        else this.db.remove(key);
      }
    });
    await this.db.flushed;
  }

  async close(): Promise<void> {
    await this.db.close();
  }
}
