/**
 * Lets changes of one name in one directory go one after the other, so that what a name stands for can be looked up
 * before the change of it goes into the log. Who has entered waits for nobody's name any more.
 */
export class NameOrder {
  /** Names of changes under way, and who waits for each. */
  readonly #names = new Map<string, (() => void)[] | undefined>();

  /** Calls `run` when none of the names is being changed; leave() has to follow, with the same names. */
  enter(names: readonly string[], run: () => void): void {
    for (const name of names) {
      if (!this.#names.has(name)) continue;
      const waiting = this.#names.get(name);
      const again = () => this.enter(names, run);
      if (waiting) waiting.push(again);
      else this.#names.set(name, [again]);
      return;
    }
    for (const name of names) this.#names.set(name, undefined);
    run();
  }

  leave(names: readonly string[]): void {
    const woken: (() => void)[] = [];
    for (const name of names) {
      const waiting = this.#names.get(name);
      this.#names.delete(name);
      if (waiting) woken.push(...waiting);
    }
    for (const again of woken) again();
  }

  clear(): void {
    this.#names.clear();
  }

  get size(): number {
    return this.#names.size;
  }
}
