/**
 * Registers, one per cell of the simulated files: is there an order of all operations, each between its call and its
 * answer, in which every read sees what was written last? Checked are the consequences that matter:
 *  - a read sees something that was written, and nothing that an acknowledged write had certainly replaced before;
 *  - a read sees nothing older than what an earlier read saw (without power cuts).
 */
interface Write {
  value: number;
  calledAt: number;
  /** Infinity: never, or not for certain. */
  ackedAt: number;
}

interface Seen {
  write: Write;
  at: number;
}

export class Checker {
  readonly #writes = new Map<string, Write[]>();
  readonly #seen = new Map<string, Seen[]>();
  /** False: unsynced data may be lost, so that an older value may come back. */
  readonly #monotonic: boolean;
  reads = 0;
  acked = 0;

  constructor(monotonic: boolean) {
    this.#monotonic = monotonic;
  }

  /** @returns tells the acknowledgement */
  write(cells: readonly string[], value: number, now: number): (at: number) => void {
    const write: Write = { value, calledAt: now, ackedAt: Number.POSITIVE_INFINITY };
    for (const cell of cells) this.#of(cell).push(write);
    return (at) => {
      this.acked++;
      write.ackedAt = at;
    };
  }

  /** @throws Error when no order of the operations explains it */
  read(cell: string, value: number, calledAt: number, now: number): void {
    this.reads++;
    const writes = this.#of(cell);
    const seen = this.#seen.get(cell) ?? [];
    const candidates = writes.filter((write) => write.value === value && write.calledAt <= now);
    const write = candidates.find((candidate) => !this.#replaced(candidate, writes, seen, calledAt));
    if (!write) {
      const history = writes
        .slice(-8)
        .map((w) => `${w.value}:${w.calledAt.toFixed(1)}-${w.ackedAt.toFixed(1)}`);
      throw new Error(
        `cell ${cell} read as ${value} in ${calledAt.toFixed(1)}-${now.toFixed(1)}; ` +
          `last writes: ${history.join(' ')}; last seen: ${seen
            .slice(-3)
            .map((s) => s.write.value)
            .join(' ')}`,
      );
    }
    // Several writes of one value (zeros) cannot be told apart: only a single candidate was surely seen.
    if (candidates.length === 1) seen.push({ write, at: now });
    this.#seen.set(cell, seen);
  }

  #replaced(candidate: Write, writes: readonly Write[], seen: readonly Seen[], calledAt: number): boolean {
    if (writes.some((later) => candidate.ackedAt < later.calledAt && later.ackedAt < calledAt)) return true;
    if (!this.#monotonic) return false;
    return seen.some(({ write, at }) => at < calledAt && candidate.ackedAt < write.calledAt);
  }

  #of(cell: string): Write[] {
    let writes = this.#writes.get(cell);
    if (!writes) {
      writes = [{ value: 0, calledAt: Number.NEGATIVE_INFINITY, ackedAt: Number.NEGATIVE_INFINITY }];
      this.#writes.set(cell, writes);
    }
    return writes;
  }
}
