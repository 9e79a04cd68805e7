/** How many there are of something for each number: openers of an inode, readers of a segment. Who has none takes no room. */
export class Counts {
  readonly #counts = new Map<number, number>();

  /** How many numbers are counted. */
  get size(): number {
    return this.#counts.size;
  }

  has(number: number): boolean {
    return this.#counts.has(number);
  }

  get(number: number): number {
    return this.#counts.get(number) ?? 0;
  }

  /** Those that are counted, oldest first. */
  numbers(): IterableIterator<number> {
    return this.#counts.keys();
  }

  clear(): void {
    this.#counts.clear();
  }

  up(number: number): void {
    this.#counts.set(number, (this.#counts.get(number) ?? 0) + 1);
  }

  /** @returns whether none is left */
  down(number: number): boolean {
    const left = (this.#counts.get(number) ?? 0) - 1;
    if (left > 0) this.#counts.set(number, left);
    else this.#counts.delete(number);
    return left <= 0;
  }
}
