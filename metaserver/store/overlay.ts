import { assert } from '../../common/assert.js';
import { KV_KEY_MAX_BYTES, type KvEntry, type KvReader, type KvTransaction } from './kv.js';
import { OrderedMap } from './ordered-map.js';

/** One key's newest value; `value` undefined: deleted. */
export interface OverlayEntry {
  key: Buffer;
  value: Buffer | undefined;
}

export type Overlay = OrderedMap<OverlayEntry>;

export function createOverlay(): Overlay {
  return new OrderedMap<OverlayEntry>();
}

/** The binary string under which an overlay keeps a key. @throws AssertionError on an empty or overlong key */
export function overlayKey(key: Buffer): string {
  if (key.length === 0 || key.length > KV_KEY_MAX_BYTES) assert(false, `key of ${key.length} bytes`);
  return key.toString('latin1');
}

/** What a key held before a write. */
export interface UndoRecord {
  key: string;
  entry: OverlayEntry | undefined;
}

/** The undo log of the one open transaction over an overlay. */
class OverlayTransaction {
  readonly undo: UndoRecord[] = [];
  /** Bytes of keys and values written, overwritten ones included. */
  bytes = 0;
  private closed = false;

  constructor(
    private readonly overlay: Overlay,
    /** Keep a tombstone for a deleted key, to hide what lies beneath. */
    private readonly tombstones: boolean,
  ) {}

  put(key: Buffer, value: Buffer): void {
    this.write(key, { key, value });
    this.bytes += key.length + value.length;
  }

  delete(key: Buffer): void {
    this.write(key, this.tombstones ? { key, value: undefined } : undefined);
    this.bytes += key.length;
  }

  rollback(): void {
    for (const { key, entry } of this.undo.toReversed()) {
      if (entry) this.overlay.set(key, entry);
      else this.overlay.delete(key);
    }
  }

  /** Refuses all further writes. */
  close(): void {
    this.closed = true;
  }

  private write(key: Buffer, entry: OverlayEntry | undefined): void {
    assert(!this.closed, 'write to a transaction that has ended');
    const name = overlayKey(key);
    if (entry) this.undo.push({ key: name, entry: this.overlay.set(name, entry) });
    else {
      this.undo.push({ key: name, entry: this.overlay.get(name) });
      this.overlay.delete(name);
    }
  }
}

/**
 * Runs `fn` as a transaction over `overlay`.
 * @returns what `fn` returned, the bytes that it wrote, and what each write replaced, in order
 * @throws what `fn` threw, after everything was rolled back
 */
export function runTransaction<T>(
  overlay: Overlay,
  tombstones: boolean,
  reader: KvReader,
  fn: (txn: KvTransaction) => T,
): { result: T; bytes: number; undo: UndoRecord[] } {
  const writes = new OverlayTransaction(overlay, tombstones);
  const txn: KvTransaction = {
    get: (key) => reader.get(key),
    peek: (key) => reader.peek(key),
    range: (start, end, options) => reader.range(start, end, options),
    put: (key, value) => writes.put(key, value),
    delete: (key) => writes.delete(key),
  };
  try {
    const result = fn(txn);
    assert(!(result instanceof Promise), 'a transaction is synchronous');
    return { result, bytes: writes.bytes, undo: writes.undo };
  } catch (error) {
    writes.rollback();
    throw error;
  } finally {
    writes.close();
  }
}

/** Merges sources that are each in order; of equal keys the earliest source's entry counts, and tombstones are dropped. */
export function* mergeRanges(
  sources: Iterable<OverlayEntry>[],
  limit: number,
  reverse: boolean,
): Generator<KvEntry> {
  if (sources.length === 1) return yield* limited(sources[0] as Iterable<OverlayEntry>, limit);
  const iterators = sources.map((source) => source[Symbol.iterator]());
  const heads = iterators.map((iterator) => iterator.next());
  try {
    for (let left = limit; left > 0; ) {
      let best: OverlayEntry | undefined;
      for (const head of heads) {
        if (head.done) continue;
        const order = best ? Buffer.compare(head.value.key, best.key) : 0;
        if (!best || (reverse ? order > 0 : order < 0)) best = head.value;
      }
      if (!best) return;
      for (const [index, head] of heads.entries()) {
        if (head.done || !head.value.key.equals(best.key)) continue;
        heads[index] = (iterators[index] as Iterator<OverlayEntry>).next();
      }
      if (best.value === undefined) continue;
      left--;
      yield best as KvEntry;
    }
  } finally {
    for (const iterator of iterators) iterator.return?.();
  }
}

function* limited(source: Iterable<OverlayEntry>, limit: number): Generator<KvEntry> {
  let left = limit;
  if (left <= 0) return;
  for (const entry of source) {
    if (entry.value === undefined) continue;
    yield entry as KvEntry;
    if (--left <= 0) return;
  }
}
