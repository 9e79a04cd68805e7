import type { Clock } from '../../common/clock.js';
import { type Interrupt, interruptible } from '../wait.js';

/**
 * Nobody waits longer for the kernel to drop pages: the threads that tell it to may all be held up by pages that are in
 * use. Until it has, nothing of the file is believed here.
 */
export const PAGES_WAIT_MAX_MS = 1_000;

/**
 * Pages that the kernel was told to drop because a lease goes, and may still have.
 *
 * A recall does not always wait for them (see PageCalls). Before it shows a page the kernel asks for the attributes, but it
 * drops an answer to what it asked before the end of a write of its own, and then shows the page that it has. So no request
 * for the attributes is answered before the pages are gone: whoever asked finds none then, and reads.
 *
 * That cannot hold itself up. Pages are dropped when those that are locked or being written back are free, that is when READs
 * and WRITEs are answered here. None of these waits for a request for attributes: they ask the servers themselves. The
 * kernel asks before it locks a page, never with one locked; it may hold its lock on the inode while it asks (to append, to
 * seek to the end), but who has locked pages to write to them has that already, and to read them, or to write them back, it
 * takes none. Nor is a lease waited for here. Should it be otherwise somewhere, the wait has its bound.
 */
export class PageDrops {
  readonly #clock: Clock;
  /** For each inode when all that it was told so far is done. */
  readonly #running = new Map<number, Promise<unknown>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param dropped ends when the pages of the inode are gone, or could not be dropped */
  track(ino: number, dropped: Promise<void>): void {
    const all = Promise.allSettled([this.#running.get(ino), dropped]).then(() => {
      if (this.#running.get(ino) === all) this.#running.delete(ino);
    });
    this.#running.set(ino, all);
  }

  /**
   * Waits for what the kernel was told of the inode so far, but not for ever. @returns undefined: it has dropped all
   * @throws HoldfastError EINTR when `signal` aborts meanwhile
   */
  dropped(ino: number, signal: Interrupt | undefined): Promise<void> | undefined {
    const running = this.#running.get(ino);
    return running && interruptible(this.withPatience(running), signal);
  }

  /** Waits for `dropped`, but not for ever. */
  withPatience(dropped: Promise<unknown>, maxMs = PAGES_WAIT_MAX_MS): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(maxMs, resolve);
      const end = (): void => {
        timer.cancel();
        resolve();
      };
      dropped.then(end, end);
    });
  }
}
