import { LruMap } from '../../common/lru-map.js';
import { NameFilter } from './name-filter.js';

/**
 * What is known of the names in leased directories: entries, names that do not exist, and whole listings. Pure. Which of
 * it may be believed is the lease table's to say; what a recall takes is dropped here.
 */

/** Names of all directories together, those that do not exist included; the directory unused longest goes first. */
export const NAMES_MAX = 262_144;
/** Entries of one directory that are remembered. One with more is never known as a whole, only which names it has not. */
export const COMPLETE_ENTRIES_MAX = 65_536;
/** Names, of all directories together, that are known by their checksums alone: 8 to 16 bytes each. */
export const FILTERED_NAMES_MAX = 2_097_152;
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
  /** Of a directory that is too large to be complete: a name that this has not, and `entries` neither, is absent. */
  filter: NameFilter | undefined;
  parent: number;
  /** Entries with a place, in its order; undefined: to be made anew. */
  listing: Name[] | undefined;
  /** Entries without a place. */
  unplaced: number;
}

export class NameCache {
  readonly #entriesMax: number;
  readonly #directories = new LruMap<number, Directory>();
  #names = 0;
  #filtered = 0;

  /** @param entriesMax of one directory, at most COMPLETE_ENTRIES_MAX */
  constructor(entriesMax = COMPLETE_ENTRIES_MAX) {
    this.#entriesMax = entriesMax;
  }

  /** A directory with more entries is not kept as a whole. */
  get entriesMax(): number {
    return this.#entriesMax;
  }

  get size(): number {
    return this.#names;
  }

  /** The entry; 'absent' when the name is known not to exist; undefined when nothing is known. */
  lookup(directory: number, name: Buffer): Name | 'absent' | undefined {
    const known = this.#use(directory);
    if (!known) return undefined;
    const key = keyOf(name);
    const entry = known.entries.get(key);
    if (entry) return entry;
    if (known.complete || known.absent.has(key)) return 'absent';
    return known.filter && !known.filter.mayHave(name) ? 'absent' : undefined;
  }

  isComplete(directory: number): boolean {
    return this.#use(directory)?.complete ?? false;
  }

  /** Whether nearly every name that the directory has not is known to be absent: it is complete, or all but too large. */
  tellsAbsence(directory: number): boolean {
    const known = this.#use(directory);
    return known !== undefined && (known.complete || known.filter !== undefined);
  }

  /** Entries of a directory that is known as a whole; undefined: it is not. */
  count(directory: number): number | undefined {
    const known = this.#directories.peek(directory);
    return known?.complete ? known.entries.size : undefined;
  }

  /** Whether it has too many entries to be known as a whole, but it is known which names it has not. */
  isLarge(directory: number): boolean {
    return this.#directories.peek(directory)?.filter !== undefined;
  }

  put(directory: number, entry: Name): void {
    const known = this.#make(directory);
    this.#addToFilter(known, entry.name);
    const key = keyOf(entry.name);
    const before = known.entries.get(key);
    if (before && before.ino === entry.ino && entry.cookie === 0 && before.cookie !== 0) return;
    if (before || known.absent.size > 0) this.#remove(known, key);
    known.entries.set(key, entry);
    if (entry.cookie === 0) known.unplaced++;
    known.listing = undefined;
    this.#names++;
    if (known.entries.size > this.#entriesMax) this.#outgrown(known);
    this.#trim(directory);
  }

  /** It has more entries than are remembered: of what was complete it stays known which names there are. */
  #outgrown(known: Directory): void {
    if (known.complete) {
      const filter = new NameFilter();
      for (const { name } of known.entries.values()) filter.add(name);
      this.#setFilter(known, filter);
    }
    const [oldest] = known.entries.keys();
    this.#remove(known, oldest as string);
  }

  #addToFilter(known: Directory, name: Buffer): void {
    const { filter } = known;
    if (!filter) return;
    const before = filter.size;
    filter.add(name);
    this.#filtered += filter.size - before;
    if (this.#filtered > FILTERED_NAMES_MAX) this.#dropFilter(known);
  }

  #setFilter(known: Directory, filter: NameFilter): void {
    this.#dropFilter(known);
    known.complete = false;
    known.filter = filter;
    this.#filtered += filter.size;
    if (this.#filtered > FILTERED_NAMES_MAX) this.#dropFilter(known);
  }

  #dropFilter(known: Directory): void {
    this.#filtered -= known.filter?.size ?? 0;
    known.filter = undefined;
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
    this.#addToFilter(known, name);
    known.complete = false;
  }

  /** All names of a directory with too many entries to keep; entries that are known stay so. */
  filtered(directory: number, filter: NameFilter): void {
    this.#setFilter(this.#make(directory), filter);
  }

  /** All entries of a directory. @returns false when there are too many to keep */
  complete(directory: number, parent: number, entries: readonly Name[]): boolean {
    this.drop(directory);
    if (entries.length > this.#entriesMax) return false;
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
    this.#dropFilter(known);
  }

  clear(): void {
    this.#directories.clear();
    this.#names = 0;
    this.#filtered = 0;
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
      filter: undefined,
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
    if (this.#names <= NAMES_MAX) return;
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
