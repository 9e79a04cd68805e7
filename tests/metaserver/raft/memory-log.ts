import { assert } from '../../../common/assert.js';
import { limitBytes } from '../../../metaserver/raft/messages.js';
import type {
  LogReader,
  RaftConfState,
  RaftEntry,
  RaftSnapshotMeta,
} from '../../../metaserver/raft/types.js';

/** A log in memory that behaves as the shell's must: snapshot point, then entries without gaps. */
export class MemoryLog implements LogReader {
  #base: RaftSnapshotMeta;
  #entries: RaftEntry[] = [];

  constructor(conf: RaftConfState) {
    this.#base = { index: 0, term: 0, conf };
  }

  /** A copy, entry objects shared: they are never changed. */
  clone(): MemoryLog {
    const copy = new MemoryLog(this.#base.conf!);
    copy.#base = this.#base;
    copy.#entries = this.#entries.slice();
    return copy;
  }

  firstIndex(): number {
    return this.#base.index + 1;
  }

  lastIndex(): number {
    return this.#base.index + this.#entries.length;
  }

  term(index: number): number | undefined {
    if (index === this.#base.index) return this.#base.term;
    return this.#entries[index - this.#base.index - 1]?.term;
  }

  entries(lo: number, hi: number, maxBytes: number): RaftEntry[] | undefined {
    if (lo <= this.#base.index) return undefined;
    return limitBytes(this.#entries.slice(lo - this.#base.index - 1, hi - this.#base.index - 1), maxBytes);
  }

  entry(index: number): RaftEntry | undefined {
    return this.#entries[index - this.#base.index - 1];
  }

  snapshot(): RaftSnapshotMeta | undefined {
    return this.#base.index === 0 ? undefined : this.#base;
  }

  append(entries: readonly RaftEntry[]): void {
    if (entries.length === 0) return;
    const first = entries[0]!.index;
    assert(first > this.#base.index && first <= this.lastIndex() + 1, 'entries join the log');
    this.#entries.length = first - this.#base.index - 1;
    this.#entries.push(...entries);
  }

  install(snapshot: RaftSnapshotMeta): void {
    this.#base = snapshot;
    this.#entries = [];
  }

  /** Forgets everything up to `index`, of which the state machine holds a snapshot. */
  compact(index: number, conf: RaftConfState): void {
    const term = this.term(index);
    assert(term !== undefined, 'only what is there can be compacted');
    this.#entries = this.#entries.slice(index - this.#base.index);
    this.#base = { index, term, conf };
  }
}
