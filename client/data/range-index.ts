/** Ranges are found by the cells that they lie in; a range of the longest kind (SLOT_BYTES_MAX) lies in 16 of them. */
const CELL_BYTES = 64 * 1024;

export interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * Ranges of bytes of one file, none of them empty, found by where they lie. What a search looks at is bounded by the
 * ranges in the cells that it touches, however many there are elsewhere.
 */
export class RangeIndex<T extends Range> {
  readonly #cells = new Map<number, Set<T>>();

  add(range: T): void {
    const last = Math.floor((range.end - 1) / CELL_BYTES);
    for (let index = Math.floor(range.start / CELL_BYTES); index <= last; index++) {
      const cell = this.#cells.get(index);
      if (cell) cell.add(range);
      else this.#cells.set(index, new Set([range]));
    }
  }

  remove(range: T): void {
    const last = Math.floor((range.end - 1) / CELL_BYTES);
    for (let index = Math.floor(range.start / CELL_BYTES); index <= last; index++) {
      const cell = this.#cells.get(index);
      if (cell?.delete(range) && cell.size === 0) this.#cells.delete(index);
    }
  }

  /** Those that share bytes with [start, end), in no particular order. `end` may be infinite. */
  overlapping(start: number, end: number): T[] {
    const found = new Set<T>();
    const first = Math.floor(start / CELL_BYTES);
    const last = Math.floor((end - 1) / CELL_BYTES);
    const look = (cell: Set<T> | undefined): void => {
      for (const range of cell ?? []) if (range.start < end && start < range.end) found.add(range);
    };
    if (last - first < this.#cells.size) {
      for (let index = first; index <= last; index++) look(this.#cells.get(index));
    } else {
      for (const [index, cell] of this.#cells) if (index >= first && index <= last) look(cell);
    }
    return [...found];
  }
}
