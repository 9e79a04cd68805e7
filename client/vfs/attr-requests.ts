import { type Clock, delay } from '../../common/clock.js';

/**
 * The kernel's requests for attributes that are being answered. The kernel drops the answer to one if the inode is invalidated
 * while it is on its way, and goes on with the size that it knew before: a read that asked for the size first then shows new
 * data cut off at an old size. So an invalidation that tells the kernel of something that is past waits for such answers. (One
 * that the kernel has queued and this process has not read yet cannot be seen: who can wait a moment longer, should.)
 */
export class AttrRequests {
  readonly #clock: Clock;
  readonly #running = new Map<number, Set<Promise<unknown>>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @returns `answer`, which counts as on its way until then */
  async track<T>(ino: number, answer: Promise<T>): Promise<T> {
    const running = this.#running.get(ino) ?? new Set();
    this.#running.set(ino, running);
    running.add(answer);
    try {
      return await answer;
    } finally {
      running.delete(answer);
      if (running.size === 0 && this.#running.get(ino) === running) this.#running.delete(ino);
    }
  }

  /** Whether one is on its way. */
  has(ino: number): boolean {
    return this.#running.has(ino);
  }

  /** Resolves when the kernel has the answers to what it has asked about the inode so far. */
  async answered(ino: number): Promise<void> {
    const running = this.#running.get(ino);
    if (!running) return;
    await Promise.allSettled(running);
    // The answers are written behind their promises, in the same turn.
    await delay(this.#clock, 0);
  }
}
