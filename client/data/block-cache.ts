import type { Clock } from '../../common/clock.js';

/** A block as the servers gave it: what it lacks at its end is a hole. */
export interface Block {
  readonly index: number;
  readonly data: Promise<Buffer>;
}

interface Entry extends Block {
  readonly ino: number;
  /** What it counts in the cache: the size of a whole block. */
  readonly bytes: number;
  /** Clock ms when it was asked for. */
  readonly askedAt: number;
}

interface FileBlocks {
  entries: Map<number, Entry>;
  /** Clock ms when the server last said that the file is as it was. */
  confirmedAt: number;
}

/**
 * Blocks that were read ahead, of all files, within one bound; the least recently used one goes first. A block is
 * believed for a limited time after its file's attributes were confirmed.
 */
export class BlockCache {
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #maxAgeMs: number;
  readonly #files = new Map<number, FileBlocks>();
  /** Least recently used first. */
  readonly #order = new Set<Entry>();
  #bytes = 0;

  constructor(clock: Clock, options: { bytesMax: number; maxAgeMs: number }) {
    this.#clock = clock;
    this.#bytesMax = options.bytesMax;
    this.#maxAgeMs = options.maxAgeMs;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(ino: number, index: number): Block | undefined {
    const file = this.#files.get(ino);
    const entry = file?.entries.get(index);
    if (!file || !entry) return undefined;
    if (this.#clock.now() - Math.max(entry.askedAt, file.confirmedAt) > this.#maxAgeMs) {
      this.#remove(entry);
      return undefined;
    }
    this.#order.delete(entry);
    this.#order.add(entry);
    return entry;
  }

  /** Whether a block is there, without counting as a use. */
  has(ino: number, index: number): boolean {
    return this.#files.get(ino)?.entries.has(index) ?? false;
  }

  /**
   * Fetches a block and keeps it, as long as it succeeds and nobody drops it meanwhile.
   * @param bytes at most this much
   * @returns undefined when it would not fit
   */
  fetch(ino: number, index: number, bytes: number, fetch: () => Promise<Buffer>): Block | undefined {
    if (bytes > this.#bytesMax) return undefined;
    while (this.#bytes + bytes > this.#bytesMax) {
      const oldest = this.#order.values().next().value;
      if (!oldest) return undefined;
      this.#remove(oldest);
    }
    const old = this.#files.get(ino)?.entries.get(index);
    if (old) this.#remove(old);
    const entry: Entry = { ino, index, bytes, askedAt: this.#clock.now(), data: fetch() };
    entry.data.catch(() => this.#remove(entry));
    let file = this.#files.get(ino);
    if (!file) {
      file = { entries: new Map(), confirmedAt: -Infinity };
      this.#files.set(ino, file);
    }
    file.entries.set(index, entry);
    this.#order.add(entry);
    this.#bytes += bytes;
    return entry;
  }

  /** The server said that the file has not changed. */
  confirm(ino: number): void {
    const file = this.#files.get(ino);
    if (file) file.confirmedAt = this.#clock.now();
  }

  /** Forgets a file's blocks: somebody changed it. */
  drop(ino: number): void {
    const file = this.#files.get(ino);
    if (file) for (const entry of [...file.entries.values()]) this.#remove(entry);
  }

  /** Forgets the blocks that hold any of [start, end), those under way included. @param unit bytes of a block */
  dropRange(ino: number, start: number, end: number, unit: number): void {
    const file = this.#files.get(ino);
    if (!file) return;
    for (let index = Math.floor(start / unit); index * unit < end; index++) {
      const entry = file.entries.get(index);
      if (entry) this.#remove(entry);
    }
  }

  #remove(entry: Entry): void {
    if (!this.#order.delete(entry)) return;
    this.#bytes -= entry.bytes;
    const file = this.#files.get(entry.ino);
    file?.entries.delete(entry.index);
    if (file?.entries.size === 0) this.#files.delete(entry.ino);
  }
}
