import { assert } from '../../common/assert.js';

/** Numbers asked for at a time. */
export const INODE_NUMBERS_PER_REQUEST = 4096;
/** With fewer left than this, more are asked for. */
export const INODE_NUMBERS_LOW = 1024;

/** The inode numbers that are reserved for this session. Pure. */
export class InodeNumbers {
  #ranges: { next: number; end: number }[] = [];

  get left(): number {
    return this.#ranges.reduce((sum, { next, end }) => sum + end - next, 0);
  }

  add(first: number, count: number): void {
    assert(first > 0 && count > 0, 'a range of inode numbers');
    this.#ranges.push({ next: first, end: first + count });
  }

  /** The next number, for good; undefined: none is left. */
  take(): number | undefined {
    const range = this.#ranges[0];
    if (!range) return undefined;
    const ino = range.next++;
    if (range.next === range.end) this.#ranges.shift();
    return ino;
  }

  /** The session is over. */
  clear(): void {
    this.#ranges = [];
  }
}
