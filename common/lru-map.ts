interface Entry<K, V> {
  readonly key: K;
  value: V;
  older: Entry<K, V> | undefined;
  newer: Entry<K, V> | undefined;
}

/**
 * A map that knows the order in which its entries were used last, each operation in constant time.
 *
 * A Map whose entries are deleted and set again to bring them to its end is not that: V8 leaves what was deleted in the
 * chain of its bucket until the table is built anew, and each set() of the same key walks that chain. With 10,000 entries
 * a key in constant use costs 25 us each time.
 */
export class LruMap<K, V> {
  readonly #entries = new Map<K, Entry<K, V>>();
  #oldest: Entry<K, V> | undefined;
  #newest: Entry<K, V> | undefined;

  get size(): number {
    return this.#entries.size;
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  /** The value, without counting as a use. */
  peek(key: K): V | undefined {
    return this.#entries.get(key)?.value;
  }

  /** The value; the entry was used last from here on. */
  get(key: K): V | undefined {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    this.#use(entry);
    return entry.value;
  }

  /** The entry was used last from here on. */
  set(key: K, value: V): void {
    const known = this.#entries.get(key);
    if (known) {
      known.value = value;
      this.#use(known);
      return;
    }
    const entry: Entry<K, V> = { key, value, older: undefined, newer: undefined };
    this.#entries.set(key, entry);
    this.#append(entry);
  }

  delete(key: K): boolean {
    const entry = this.#entries.get(key);
    if (!entry) return false;
    this.#entries.delete(key);
    this.#unlink(entry);
    return true;
  }

  clear(): void {
    this.#entries.clear();
    this.#oldest = undefined;
    this.#newest = undefined;
  }

  /** The entry that was not used for longest. */
  oldest(): [K, V] | undefined {
    return this.#oldest && [this.#oldest.key, this.#oldest.value];
  }

  /** Takes out the entry that was not used for longest. */
  shift(): [K, V] | undefined {
    const oldest = this.oldest();
    if (oldest) this.delete(oldest[0]);
    return oldest;
  }

  /** Those unused longest first. The entry that was handed out last may be deleted meanwhile, no other one. */
  *[Symbol.iterator](): Generator<[K, V]> {
    let entry = this.#oldest;
    while (entry) {
      const { newer } = entry;
      yield [entry.key, entry.value];
      entry = newer;
    }
  }

  /** In the same order, under the same condition. */
  *values(): Generator<V> {
    for (const [, value] of this) yield value;
  }

  #use(entry: Entry<K, V>): void {
    if (entry === this.#newest) return;
    this.#unlink(entry);
    this.#append(entry);
  }

  #append(entry: Entry<K, V>): void {
    entry.older = this.#newest;
    entry.newer = undefined;
    if (this.#newest) this.#newest.newer = entry;
    else this.#oldest = entry;
    this.#newest = entry;
  }

  #unlink({ older, newer }: Entry<K, V>): void {
    if (older) older.newer = newer;
    else this.#oldest = newer;
    if (newer) newer.older = older;
    else this.#newest = older;
  }
}
