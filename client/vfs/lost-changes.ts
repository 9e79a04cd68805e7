import type { HoldfastError } from '../../proto/errors.js';

/** Inodes with a lost change that nobody was told of. */
const LOST_CHANGES_MAX = 1024;

/** Changes that were answered here and that the servers then refused: whoever syncs or opens the inode next is told, once. */
export class LostChanges {
  readonly #errors = new Map<number, HoldfastError>();

  add(ino: number, error: HoldfastError): void {
    if (this.#errors.size < LOST_CHANGES_MAX) this.#errors.set(ino, error);
  }

  /** @throws HoldfastError the error of an earlier change of the inode, or of the directory's names */
  report(ino: number): void {
    const error = this.#errors.get(ino);
    if (!error) return;
    this.#errors.delete(ino);
    throw error;
  }
}
