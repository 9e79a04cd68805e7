import { assert } from '../../common/assert.js';
import { Counts } from '../../common/counts.js';

/** Closed inodes are announced together, at most this many in one message. */
export const CLOSED_BATCH_MAX = 1024;

/**
 * How often each inode is open on this mount, and which last closes the server has not been told yet. Opens need no
 * announcement of their own: the Open and MakeNode requests register the session.
 * Invariant: an inode with a count is never among the closed ones.
 */
export class OpenFileCounts {
  readonly #counts = new Counts();
  #closed = new Set<number>();
  /** Of those open, the ones that the server was asked to open for writing. */
  readonly #writing = new Set<number>();

  retain(ino: number): void {
    this.#counts.up(ino);
    this.#closed.delete(ino);
  }

  /** @returns true when it was the last one: takeClosed() has something */
  release(ino: number): boolean {
    assert(this.#counts.has(ino), `release of inode ${ino}, which is not open`);
    if (!this.#counts.down(ino)) return false;
    this.#writing.delete(ino);
    this.#closed.add(ino);
    return true;
  }

  has(ino: number): boolean {
    return this.#counts.has(ino);
  }

  /** Every inode that is open, for the Hello to a new leader. Closes behind it are still announced: they do no harm. */
  snapshot(): number[] {
    return [...this.#counts.numbers()];
  }

  /** It is being opened for writing by request; until its last close. */
  write(ino: number): void {
    if (this.#counts.has(ino)) this.#writing.add(ino);
  }

  /** For the Hello to a new leader. */
  writing(): number[] {
    return [...this.#writing];
  }

  /** Those of `inos` that are open here. */
  openAmong(inos: readonly number[]): number[] {
    return inos.filter((ino) => this.#counts.has(ino));
  }

  get closedPending(): number {
    return this.#closed.size;
  }

  /** Last closes to announce, oldest first. */
  takeClosed(): number[] {
    const taken: number[] = [];
    for (const ino of this.#closed) {
      if (taken.length >= CLOSED_BATCH_MAX) break;
      taken.push(ino);
      this.#closed.delete(ino);
    }
    return taken;
  }
}
