/** The ordered table under the chunk index: synchronous reads, one atomic and durable batch at a time. */
export interface IndexDb {
  /** The buffer is valid until the next call. */
  get(key: Buffer): Buffer | undefined;
  /** Entries with start <= key < end in the order of memcmp; buffers are valid until the next step. */
  range(start: Buffer, end: Buffer): Iterable<IndexEntry>;
  /** Puts all entries (an undefined value removes) in one transaction; resolves when it is on disk. */
  commit(entries: Iterable<{ key: Buffer; value: Buffer | undefined }>): Promise<void>;
  close(): Promise<void>;
}

export interface IndexEntry {
  key: Buffer;
  value: Buffer;
}

/** First byte of a key. On-disk format. */
export const Table = { CHUNK: 1, TRUNCATE_SEQ: 2, PG_STATE: 3, SEGMENT: 4, META: 5 } as const;

const CHUNK_KEY_BYTES = 15;
const TWO_32 = 0x1_0000_0000;
/** The largest that a key has room for. */
export const INO_MAX = 2 ** 48 - 1;

/** (table, pg, ino, chunk): order-preserving, big-endian. `ino` is at most INO_MAX. */
export function indexKey(table: number, pg: number, ino = 0, chunk = 0): Buffer {
  const key = Buffer.allocUnsafe(CHUNK_KEY_BYTES);
  key[0] = table;
  key.writeUInt32BE(pg, 1);
  key.writeUInt16BE(Math.floor(ino / TWO_32), 5);
  key.writeUInt32BE(ino % TWO_32, 7);
  key.writeUInt32BE(chunk, 11);
  return key;
}

export function inoOfKey(key: Buffer): number {
  return key.readUInt16BE(5) * TWO_32 + key.readUInt32BE(7);
}

export function chunkOfKey(key: Buffer): number {
  return key.readUInt32BE(11);
}

export function pgOfKey(key: Buffer): number {
  return key.readUInt32BE(1);
}

/** For tests and simulation. A batch takes effect when its commit resolves: a crash before loses all of it. */
export class MemoryIndexDb implements IndexDb {
  private entries = new Map<string, Buffer>();
  private sorted?: string[];

  get(key: Buffer): Buffer | undefined {
    return this.entries.get(key.toString('hex'));
  }

  *range(start: Buffer, end: Buffer): Iterable<IndexEntry> {
    this.sorted ??= [...this.entries.keys()].sort();
    const from = start.toString('hex');
    const to = end.toString('hex');
    for (const key of this.sorted) {
      if (key >= to) return;
      if (key >= from) yield { key: Buffer.from(key, 'hex'), value: this.entries.get(key) as Buffer };
    }
  }

  async commit(entries: Iterable<{ key: Buffer; value: Buffer | undefined }>): Promise<void> {
    const batch = [...entries];
    await Promise.resolve();
    for (const { key, value } of batch) {
      if (value) this.entries.set(key.toString('hex'), Buffer.from(value));
      else this.entries.delete(key.toString('hex'));
    }
    this.sorted = undefined;
  }

  async close(): Promise<void> {}

  /** What a crash at this moment leaves. */
  clone(): MemoryIndexDb {
    const copy = new MemoryIndexDb();
    copy.entries = new Map(this.entries);
    return copy;
  }
}
