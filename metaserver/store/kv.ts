/**
 * An ordered key-value store with transactions: what the state machine stands on. Keys and values are bytes, order is
 * that of memcmp. Two implementations (lmdb-kv, memory-kv) pass one contract suite.
 */
export interface KvReader {
  /** The value, or undefined. The buffer may be reused after the transaction: copy what is kept, and never write to it. */
  get(key: Buffer): Buffer | undefined;
  /** As get(), but the buffer is good until the next call alone: for many values that are decoded one after the other. */
  peek(key: Buffer): Buffer | undefined;
  /**
   * Entries with start <= key < end in order (descending with `reverse`), at most `limit`. To be read, or given up, in the
   * same turn of the event loop and before the next write.
   */
  range(start: Buffer, end: Buffer, options?: { limit?: number; reverse?: boolean }): Iterable<KvEntry>;
}

export interface KvEntry {
  key: Buffer;
  value: Buffer;
}

/** Reads see the transaction's own writes. */
export interface KvTransaction extends KvReader {
  /** The store keeps both buffers: they must not change afterwards. */
  put(key: Buffer, value: Buffer): void;
  delete(key: Buffer): void;
}

/** A consistent state of the store that later transactions do not change. Reads throw UNAVAILABLE once it, or the store, is closed. */
export interface KvView extends KvReader {
  close(): void;
}

export interface Kv extends KvReader {
  /**
   * Runs `fn` in one atomic transaction, synchronously; a throw rolls everything back and is thrown on. Does not wait
   * for the disk: after a crash the store holds all transactions up to some point, at least those before the last
   * `flushed()` that resolved, and none after that point.
   * @throws HoldfastError EIO after a flush has failed, OVERLOADED far beyond the point where `behind()` is set
   */
  transaction<T>(fn: (txn: KvTransaction) => T): T;
  /** Resolves when every transaction committed before this call is on disk; starts the flush. */
  flushed(): Promise<void>;
  /** Set while the disk does not keep up: await it before the next transaction. */
  behind(): Promise<void> | undefined;
  /**
   * A state between two transactions, with everything that was committed before the call. It is to be closed soon: what is
   * overwritten meanwhile takes space.
   */
  view(): Promise<KvView>;
  /** Writes a consistent copy of the whole store, synced, into the new file `path`; writers are not blocked. */
  backup(path: string): Promise<void>;
  /** Flushes and closes. */
  close(): Promise<void>;
}

/** Longest key in bytes that every implementation takes (LMDB's default page size allows 1,978). */
export const KV_KEY_MAX_BYTES = 1024;
