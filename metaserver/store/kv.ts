/**
 * An ordered key-value store with transactions: what the state machine stands on. Keys and values are bytes, order is
 * that of memcmp. Two implementations (lmdb-kv, memory-kv) pass one contract suite.
 */
export interface KvReader {
  /** The value, or undefined. The buffer may be reused after the transaction: copy what is kept. */
  get(key: Buffer): Buffer | undefined;
  /** Entries with start <= key < end in order (descending with `reverse`), at most `limit`. */
  range(start: Buffer, end: Buffer, options?: { limit?: number; reverse?: boolean }): Iterable<KvEntry>;
}

export interface KvEntry {
  key: Buffer;
  value: Buffer;
}

/** Reads see the transaction's own writes. */
export interface KvTransaction extends KvReader {
  put(key: Buffer, value: Buffer): void;
  delete(key: Buffer): void;
}

export interface Kv extends KvReader {
  /** Runs `fn` in one atomic transaction, synchronously; a throw rolls everything back and is thrown on. */
  transaction<T>(fn: (txn: KvTransaction) => T): T;
  /** Resolves when every transaction committed before this call is on disk. */
  flushed(): Promise<void>;
  /** Writes a consistent copy of the whole store into the new file `path`; writers are not blocked. */
  backup(path: string): Promise<void>;
  close(): Promise<void>;
}

/** Longest key in bytes that every implementation takes (LMDB's default page size allows 1,978). */
export const KV_KEY_MAX_BYTES = 1024;
