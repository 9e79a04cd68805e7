import { assert } from '../../common/assert.js';
import type { RaftEntry, RaftSnapshotMeta } from '../raft/types.js';

/** What an entry is taken to weigh beside its data. */
export const ENTRY_OVERHEAD_BYTES = 64;

/** Bytes that an entry counts for in limits. */
export function entryBytes(entry: RaftEntry): number {
  return entry.data.length + ENTRY_OVERHEAD_BYTES;
}

/**
 * The entries of the log behind its base, in memory: contiguous, ordered by index, terms never falling.
 *
 * All of them are kept, not only the newest: the consensus core reads synchronously, and a read from disk would hold up
 * the whole server for the sake of one slow follower. The log is cut behind the durable state machine (log-storage.ts),
 * which bounds this window; a follower that needs older entries gets a snapshot.
 */
export class EntryWindow {
  #base: { index: number; term: number };
  /** entries[#head] has index base + 1; slots before #head were cut and are undefined. */
  #entries: (RaftEntry | undefined)[] = [];
  #head = 0;
  #bytes = 0;

  constructor(base: Pick<RaftSnapshotMeta, 'index' | 'term'>) {
    this.#base = { index: base.index, term: base.term };
  }

  get firstIndex(): number {
    return this.#base.index + 1;
  }

  get lastIndex(): number {
    return this.#base.index + this.#entries.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Term of the entry; that of the base too; undefined outside. */
  term(index: number): number | undefined {
    return index === this.#base.index ? this.#base.term : this.at(index)?.term;
  }

  at(index: number): RaftEntry | undefined {
    if (index <= this.#base.index) return undefined;
    return this.#entries[this.#head + index - this.#base.index - 1];
  }

  /** Adds entries; those that were there from the first new index on are superseded. */
  append(entries: readonly RaftEntry[]): void {
    const first = entries[0];
    if (!first) return;
    const last = this.lastIndex;
    assert(first.index > this.#base.index, `entry ${first.index} lies behind the cut at ${this.#base.index}`);
    assert(first.index <= last + 1, `gap in the log: entry ${first.index} after ${last}`);
    for (let index = first.index; index <= last; index++)
      this.#bytes -= entryBytes(this.at(index) as RaftEntry);
    this.#entries.length -= last - first.index + 1;
    let next = first.index;
    for (const entry of entries) {
      assert(entry.index === next, `entries out of order: ${entry.index} where ${next} belongs`);
      this.#entries.push(entry);
      this.#bytes += entryBytes(entry);
      next++;
    }
  }

  /** Entries lo <= index < hi up to `maxBytes`, at least one; undefined when lo was cut away. */
  slice(lo: number, hi: number, maxBytes: number): RaftEntry[] | undefined {
    if (lo <= this.#base.index) return undefined;
    const result: RaftEntry[] = [];
    const end = Math.min(hi, this.lastIndex + 1);
    let bytes = 0;
    for (let index = lo; index < end; index++) {
      const entry = this.at(index) as RaftEntry;
      bytes += entryBytes(entry);
      if (result.length > 0 && bytes > maxBytes) break;
      result.push(entry);
    }
    return result;
  }

  /** Drops the entries up to and including `index`, which becomes the base. */
  cut(index: number): void {
    const term = this.term(index);
    assert(term !== undefined, `cut at ${index}, which is not in the log`);
    for (let i = this.#base.index + 1; i <= index; i++) {
      this.#bytes -= entryBytes(this.at(i) as RaftEntry);
      this.#entries[this.#head + i - this.#base.index - 1] = undefined;
    }
    this.#head += index - this.#base.index;
    this.#base = { index, term };
    // Moving the rest costs its length: done when at least as many slots are free, so that it is constant an entry.
    if (this.#head * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Tells the base's term when it was not known: after a replay that began in the middle of the log. */
  setBaseTerm(term: number): void {
    this.#base.term = term;
  }

  /** Forgets everything: the log goes on behind `base`. */
  reset(base: Pick<RaftSnapshotMeta, 'index' | 'term'>): void {
    this.#base = { index: base.index, term: base.term };
    this.#entries = [];
    this.#head = 0;
    this.#bytes = 0;
  }

  /**
   * The highest index up to which entries may go so that `keepEntries` entries stay, or fewer where they would weigh more than
   * `keepBytes`.
   */
  cutPoint(keepEntries: number, keepBytes: number): number {
    let index = this.lastIndex;
    let bytes = 0;
    while (index > this.#base.index && this.lastIndex - index < keepEntries) {
      bytes += entryBytes(this.at(index) as RaftEntry);
      if (bytes > keepBytes) break;
      index--;
    }
    return index;
  }
}
