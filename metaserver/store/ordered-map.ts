/** Keys of one run; a longer run is split in two. */
const RUN_MAX_KEYS = 512;
/** Deleted keys that may linger in the order before it is rebuilt. */
const STALE_MAX_KEYS = 1024;

/**
 * A map from byte strings to values that can also be walked in order. Keys are "binary strings" (one char a byte, as
 * `buffer.toString('latin1')` makes them), whose order is that of memcmp.
 *
 * Point operations cost one hash map access: the order is kept lazily, in sorted runs to which new keys are added when a
 * range is asked for. The map must not change while a range is being read.
 */
export class OrderedMap<V extends object> {
  private readonly values = new Map<string, V>();
  /** Non-empty sorted runs, in order; may hold keys that were deleted since. */
  private runs: string[][] = [];
  /** Keys set since the last range; may repeat. */
  private unsorted: string[] = [];
  private stale = 0;

  get size(): number {
    return this.values.size;
  }

  get(key: string): V | undefined {
    return this.values.get(key);
  }

  /** Returns what the key held before. */
  set(key: string, value: V): V | undefined {
    const before = this.values.get(key);
    if (before === undefined) this.unsorted.push(key);
    this.values.set(key, value);
    return before;
  }

  delete(key: string): void {
    if (this.values.delete(key)) this.stale++;
  }

  /** All entries, in the order of their first setting. */
  entries(): IterableIterator<[string, V]> {
    return this.values.entries();
  }

  /** Whether there is a key with start <= key < end. */
  hasIn(start: string, end: string): boolean {
    return !this.range(start, end).next().done;
  }

  /** Values of start <= key < end in order, or from the last to the first with `reverse`. */
  *range(start: string, end: string, reverse = false): Generator<V> {
    this.settle();
    const step = reverse ? -1 : 1;
    let run = this.runOf(reverse ? end : start);
    let index = lowerBound(this.runs[run] ?? [], reverse ? end : start) - (reverse ? 1 : 0);
    for (; run >= 0 && run < this.runs.length; run += step) {
      const keys = this.runs[run] as string[];
      if (index === FROM_EDGE) index = reverse ? keys.length - 1 : 0;
      for (; index >= 0 && index < keys.length; index += step) {
        const key = keys[index] as string;
        if (reverse ? key < start : key >= end) return;
        const value = this.values.get(key);
        if (value !== undefined) yield value;
      }
      index = FROM_EDGE;
    }
  }

  /** Brings the order up to date. */
  private settle(): void {
    if (this.stale > STALE_MAX_KEYS + this.values.size) {
      this.unsorted = [...this.values.keys()];
      this.runs = [];
      this.stale = 0;
    }
    if (this.unsorted.length === 0) return;
    const keys = this.unsorted.sort(compareStrings);
    this.unsorted = [];
    if (this.runs.length === 0) this.build(keys);
    else for (const key of keys) this.insert(key);
  }

  private build(keys: string[]): void {
    const half = RUN_MAX_KEYS / 2;
    const distinct = keys.filter((key, index) => key !== keys[index - 1]);
    for (let at = 0; at < distinct.length; at += half) this.runs.push(distinct.slice(at, at + half));
  }

  private insert(key: string): void {
    const at = this.runOf(key);
    const run = this.runs[at] as string[];
    const index = lowerBound(run, key);
    if (run[index] === key) return;
    run.splice(index, 0, key);
    if (run.length > RUN_MAX_KEYS) this.runs.splice(at + 1, 0, run.splice(RUN_MAX_KEYS / 2));
  }

  /** Index of the run that holds `key` or would: the last one that starts at or before it. */
  private runOf(key: string): number {
    let low = 0;
    let high = this.runs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (((this.runs[middle] as string[])[0] as string) <= key) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

const FROM_EDGE = -2;

function compareStrings(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Index of the first key >= `key`. */
function lowerBound(keys: string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
