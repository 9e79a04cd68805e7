import type { Operation } from '../sim/checkers/linearizability.js';
import type { CellsInput, CellsOutput } from './cells-model.js';
import type { TreeInput, TreeOutput } from './tree-model.js';

/** An operation of a program on one mount; a mount that was mounted anew has another name. */
export interface Recorded<Input, Output = string> extends Operation<Input, Output> {
  mount: string;
}

/** Tags of the directories that an arena begins with, and their names in it. */
export const ROOTS: readonly { tag: number; name: string }[] = [
  { tag: 1, name: 'one' },
  { tag: 2, name: 'two' },
];
/** The name of the file of cells. */
export const CELLS_NAME = 'cells';

/**
 * A directory that all programs use for a while, and what they did there: histories of its tree and of its file of cells. No
 * call concerns two arenas, so that each history can be judged by itself.
 */
export class Arena {
  readonly name: string;
  readonly tree: Recorded<TreeInput, TreeOutput>[] = [];
  readonly cells: Recorded<CellsInput, CellsOutput>[] = [];
  /** When a mount was asked to sync everything here, and did so. */
  readonly #synced = new Map<string, number>();

  constructor(name: string) {
    this.name = name;
  }

  get operations(): number {
    return this.tree.length + this.cells.length;
  }

  /** @param call when the sync was asked for: what had returned before is durable */
  sync(mount: string, call: number): void {
    this.#synced.set(mount, Math.max(call, this.#synced.get(mount) ?? Number.NEGATIVE_INFINITY));
  }

  /**
   * The machine of a mount died: what it had not synced may be lost although it was answered, or may show at any later
   * time. What it had read meanwhile may be of that; nothing is concluded from it.
   *
   * @returns changes whose outcome is not known now
   */
  forget(mount: string): number {
    const durable = this.#synced.get(mount) ?? Number.NEGATIVE_INFINITY;
    const uncertain = (op: Recorded<unknown>): boolean => op.mount === mount && op.end > durable;
    let open = 0;
    for (const op of [...this.tree, ...this.cells]) {
      if (!uncertain(op)) continue;
      op.output = undefined;
      op.end = Number.POSITIVE_INFINITY;
      open++;
    }
    return open;
  }
}
