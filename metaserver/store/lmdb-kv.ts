import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { access, open as openFile } from 'node:fs/promises';
import { type Database, open, type RootDatabase, type Transaction } from 'lmdb';
import { assert } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Kv, KvEntry, KvTransaction, KvView } from './kv.js';
import {
  createOverlay,
  mergeRanges,
  type Overlay,
  type OverlayEntry,
  overlayKey,
  runTransaction,
} from './overlay.js';
import { seal, unseal } from './seal.js';

/** Raised with every incompatible change of what the file holds. */
export const LMDB_KV_FORMAT = 2;

/** Unflushed bytes at which a flush starts by itself: some 4,000 entries, 4 ms of this thread. */
const FLUSH_AT_BYTES = 512 * 1024;
/** Unflushed bytes at which `behind()` asks the caller to wait. */
const BEHIND_AT_BYTES = 32 * 1024 * 1024;
/** Unflushed bytes at which a transaction is refused: the caller did not heed `behind()`. */
const REFUSE_AT_BYTES = 128 * 1024 * 1024;

/** Records read of one state of the store while others write to it. */
const VERIFY_PIECE_RECORDS = 10_000;

const FORMAT_KEY = Buffer.from('format');
const FORMAT_VALUE = Buffer.from(`holdfast-kv ${LMDB_KV_FORMAT}`);

export interface LmdbKvOptions {
  /** Bytes written since the last flush at which the next one starts by itself. */
  flushAtBytes?: number;
  /** Only reads, and leaves no trace in the file. */
  readOnly?: boolean;
  /**
   * Told once when something is read that is not what was written (CORRUPT), or when a write or sync has failed (EIO); from
   * then on every transaction fails.
   */
  onFailure?: (error: HoldfastError) => void;
}

/**
 * A Kv on one LMDB file.
 *
 * Transactions are applied to an overlay in memory, which is written behind, whole, as one LMDB transaction on lmdb's own
 * thread, with LMDB's full sync order (data, fdatasync, then the meta page): the file is one consistent state at any
 * moment, and no transaction waits for the disk. (lmdb's own `overlappingSync` does call fdatasync in the thread that runs
 * a synchronous transaction, and with `noSync` a power cut can damage the file.) Collecting many transactions also writes
 * each B-tree page once a flush instead of once a transaction.
 *
 * Every value is stored with a checksum over itself and its key (seal.ts), which each read verifies: reads throw CORRUPT.
 */
export class LmdbKv implements Kv {
  /** What is not in LMDB yet: the newest on top. */
  private active: Overlay = createOverlay();
  private activeBytes = 0;
  /** Being written to LMDB just now. */
  private flushing: Overlay | undefined;
  private flushingBytes = 0;
  private flush: Promise<void> | undefined;
  private failure: HoldfastError | undefined;
  private running = false;
  private closed = false;
  private readonly flushAtBytes: number;
  private readonly onFailure: ((error: HoldfastError) => void) | undefined;
  /** Read transactions that hold their pages: a closed environment must have none. */
  private readonly views = new Set<Transaction>();

  private constructor(
    private readonly path: string,
    private readonly root: RootDatabase<Buffer, Buffer>,
    private readonly data: Database<Buffer, Buffer>,
    options: LmdbKvOptions,
  ) {
    this.flushAtBytes = options.flushAtBytes ?? FLUSH_AT_BYTES;
    this.onFailure = options.onFailure;
  }

  /**
   * Opens the store in the file `path`, making it when there is none (its directory must exist). Beside it lies
   * `path`-lock. Only one process may have it open.
   * @throws HoldfastError CORRUPT when the file is damaged or no LMDB file, VERSION when its format is not known
   */
  static open(path: string, options: LmdbKvOptions = {}): LmdbKv {
    checkFile(path);
    let root: RootDatabase<Buffer, Buffer> | undefined;
    try {
      root = open<Buffer, Buffer>({
        path,
        noSubdir: true,
        overlappingSync: false,
        readOnly: options.readOnly ?? false,
        keyEncoding: 'binary',
        encoding: 'binary',
        maxDbs: 4,
      });
      const format = root.openDB<Buffer, Buffer>('format', { keyEncoding: 'binary', encoding: 'binary' });
      const data = root.openDB<Buffer, Buffer>('data', { keyEncoding: 'binary', encoding: 'binary' });
      checkFormat(path, format, data);
      return new LmdbKv(path, root, data, options);
    } catch (error) {
      void root?.close();
      if (error instanceof HoldfastError) throw error;
      throw new HoldfastError('CORRUPT', `cannot open the store ${path}: ${messageOf(error)}`);
    }
  }

  get(key: Buffer): Buffer | undefined {
    assert(!this.closed, 'the store is closed');
    const name = overlayKey(key);
    const entry = this.active.get(name) ?? this.flushing?.get(name);
    return entry ? entry.value : this.opened(key, this.data.getBinary(key));
  }

  peek(key: Buffer): Buffer | undefined {
    assert(!this.closed, 'the store is closed');
    const name = overlayKey(key);
    const entry = this.active.get(name) ?? this.flushing?.get(name);
    if (entry) return entry.value;
    // lmdb's one buffer for all values; its `length` is that of this value.
    return this.opened(key, this.data.getBinaryFast(key));
  }

  range(start: Buffer, end: Buffer, options: { limit?: number; reverse?: boolean } = {}): Iterable<KvEntry> {
    assert(!this.closed, 'the store is closed');
    const { limit = Number.POSITIVE_INFINITY, reverse = false } = options;
    if (Buffer.compare(start, end) >= 0) return [];
    const sources: Iterable<OverlayEntry>[] = [];
    const [from, to] = [start.toString('latin1'), end.toString('latin1')];
    for (const overlay of [this.active, this.flushing]) {
      if (overlay?.size && overlay.hasIn(from, to)) sources.push(overlay.range(from, to, reverse));
    }
    const bounds = reverse
      ? { start: end, end: start, reverse, exclusiveStart: true, inclusiveEnd: true }
      : { start, end };
    if (sources.length === 0) {
      if (limit <= 0) return [];
      return this.openedRange(
        this.data.getRange(limit < Number.POSITIVE_INFINITY ? { ...bounds, limit } : bounds),
      );
    }
    sources.push(this.openedRange(this.data.getRange(bounds)));
    return mergeRanges(sources, limit, reverse);
  }

  /** The value of what is stored under `key`, verified. */
  private opened(key: Buffer, stored: Buffer | undefined): Buffer | undefined {
    if (stored === undefined) return undefined;
    const value = unseal(key, stored);
    if (value === undefined) throw this.damaged(`a value with a wrong checksum, key ${key.toString('hex')}`);
    return value;
  }

  private *openedRange(stored: Iterable<{ key: Buffer; value: Buffer }>): Generator<KvEntry> {
    for (const { key, value } of stored) yield { key, value: this.opened(key, value) as Buffer };
  }

  private damaged(what: string): HoldfastError {
    const error = new HoldfastError('CORRUPT', `the store ${this.path} holds ${what}`);
    this.fail(error);
    return error;
  }

  /** Nothing is written any more. */
  private fail(error: HoldfastError): void {
    if (this.failure) return;
    this.failure = error;
    this.onFailure?.(error);
  }

  /**
   * Reads everything and compares: checksums, the order of the keys, and the count that LMDB itself keeps.
   * @param betweenPieces others write meanwhile: it is read in pieces, each of one state, this is called after each, and the
   * count is not compared
   * @throws HoldfastError CORRUPT
   * @returns the number of records
   */
  verify(betweenPieces?: () => void): number {
    let count = 0;
    let last: Buffer | undefined;
    const limit = betweenPieces ? VERIFY_PIECE_RECORDS : Number.POSITIVE_INFINITY;
    try {
      for (let read = limit; read === limit; betweenPieces?.()) {
        read = 0;
        this.data.resetReadTxn();
        for (const { key, value } of this.data.getRange(last ? { start: last, exclusiveStart: true } : {})) {
          this.opened(key, value);
          if (last && Buffer.compare(last, key) >= 0) throw this.damaged('keys out of order');
          last = Buffer.from(key);
          if (++read === limit) break;
        }
        count += read;
      }
    } catch (error) {
      if (error instanceof HoldfastError) throw error;
      throw this.damaged(messageOf(error));
    }
    const { entryCount } = this.data.getStats() as { entryCount: number };
    if (!betweenPieces && entryCount !== count) {
      throw this.damaged(`${count} records where ${entryCount} were written`);
    }
    return count;
  }

  transaction<T>(fn: (txn: KvTransaction) => T): T {
    assert(!this.closed, 'the store is closed');
    assert(!this.running, 'transactions do not nest');
    if (this.failure) throw this.failure;
    if (this.unflushedBytes() >= REFUSE_AT_BYTES) {
      throw new HoldfastError('OVERLOADED', 'the disk of the metadata store does not keep up');
    }
    this.running = true;
    try {
      const { result, bytes } = runTransaction(this.active, true, this, fn);
      this.activeBytes += bytes;
      return result;
    } finally {
      this.running = false;
      if (this.activeBytes >= this.flushAtBytes) this.startFlush();
    }
  }

  async flushed(): Promise<void> {
    // Two rounds: the first may have begun before this call.
    for (let round = 0; round < 2 && this.unflushedBytes() > 0; round++) {
      if (this.failure) throw this.failure;
      const covers = this.flush === undefined;
      this.startFlush();
      await this.flush;
      if (this.failure) throw this.failure;
      if (covers) return;
    }
  }

  behind(): Promise<void> | undefined {
    return this.unflushedBytes() >= BEHIND_AT_BYTES ? this.flushed() : undefined;
  }

  async view(): Promise<KvView> {
    assert(!this.closed, 'the store is closed');
    await this.flushed();
    if (this.closed) throw new HoldfastError('UNAVAILABLE', 'the store is closed');
    this.data.resetReadTxn();
    const transaction = this.data.useReadTransaction();
    this.views.add(transaction);
    const alive = (): void => {
      if (!this.views.has(transaction)) throw new HoldfastError('UNAVAILABLE', 'the view is closed');
    };
    return {
      get: (key) => {
        alive();
        return this.opened(key, this.data.get(key, { transaction }));
      },
      peek: (key) => {
        alive();
        return this.opened(key, this.data.get(key, { transaction }));
      },
      range: (start, end, options = {}) => {
        alive();
        if (Buffer.compare(start, end) >= 0) return [];
        const { limit, reverse } = options;
        const bounds = reverse
          ? { start: end, end: start, reverse, exclusiveStart: true, inclusiveEnd: true }
          : { start, end };
        return this.openedRange(this.data.getRange({ ...bounds, limit, transaction }));
      },
      close: () => this.endView(transaction),
    };
  }

  private endView(transaction: Transaction): void {
    if (this.views.delete(transaction)) transaction.done();
  }

  async backup(path: string): Promise<void> {
    assert(!this.closed, 'the store is closed');
    const exists = await access(path).then(
      () => true,
      () => false,
    );
    if (exists) throw new HoldfastError('EEXIST', path);
    await this.flushed();
    await this.root.backup(path, true);
    const file = await openFile(path, 'r+');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    try {
      await this.flushed();
    } finally {
      this.closed = true;
      for (const transaction of [...this.views]) this.endView(transaction);
      await this.root.close();
    }
  }

  private unflushedBytes(): number {
    return this.activeBytes + this.flushingBytes;
  }

  /** Begins to write the overlay to LMDB, unless that is going on already or has failed for good. */
  private startFlush(): void {
    if (this.flush || this.failure || this.activeBytes === 0) return;
    const overlay = this.active;
    this.flushing = overlay;
    this.flushingBytes = this.activeBytes;
    this.active = createOverlay();
    this.activeBytes = 0;
    this.flush = this.writeOverlay(overlay).then(
      () => this.flushEnded(),
      async (error: unknown) => {
        // The overlay stays: what was committed can still be read.
        const cause = await causeOf(error);
        this.flush = undefined;
        this.fail(new HoldfastError('EIO', `writing the store ${this.path}: ${messageOf(cause)}`));
      },
    );
  }

  /** One LMDB transaction; resolves when it is on disk. */
  private async writeOverlay(overlay: Overlay): Promise<void> {
    const written = await this.data.batch(() => {
      for (const [, { key, value }] of overlay.entries()) {
        if (value) void this.data.put(key, seal(key, value));
        else void this.data.remove(key);
      }
    });
    if (!written) throw new Error('the transaction was refused');
  }

  private flushEnded(): void {
    // A read snapshot from before the commit would miss what the overlay is about to stop showing.
    this.data.resetReadTxn();
    this.flushing = undefined;
    this.flushingBytes = 0;
    this.flush = undefined;
    if (this.activeBytes >= this.flushAtBytes && !this.closed) this.startFlush();
  }
}

/** What made a commit fail: lmdb hands it over in a promise of its own, which must not stay unhandled. */
async function causeOf(error: unknown): Promise<unknown> {
  const cause = (error as { commitError?: Promise<never> }).commitError;
  if (!(cause instanceof Promise)) return error;
  return cause.catch((reason: unknown) => reason);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function checkFormat(path: string, format: Database<Buffer, Buffer>, data: Database<Buffer, Buffer>): void {
  const found = format.getBinary(FORMAT_KEY);
  if (found?.equals(FORMAT_VALUE)) return;
  const described = found ? `format "${found.toString('latin1', 0, 40)}"` : 'no format record';
  if (found || data.getKeysCount({ limit: 1 }) > 0) {
    throw new HoldfastError('VERSION', `the store ${path} has ${described}, not "${FORMAT_VALUE}"`);
  }
  format.putSync(FORMAT_KEY, FORMAT_VALUE);
}

// LMDB's file format as lmdb 3.5 writes it: two meta pages, each a page header and then these fields.
const META_MAGIC_OFFSET = 24;
const META_MAGIC = 0xbeefc0de;
const META_VERSION_OFFSET = 28;
const META_VERSION = 2;
const META_PAGE_SIZE_OFFSET = 48;
const META_ROOT_OFFSETS = [88, 136];
const META_TXNID_OFFSET = 152;
const META_BYTES = 168;
const NO_ROOT = 0xffff_ffff_ffff_ffffn;

/**
 * Looks at the meta pages before LMDB maps the file, since a page that is missing would end the process with SIGBUS.
 * @throws HoldfastError CORRUPT or VERSION; a missing or empty file is fine
 */
function checkFile(path: string): void {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    const { size } = fstatSync(descriptor);
    if (size === 0) return;
    const corrupt = (what: string): HoldfastError =>
      new HoldfastError('CORRUPT', `the store ${path} ${what}`);
    const first = readMeta(descriptor, 0);
    if (first?.readUInt32LE(META_MAGIC_OFFSET) !== META_MAGIC) throw corrupt('is not an LMDB file');
    const version = first.readUInt32LE(META_VERSION_OFFSET) & 0xffff;
    if (version !== META_VERSION) {
      throw new HoldfastError('VERSION', `the store ${path} has LMDB format ${version}, not ${META_VERSION}`);
    }
    const pageSize = first.readUInt32LE(META_PAGE_SIZE_OFFSET);
    const second = readMeta(descriptor, pageSize);
    if (second?.readUInt32LE(META_MAGIC_OFFSET) !== META_MAGIC)
      throw corrupt('has a damaged second meta page');
    const newest =
      first.readBigUInt64LE(META_TXNID_OFFSET) >= second.readBigUInt64LE(META_TXNID_OFFSET) ? first : second;
    for (const offset of META_ROOT_OFFSETS) {
      const root = newest.readBigUInt64LE(offset);
      if (root !== NO_ROOT && (root + 1n) * BigInt(pageSize) > BigInt(size)) throw corrupt('is cut off');
    }
  } finally {
    closeSync(descriptor);
  }
}

function readMeta(descriptor: number, position: number): Buffer | undefined {
  const meta = Buffer.alloc(META_BYTES);
  return readSync(descriptor, meta, 0, META_BYTES, position) === META_BYTES ? meta : undefined;
}
