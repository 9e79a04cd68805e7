/** A point in the order of the writes of one file. */
export interface WriteMark {
  written: number;
  /** Furthest end of what was not committed then. */
  end: number;
  /** How often the size had been set. */
  cuts: number;
  /** FileHolds.mark() */
  holds: number;
}
