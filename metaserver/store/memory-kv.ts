import { writeFile } from 'node:fs/promises';
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

const MAGIC = Buffer.from('HFMEMKV1');
const LENGTH_BYTES = 4;

/** A Kv in memory, for tests and the simulator. What `flushed()` has not covered can be made to vanish, as in a crash. */
export class MemoryKv implements Kv {
  protected readonly entries: Overlay;
  /** Keys written since the last flush, with what they were then. */
  protected readonly unflushed = new Map<string, OverlayEntry | undefined>();
  private open = true;
  private running = false;

  /** @param image made by `image()` or `backup()`. @throws HoldfastError CORRUPT when it is something else */
  constructor(image?: Buffer) {
    this.entries = image ? parseImage(image) : createOverlay();
  }

  get(key: Buffer): Buffer | undefined {
    assert(this.open, 'the store is closed');
    return this.entries.get(overlayKey(key))?.value;
  }

  peek(key: Buffer): Buffer | undefined {
    return this.get(key);
  }

  range(start: Buffer, end: Buffer, options: { limit?: number; reverse?: boolean } = {}): Iterable<KvEntry> {
    assert(this.open, 'the store is closed');
    const { limit = Number.POSITIVE_INFINITY, reverse = false } = options;
    const source = this.entries.range(start.toString('latin1'), end.toString('latin1'), reverse);
    return mergeRanges([source], limit, reverse);
  }

  transaction<T>(fn: (txn: KvTransaction) => T): T {
    assert(this.open, 'the store is closed');
    assert(!this.running, 'transactions do not nest');
    this.running = true;
    try {
      const { result, undo } = runTransaction(this.entries, false, this, fn);
      for (const { key, entry } of undo) if (!this.unflushed.has(key)) this.unflushed.set(key, entry);
      return result;
    } finally {
      this.running = false;
    }
  }

  async flushed(): Promise<void> {
    this.unflushed.clear();
  }

  behind(): undefined {
    return undefined;
  }

  async view(): Promise<KvView> {
    const copy = new MemoryKv(this.image());
    const alive = (): void => {
      if (!copy.open || !this.open) throw new HoldfastError('UNAVAILABLE', 'the view is closed');
    };
    return {
      get: (key) => {
        alive();
        return copy.get(key);
      },
      peek: (key) => {
        alive();
        return copy.get(key);
      },
      range: (start, end, options) => {
        alive();
        return copy.range(start, end, options);
      },
      close: () => {
        copy.open = false;
      },
    };
  }

  async backup(path: string): Promise<void> {
    await writeFile(path, this.image(), { flag: 'wx', flush: true });
  }

  async close(): Promise<void> {
    await this.flushed();
    this.open = false;
  }

  /** The whole content as bytes: equal contents give equal images. */
  image(): Buffer {
    const parts: Buffer[] = [MAGIC];
    const push = (bytes: Buffer): void => {
      const length = Buffer.alloc(LENGTH_BYTES);
      length.writeUInt32LE(bytes.length);
      parts.push(length, bytes);
    };
    for (const entry of [...this.entries.entries()].map(([, each]) => each).sort(byKey)) {
      push(entry.key);
      push(this.stored(entry));
    }
    return Buffer.concat(parts);
  }

  /** The value that lies in the store: a simulation may have changed it there. */
  protected stored({ value }: OverlayEntry): Buffer {
    return value as Buffer;
  }

  /** A store as a machine finds it after a power cut: this one as the last flush left it. */
  afterCrash(): MemoryKv {
    return new MemoryKv(this.imageAfterCrash());
  }

  /** The content of afterCrash(). */
  imageAfterCrash(): Buffer {
    this.open = false;
    for (const [key, entry] of this.unflushed) {
      if (entry) this.entries.set(key, entry);
      else this.entries.delete(key);
    }
    return this.image();
  }
}

function byKey(a: { key: Buffer }, b: { key: Buffer }): number {
  return Buffer.compare(a.key, b.key);
}

function parseImage(image: Buffer): Overlay {
  if (!image.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new HoldfastError('CORRUPT', 'not an image of a memory store');
  }
  const entries = createOverlay();
  let at = MAGIC.length;
  const next = (): Buffer => {
    const end =
      at + LENGTH_BYTES + (at + LENGTH_BYTES <= image.length ? image.readUInt32LE(at) : image.length);
    if (end > image.length) throw new HoldfastError('CORRUPT', 'image of a memory store is cut off');
    const bytes = image.subarray(at + LENGTH_BYTES, end);
    at = end;
    return bytes;
  };
  while (at < image.length) {
    const key = next();
    entries.set(overlayKey(key), { key, value: next() });
  }
  return entries;
}
