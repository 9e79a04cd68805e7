import { LruMap } from '../../common/lru-map.js';

/** A block as the servers gave it: what it lacks at its end is a hole. */
export interface Block {
  readonly index: number;
  readonly data: Promise<Buffer>;
  /** Once it is here. */
  readonly ready: Buffer | undefined;
}

interface Entry extends Block {
  readonly ino: number;
  ready: Buffer | undefined;
  /** What it counts in the cache: the size of a whole block. */
  readonly bytes: number;
  /** Belief.stamp() when it was asked for. */
  readonly asOf: number;
  /** Bytes of it that readers were given. */
  given: number;
}

/** Who knows whether what was read a while ago is still what the servers hold. */
export interface Belief {
  /** A moment, to be asked about later. */
  stamp(): number;
  /** Whether nobody else can have changed the file since that moment. */
  covers(ino: number, stamp: number): boolean;
}

/**
 * Blocks that were read ahead, of all files, within one bound; the least recently used one goes first. A block is
 * believed for as long as the lease under which it was asked for is held without a break.
 */
export class BlockCache {
  readonly #belief: Belief;
  readonly #bytesMax: number;
  /** By inode, then by index. */
  readonly #files = new Map<number, Map<number, Entry>>();
  readonly #order = new LruMap<Entry, undefined>();
  #bytes = 0;

  constructor(bytesMax: number, belief: Belief) {
    this.#bytesMax = bytesMax;
    this.#belief = belief;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(ino: number, index: number): Block | undefined {
    const entry = this.#files.get(ino)?.get(index);
    if (!entry) return undefined;
    if (!this.#belief.covers(ino, entry.asOf)) {
      this.#remove(entry);
      return undefined;
    }
    this.#order.get(entry);
    return entry;
  }

  /** Whether a block is there, without counting as a use. */
  has(ino: number, index: number): boolean {
    return this.#files.get(ino)?.has(index) ?? false;
  }

  /**
   * Fetches a block and keeps it, as long as it succeeds and nobody drops it meanwhile.
   * @param bytes at most this much
   * @returns undefined when it would not fit
   */
  fetch(ino: number, index: number, bytes: number, fetch: () => Promise<Buffer>): Block | undefined {
    if (bytes > this.#bytesMax) return undefined;
    while (this.#bytes + bytes > this.#bytesMax) {
      const oldest = this.#order.oldest()?.[0];
      if (!oldest) return undefined;
      this.#remove(oldest);
    }
    const old = this.#files.get(ino)?.get(index);
    if (old) this.#remove(old);
    const asOf = this.#belief.stamp();
    const entry: Entry = { ino, index, bytes, asOf, given: 0, data: fetch(), ready: undefined };
    entry.data.then(
      (data) => {
        entry.ready = data;
      },
      () => this.#remove(entry),
    );
    let file = this.#files.get(ino);
    if (!file) {
      file = new Map();
      this.#files.set(ino, file);
    }
    file.set(index, entry);
    this.#order.set(entry, undefined);
    this.#bytes += bytes;
    return entry;
  }

  /**
   * `bytes` of a block go to a reader. When all that it holds have gone it is forgotten: the kernel keeps them in its page
   * cache, and memory that is let go young costs the garbage collector nothing.
   * @param holds bytes of the file that lie in the block
   */
  gave(ino: number, index: number, bytes: number, holds: number): void {
    const entry = this.#files.get(ino)?.get(index);
    if (!entry) return;
    entry.given += bytes;
    if (entry.given >= holds) this.#remove(entry);
  }

  /** Forgets a file's blocks: somebody changed it. */
  drop(ino: number): void {
    const file = this.#files.get(ino);
    if (file) for (const entry of [...file.values()]) this.#remove(entry);
  }

  /** Forgets the blocks that hold any of [start, end), those under way included. @param unit bytes of a block */
  dropRange(ino: number, start: number, end: number, unit: number): void {
    const file = this.#files.get(ino);
    if (!file) return;
    for (let index = Math.floor(start / unit); index * unit < end; index++) {
      const entry = file.get(index);
      if (entry) this.#remove(entry);
    }
  }

  #remove(entry: Entry): void {
    if (!this.#order.delete(entry)) return;
    this.#bytes -= entry.bytes;
    const file = this.#files.get(entry.ino);
    file?.delete(entry.index);
    if (file?.size === 0) this.#files.delete(entry.ino);
  }
}
