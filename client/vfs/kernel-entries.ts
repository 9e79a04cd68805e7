import { deferred } from '../../common/deferred.js';
import type { Notifier } from '../fuse/binding.js';

/** A directory with more names than this in the kernel is dropped from it together with all others. */
export const EXPIRE_NAMES_MAX = 32;
/** Names remembered of one directory; beyond it the kernel is told of all. */
const TOLD_NAMES_MAX = 256;

/**
 * Which names of which directories the kernel believes, and how to make it ask again.
 *
 * Expiring one name takes the kernel's lock on its directory. A call on the directory that came to us holds that lock,
 * and may be waiting for the very session that waits for this invalidation: then, and for many names, the kernel is told
 * to ask for every name of the mount again, which takes no lock. Where it cannot be told so it never keeps names.
 */
export class KernelEntries {
  /** Names by directory; 'many': too many to list. */
  readonly #told = new Map<number, Map<string, Buffer> | 'many'>();
  /** Calls that hold the kernel's lock on a directory. */
  readonly #busy = new Map<number, number>();
  readonly #waiting = new Map<number, Set<() => void>>();
  #notifier: Notifier | undefined;

  /**
   * Before the kernel asks for anything: names that it is being told of when it is made to forget are forgotten too.
   * @param notifier absent, or of an older kernel that cannot forget: it is never told a name
   */
  start(notifier: Notifier | undefined): void {
    if (notifier?.forgetNames()) this.#notifier = notifier;
  }

  /** The kernel is told of a name. @returns how long it may believe it, ms */
  told(directory: number, name: Buffer, ttlMs: number): number {
    if (!this.#notifier || ttlMs <= 0) return 0;
    const names = this.#told.get(directory);
    if (names === 'many') return ttlMs;
    if (!names) this.#told.set(directory, new Map([[name.toString('latin1'), name]]));
    else if (names.size >= TOLD_NAMES_MAX) this.#told.set(directory, 'many');
    else names.set(name.toString('latin1'), name);
    return ttlMs;
  }

  /** Runs a call for which the kernel holds its lock on these directories. */
  async during<T>(directories: readonly number[], call: Promise<T>): Promise<T> {
    for (const directory of directories) {
      this.#busy.set(directory, (this.#busy.get(directory) ?? 0) + 1);
      for (const wake of this.#waiting.get(directory) ?? []) wake();
    }
    try {
      return await call;
    } finally {
      for (const directory of directories) {
        const count = (this.#busy.get(directory) ?? 0) - 1;
        if (count > 0) this.#busy.set(directory, count);
        else this.#busy.delete(directory);
      }
    }
  }

  /** Makes the kernel ask again for every name in a directory that it was told of. */
  async expire(directory: number): Promise<void> {
    const names = this.#told.get(directory);
    this.#told.delete(directory);
    const notifier = this.#notifier;
    if (!names || !notifier) return;
    if (names === 'many' || names.size > EXPIRE_NAMES_MAX || this.#busy.has(directory)) {
      this.#forgetAll(notifier);
      return;
    }
    const called = deferred<boolean>();
    const wake = (): void => called.resolve(false);
    const wakers = this.#waiting.get(directory) ?? new Set();
    this.#waiting.set(directory, wakers.add(wake));
    const expired = Promise.all([...names.values()].map((name) => notifier.expireEntry(directory, name)));
    try {
      if (!(await Promise.race([expired.then(() => true), called.promise]))) this.#forgetAll(notifier);
    } catch {
      this.#forgetAll(notifier);
    } finally {
      wakers.delete(wake);
      if (wakers.size === 0) this.#waiting.delete(directory);
    }
  }

  /** Nothing that the kernel was told holds any more. */
  expireAll(): void {
    if (this.#notifier) this.#forgetAll(this.#notifier);
  }

  #forgetAll(notifier: Notifier): void {
    this.#told.clear();
    notifier.forgetNames();
  }
}
