import { LruMap } from '../../common/lru-map.js';

/**
 * What is known of the names in leased directories: entries, names that do not exist, and whole listings. Pure. Which of
 * it may be believed is the lease table's to say; what a recall takes is dropped here.
 */

/** Names of all directories together, those that do not exist included; the directory unused longest goes first. */
export const NAMES_MAX = 262_144;
/** A directory with more entries is never known as a whole. */
export const COMPLETE_ENTRIES_MAX = 65_536;
/** Names of one directory that are remembered as absent. */
export const ABSENT_NAMES_MAX = 4096;

export interface Name {
  readonly name: Buffer;
  readonly ino: number;
  /** S_IFMT bits of the mode >> 12. */
  readonly type: number;
  /** The server's place of it in the listing; 0: not known yet, behind all that are. */
  readonly cookie: number;
}

interface Directory {
  entries: Map<string, Name>;
  absent: Set<string>;
  /** `entries` is all there is, and `parent` known. */
  complete: boolean;
  parent: number;
  /** Entries with a place, in its order; undefined: to be made anew. */
  listing: Name[] | undefined;
  /** Entries without a place. */
  unplaced: number;
}

export class NameCache {
  readonly #directories = new LruMap<number, Directory>();
  #names = 0;

  get size(): number {
    return this.#names;
  }

  /** The entry; 'absent' when the name is known not to exist; undefined when nothing is known. */
  lookup(directory: number, name: Buffer): Name | 'absent' | undefined {
    const known = this.#use(directory);
    if (!known) return undefined;
    const key = keyOf(name);
    return known.entries.get(key) ?? (known.complete || known.absent.has(key) ? 'absent' : undefined);
  }

  isComplete(directory: number): boolean {
    return this.#use(directory)?.complete ?? false;
  }

  /** Entries of a directory that is known as a whole; undefined: it is not. */
  count(directory: number): number | undefined {
    const known = this.#directories.peek(directory);
    return known?.complete ? known.entries.size : undefined;
  }

  put(directory: number, entry: Name): void {
    const known = this.#make(directory);
    const key = keyOf(entry.name);
    const before = known.entries.get(key);
    if (before && before.ino === entry.ino && entry.cookie === 0 && before.cookie !== 0) return;
    this.#remove(known, key);
    known.entries.set(key, entry);
    if (entry.cookie === 0) known.unplaced++;
    known.listing = undefined;
    this.#names++;
    if (known.complete && known.entries.size > COMPLETE_ENTRIES_MAX) known.complete = false;
    this.#trim(directory);
  }

  /** The place of an entry that was put without one; of another entry of that name it is not. */
  place(directory: number, entry: Name, cookie: number): void {
    const known = this.#directories.peek(directory);
    const key = keyOf(entry.name);
    if (known?.entries.get(key) !== entry || entry.cookie !== 0 || cookie === 0) return;
    known.entries.set(key, { ...entry, cookie });
    known.unplaced--;
    known.listing = undefined;
  }

  putAbsent(directory: number, name: Buffer): void {
    const known = this.#make(directory);
    const key = keyOf(name);
    this.#remove(known, key);
    if (known.complete) return;
    if (known.absent.size >= ABSENT_NAMES_MAX) {
      this.#names -= known.absent.size;
      known.absent.clear();
    }
    known.absent.add(key);
    this.#names++;
    this.#trim(directory);
  }

  /** Nothing is known of this name any more. */
  forget(directory: number, name: Buffer): void {
    const known = this.#directories.peek(directory);
    if (!known) return;
    this.#remove(known, keyOf(name));
    known.complete = false;
  }

  /** All entries of a directory. @returns false when there are too many to keep */
  complete(directory: number, parent: number, entries: readonly Name[]): boolean {
    this.drop(directory);
    if (entries.length > COMPLETE_ENTRIES_MAX) return false;
    const known = this.#make(directory);
    for (const entry of entries) {
      known.entries.set(keyOf(entry.name), entry);
      if (entry.cookie === 0) known.unplaced++;
    }
    this.#names += known.entries.size;
    known.complete = true;
    known.parent = parent;
    this.#trim(directory);
    return true;
  }

  /** The listing of a directory known as a whole, by place; undefined when it is not, or some places are unknown. */
  listing(directory: number): { parent: number; entries: readonly Name[] } | undefined {
    const known = this.#use(directory);
    if (!known?.complete || known.unplaced > 0) return undefined;
    known.listing ??= [...known.entries.values()].sort((a, b) => a.cookie - b.cookie);
    return { parent: known.parent, entries: known.listing };
  }

  /** Whether a directory that is known as a whole has entries without a place. */
  hasUnplaced(directory: number): boolean {
    const known = this.#directories.peek(directory);
    return known?.complete === true && known.unplaced > 0;
  }

  /** The place behind which all entries without one will be; undefined when every place is known. */
  unplacedFrom(directory: number): number | undefined {
    const known = this.#directories.peek(directory);
    if (!known?.complete || known.unplaced === 0) return undefined;
    let last = 0;
    for (const { cookie } of known.entries.values()) last = Math.max(last, cookie);
    return last;
  }

  /** A recall took the directory's lease, or it was removed. */
  drop(directory: number): void {
    const known = this.#directories.peek(directory);
    if (!known) return;
    this.#directories.delete(directory);
    this.#names -= known.entries.size + known.absent.size;
  }

  clear(): void {
    this.#directories.clear();
    this.#names = 0;
  }

  #use(directory: number): Directory | undefined {
    return this.#directories.get(directory);
  }

  #make(directory: number): Directory {
    const known = this.#use(directory);
    if (known) return known;
    const made: Directory = {
      entries: new Map(),
      absent: new Set(),
      complete: false,
      parent: 0,
      listing: undefined,
      unplaced: 0,
    };
    this.#directories.set(directory, made);
    return made;
  }

  #remove(known: Directory, key: string): void {
    if (known.absent.delete(key)) this.#names--;
    const entry = known.entries.get(key);
    if (!entry) return;
    known.entries.delete(key);
    known.listing = undefined;
    if (entry.cookie === 0) known.unplaced--;
    this.#names--;
  }

  /** @param keep the directory being changed */
  #trim(keep: number): void {
    for (const [directory] of this.#directories) {
      if (this.#names <= NAMES_MAX || directory === keep) return;
      this.drop(directory);
    }
  }
}

/** Names are bytes: one character each. */
function keyOf(name: Buffer): string {
  return name.toString('latin1');
}
