import { Counts } from '../../common/counts.js';
import type { Answer } from '../answer.js';

/**
 * Calls during which the kernel may hold its lock on pages of a file: a read until they are filled, a write through the page
 * cache until it is answered. An invalidation of the pages waits for these locks. A call here may wait for another session
 * (for its turn to change a size, for a lease) that waits for the recall which the invalidation belongs to: so no recall waits
 * for the pages of a file while such a call is under way.
 */
export class PageCalls {
  readonly #running = new Counts();
  readonly #waiting = new Map<number, Set<() => void>>();

  during<T>(ino: number, call: Answer<T>): Answer<T> {
    return call instanceof Promise ? this.#during(ino, call) : call;
  }

  async #during<T>(ino: number, call: Promise<T>): Promise<T> {
    this.#running.up(ino);
    for (const wake of this.#waiting.get(ino) ?? []) wake();
    try {
      return await call;
    } finally {
      this.#running.down(ino);
    }
  }

  /** Waits for an invalidation of pages of the file, but for as long as no call is under way that may hold it up. */
  async orCalled(ino: number, invalidated: Promise<void>): Promise<void> {
    if (this.#running.has(ino)) return;
    const waiting = this.#waiting.get(ino) ?? new Set();
    this.#waiting.set(ino, waiting);
    let wake = (): void => undefined;
    const called = new Promise<void>((resolve) => {
      wake = resolve;
      waiting.add(wake);
    });
    try {
      await Promise.race([invalidated, called]);
    } finally {
      waiting.delete(wake);
      if (waiting.size === 0 && this.#waiting.get(ino) === waiting) this.#waiting.delete(ino);
    }
  }
}
