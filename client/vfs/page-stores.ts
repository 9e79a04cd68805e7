import { Counts } from '../../common/counts.js';
import { type Answer, andThen, lastly } from '../answer.js';
import type { FileData } from '../data/file-data.js';
import type { Notifier } from '../fuse/binding.js';
import { type Interrupt, interruptible } from '../wait.js';

const PAGE_BYTES = 4096;
/** Stores that wait for the kernel; what is offered beyond them is not stored. */
const STORES_MAX = 16;

export interface PageStoresDeps {
  notifier(): Notifier | undefined;
  /** Whether a description that can write to it is open here. */
  hasWriter(ino: number): boolean;
  /** Whether the description that is being opened is the only one. */
  isSole(ino: number): boolean;
  /** A file that is open here. */
  file(ino: number): FileData | undefined;
  failed(ino: number, error: unknown): void;
}

/**
 * Puts blocks that programs read at many places into the kernel's page cache, where further reads find them without a request.
 *
 * A store writes over whatever a page holds, at a time of the kernel's choosing. So, for each inode:
 * - none begins while a program here has the file open for writing, nor while anything that was written here has yet to
 *   reach the servers;
 * - whoever opens it for writing, or cuts it, waits for those under way before anything of it is changed, and none begins
 *   until that is done (without());
 * - so does whoever invalidates the pages because the lease goes: what is stored must not arrive behind that.
 */
export class PageStores {
  readonly #deps: PageStoresDeps;
  readonly #held = new Counts();
  readonly #running = new Map<number, Set<Promise<void>>>();
  #count = 0;

  constructor(deps: PageStoresDeps) {
    this.#deps = deps;
  }

  /**
   * Carries out `change`, which alters contents or opens the file for that, while no store of the inode is under way.
   * @throws HoldfastError EINTR when `signal` aborts while it waits for one; else what `change` rejects with
   */
  without<T>(ino: number, signal: Interrupt, change: () => Answer<T>): Answer<T> {
    this.#held.up(ino);
    const settled = this.settled(ino);
    const changed = (): Answer<T> => andThen(settled && interruptible(settled, signal), change);
    return lastly(changed, () => {
      this.#held.down(ino);
    });
  }

  /** When the stores of the inode that are under way have ended; undefined: there are none. */
  settled(ino: number): Promise<unknown> | undefined {
    const running = this.#running.get(ino);
    return running && Promise.all(running);
  }

  /**
   * Stores all bytes of a file that is being opened and not open, at once, if that may be done now: the kernel asks for none
   * of its pages then, and has none to write, so the store waits for no request.
   * @param data believed at this moment, under the file's lease. @returns whether the kernel has them
   */
  storeAll(file: FileData, data: Buffer): boolean {
    const { ino } = file;
    const notifier = this.#deps.notifier();
    if (!notifier?.storeFile || this.#held.has(ino) || this.#running.has(ino)) return false;
    if (!this.#deps.isSole(ino) || this.#deps.file(ino) !== file || !file.clean) return false;
    return data.length === file.size && notifier.storeFile(ino, data);
  }

  /**
   * Stores bytes that the servers hold, whole pages of them, if that may be done now.
   * @param data believed at this moment, under the file's lease
   */
  offer(file: FileData, offset: number, data: Buffer): void {
    const { ino } = file;
    const bytes = Math.min(data.length, file.size - offset);
    const whole = bytes - (bytes % PAGE_BYTES);
    const notifier = this.#deps.notifier();
    if (!notifier?.storePages || whole <= 0 || this.#count >= STORES_MAX || this.#held.has(ino)) return;
    if (this.#deps.hasWriter(ino) || this.#deps.file(ino) !== file || !file.clean) return;
    const running = this.#running.get(ino) ?? new Set();
    this.#running.set(ino, running);
    this.#count++;
    const done: Promise<void> = notifier
      .storePages(ino, offset, data.subarray(0, whole))
      .catch((error: unknown) => this.#deps.failed(ino, error))
      .then(() => {
        this.#count--;
        running.delete(done);
        if (running.size === 0) this.#running.delete(ino);
      });
    running.add(done);
  }
}
