import { assert } from '../../common/assert.js';
import type { RaftEntry } from '../../proto/gen/raft.js';
import { entriesBytes, limitBytes } from './messages.js';
import type { LogReader, RaftSnapshotMeta } from './types.js';

/** Committed entries handed out in one Ready. */
export const MAX_COMMITTED_PER_READY_BYTES = 4 << 20;
/** Entries handed out to be applied and not yet applied; beyond it none are handed out. */
export const MAX_APPLYING_BYTES = 16 << 20;
/** Configurations are looked for in the log at start in steps of this size. */
const SCAN_STEP_BYTES = 1 << 20;

/**
 * The log as the core sees it: the shell's log, followed (and from its first index on replaced) by the
 * unstable tail, which was not yet handed to the shell.
 *
 *   snapshot | reader (durable up to `persisted`) | unstable
 *
 * Invariants: applied <= handed <= min(committed, persisted); committed <= lastIndex; nothing at or below
 * `committed` is ever replaced.
 */
export class RaftLog {
  readonly #reader: LogReader;
  #unstable: RaftEntry[] = [];
  /**
   * A snapshot to install that was not yet handed to the shell; it stands in place of all that the reader
   * holds.
   */
  #snapshot: RaftSnapshotMeta | undefined;
  #committed: number;
  /** Last index handed out to be applied. */
  #handed: number;
  #applied: number;
  #persisted: number;
  /** What was handed out and not applied: (last index, bytes) of each batch. */
  #applying: { last: number; bytes: number }[] = [];
  #applyingBytes = 0;

  /**
   * @param committed as persisted last; may lag behind `applied`
   * @param applied index that the state machine holds
   */
  constructor(reader: LogReader, committed: number, applied: number) {
    this.#reader = reader;
    const last = reader.lastIndex();
    this.#committed = Math.max(committed, applied);
    assert(this.#committed <= last, `the log ends at ${last}, before its committed index ${this.#committed}`);
    assert(applied >= reader.firstIndex() - 1, 'the state machine lacks entries that are compacted away');
    this.#handed = applied;
    this.#applied = applied;
    this.#persisted = last;
  }

  get committed(): number {
    return this.#committed;
  }

  get applied(): number {
    return this.#applied;
  }

  /** Durable up to here. */
  get persisted(): number {
    return this.#persisted;
  }

  firstIndex(): number {
    return this.#snapshot ? this.#snapshot.index + 1 : this.#reader.firstIndex();
  }

  lastIndex(): number {
    if (this.#unstable.length > 0) return this.#unstable[this.#unstable.length - 1]!.index;
    return this.#snapshot ? this.#snapshot.index : this.#reader.lastIndex();
  }

  lastTerm(): number {
    const term = this.term(this.lastIndex());
    assert(term !== undefined, 'the term of the last entry is known');
    return term;
  }

  /** Undefined when compacted away or beyond the end. */
  term(index: number): number | undefined {
    if (index === 0) return this.firstIndex() === 1 ? 0 : undefined;
    const offset = this.#offset();
    if (index >= offset) return this.#unstable[index - offset]?.term;
    if (this.#snapshot) return index === this.#snapshot.index ? this.#snapshot.term : undefined;
    return this.#reader.term(index);
  }

  matches(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /**
   * True when a log that ends in (index, term) holds at least all that this one holds (Raft, section 5.4.1).
   */
  isUpToDate(index: number, term: number): boolean {
    const lastTerm = this.lastTerm();
    return term > lastTerm || (term === lastTerm && index >= this.lastIndex());
  }

  /**
   * Entries from `lo` to the end, within `maxBytes`, at least one if there is one; undefined when compacted
   * away.
   */
  entriesFrom(lo: number, maxBytes: number): RaftEntry[] | undefined {
    const offset = this.#offset();
    if (lo >= offset) {
      return limitBytes(lo === offset ? this.#unstable.slice() : this.#unstable.slice(lo - offset), maxBytes);
    }
    if (lo < this.firstIndex()) return undefined;
    const stored = this.#reader.entries(lo, offset, maxBytes);
    if (stored === undefined || this.#unstable.length === 0 || stored.length < offset - lo) return stored;
    return limitBytes(stored.concat(this.#unstable), maxBytes);
  }

  /** The newest snapshot that could be sent. */
  sendableSnapshot(): RaftSnapshotMeta | undefined {
    return this.#snapshot ?? this.#reader.snapshot();
  }

  /**
   * The last index at or before `index` whose term is not above `term`, as far as this log knows: no entry
   * between it and `index` can be shared with a log that has at most `term` there.
   */
  lastNotAbove(index: number, term: number): { index: number; term: number } {
    for (let i = index; ; i--) {
      const own = this.term(i);
      if (own === undefined) return { index: i, term: 0 };
      if (own <= term) return { index: i, term: own };
    }
  }

  /** Appends a leader's own entries. */
  append(entries: readonly RaftEntry[]): void {
    if (entries.length === 0) return;
    assert(entries[0]!.index === this.lastIndex() + 1, 'a leader only appends');
    for (const entry of entries) this.#unstable.push(entry);
  }

  /**
   * The first of `entries` that this log lacks or contradicts, or undefined when it holds all of them.
   * @param entries follow one another; the one before them is known to match
   */
  firstNew(entries: readonly RaftEntry[]): number | undefined {
    return entries.find((entry) => !this.matches(entry.index, entry.term))?.index;
  }

  /** Replaces everything from `entries[0].index` on. */
  replace(entries: readonly RaftEntry[]): void {
    const first = entries[0]!.index;
    assert(first > this.#committed, `entry ${first} conflicts with committed ${this.#committed}`);
    assert(first <= this.lastIndex() + 1, 'the log has no gaps');
    const offset = this.#offset();
    if (first >= offset) this.#unstable.length = first - offset;
    else this.#unstable = [];
    for (const entry of entries) this.#unstable.push(entry);
    this.#persisted = Math.min(this.#persisted, first - 1);
  }

  /** Puts a snapshot in place of the whole log. */
  restore(snapshot: RaftSnapshotMeta): void {
    assert(snapshot.index > this.#committed, 'a snapshot never takes committed entries back');
    this.#snapshot = snapshot;
    this.#unstable = [];
    this.#committed = snapshot.index;
    this.#handed = snapshot.index;
    this.#persisted = snapshot.index;
    this.#applying = [];
    this.#applyingBytes = 0;
  }

  /** @returns false when that was known. */
  commitTo(index: number): boolean {
    if (index <= this.#committed) return false;
    assert(
      index <= this.lastIndex(),
      `commit ${index} is beyond the log's end ${this.lastIndex()}: was it lost?`,
    );
    this.#committed = index;
    return true;
  }

  /**
   * Entries up to (index, term) are durable. Ignored when they were replaced meanwhile: their successors' own
   * persistence will be reported.
   */
  persistedTo(index: number, term: number): boolean {
    if (index <= this.#persisted || index >= this.#offset() || !this.matches(index, term)) return false;
    this.#persisted = index;
    return true;
  }

  appliedTo(index: number): void {
    if (index <= this.#applied) return;
    assert(index <= this.#handed, `applied ${index}, handed out only up to ${this.#handed}`);
    this.#applied = index;
    while (this.#applying.length > 0 && this.#applying[0]!.last <= index) {
      this.#applyingBytes -= this.#applying.shift()!.bytes;
    }
  }

  hasUnstable(): boolean {
    return this.#unstable.length > 0 || this.#snapshot !== undefined;
  }

  /** Hands the unstable tail to the shell, whose log must hold it from now on. */
  takeUnstable(): { entries: RaftEntry[]; snapshot: RaftSnapshotMeta | undefined } {
    const taken = { entries: this.#unstable, snapshot: this.#snapshot };
    this.#unstable = [];
    this.#snapshot = undefined;
    return taken;
  }

  hasCommitted(): boolean {
    const ready = Math.min(this.#committed, this.#persisted);
    // While a snapshot waits to be handed out, the reader does not yet show what follows it.
    return ready > this.#handed && this.#applyingBytes < MAX_APPLYING_BYTES && this.#snapshot === undefined;
  }

  /** The next entries to apply: committed and durable. */
  takeCommitted(): RaftEntry[] {
    if (!this.hasCommitted()) return [];
    const end = Math.min(this.#committed, this.#persisted) + 1;
    const lo = this.#handed + 1;
    const entries = this.#reader.entries(lo, end, MAX_COMMITTED_PER_READY_BYTES);
    assert(entries !== undefined && entries.length > 0, `the shell's log holds entry ${lo}`);
    const last = entries[entries.length - 1]!.index;
    assert(entries[0]!.index === lo && last < end, 'the log reader gives what was asked for');
    const bytes = entriesBytes(entries);
    this.#handed = last;
    this.#applying.push({ last, bytes });
    this.#applyingBytes += bytes;
    return entries;
  }

  /** Calls `visit` with all entries after `index`, in batches. */
  scan(index: number, visit: (entries: RaftEntry[]) => void): void {
    for (let lo = index + 1; lo <= this.lastIndex(); ) {
      const entries = this.entriesFrom(lo, SCAN_STEP_BYTES);
      assert(entries !== undefined && entries.length > 0, `the log holds entry ${lo}`);
      visit(entries);
      lo += entries.length;
    }
  }

  /** First index of the unstable tail, or one beyond the end when there is none. */
  #offset(): number {
    if (this.#unstable.length > 0) return this.#unstable[0]!.index;
    return this.lastIndex() + 1;
  }
}
