import { Counts } from '../../common/counts.js';

/** Which directories this mount changes names of: what is listed meanwhile may hold them or not, and is not kept. */
export class NameChanges {
  /** With the number of changes by request that are under way. */
  readonly #changing = new Counts();
  readonly #watches = new Map<number, Set<{ changed: boolean }>>();

  /** Tells whether names of a directory are changed, by request or by this mount itself, from now on until `end` is called. */
  watch(directory: number): { changed: boolean; end(): void } {
    const watches = this.#watches.get(directory) ?? new Set();
    this.#watches.set(directory, watches);
    const watch = {
      changed: this.#changing.has(directory),
      end: (): void => {
        watches.delete(watch);
        if (watches.size === 0 && this.#watches.get(directory) === watches) this.#watches.delete(directory);
      },
    };
    watches.add(watch);
    return watch;
  }

  /** Names of these directories are changed now; other inodes do not matter. */
  changed(inos: readonly number[]): void {
    if (this.#watches.size === 0) return;
    for (const ino of inos) for (const watch of this.#watches.get(ino) ?? []) watch.changed = true;
  }

  /** Whether changes by request are under way: others may be shown what comes of them before it is known here. */
  has(directory: number): boolean {
    return this.#changing.has(directory);
  }

  /** A change by request begins; end() has to follow. */
  begin(inos: readonly number[]): void {
    this.changed(inos);
    for (const ino of inos) this.#changing.up(ino);
  }

  end(inos: readonly number[]): void {
    for (const ino of inos) this.#changing.down(ino);
  }
}
