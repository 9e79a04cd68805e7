import { Counts } from '../../common/counts.js';
import { deferred } from '../../common/deferred.js';
import { LruMap } from '../../common/lru-map.js';
import type { Answer } from '../answer.js';
import type { Notifier } from '../fuse/binding.js';

/** A directory with more names than this in the kernel is dropped from it together with all others. */
export const EXPIRE_NAMES_MAX = 32;
/** Names remembered of one directory; beyond it the kernel is told of all. */
const TOLD_NAMES_MAX = 256;
/** Inodes of which it is known by which names the kernel reaches them; the recall of a further one drops all names. */
const TOLD_INODES_MAX = 65_536;
/** Names of one inode that are remembered. */
const TOLD_LINKS_MAX = 8;
/** In the place of a directory that a call removes or moves, and that is known by its name alone: it may be any. */
export const ANY_DIRECTORY = 0;

export interface ToldName {
  directory: number;
  name: Buffer;
}

function withLink(links: ToldName[] | 'many', directory: number, name: Buffer): ToldName[] | 'many' {
  if (links === 'many' || links.some((one) => one.directory === directory && one.name.equals(name)))
    return links;
  return links.length < TOLD_LINKS_MAX ? [...links, { directory, name }] : 'many';
}

/**
 * Which names of which directories the kernel believes, and how to make it ask again.
 *
 * Expiring one name takes the kernel's lock on its directory. A call on the directory that came to us holds that lock,
 * and may be waiting for the very session that waits for this invalidation: then, and for many names, the kernel is told
 * to ask for every name of the mount again, which takes no lock. Where it cannot be told so it never keeps names.
 *
 * The kernel checks who may change an inode's owner, mode, times or access list (and delete it from a sticky directory)
 * against the owner that it was told last, valid or not. Only a lookup makes it ask before: so the names of an inode that
 * others may change are expired, too.
 */
export class KernelEntries {
  /** Names by directory; 'many': too many to list. */
  readonly #told = new Map<number, Map<string, Buffer> | 'many'>();
  /** The names of each inode, those told last behind; 'many': too many to list. */
  readonly #links = new LruMap<number, ToldName[] | 'many'>();
  /** Of some inodes the names are not known any more. */
  #linksForgotten = false;
  /** Calls that hold the kernel's lock on a directory. */
  readonly #busy = new Counts();
  readonly #waiting = new Map<number, Set<() => void>>();
  #notifier: Notifier | undefined;

  /**
   * Before the kernel asks for anything: names that it is being told of when it is made to forget are forgotten too.
   * @param notifier absent, or of an older kernel that cannot forget: it is never told a name
   */
  start(notifier: Notifier | undefined): void {
    if (notifier?.forgetNames()) this.#notifier = notifier;
  }

  /**
   * The kernel is told of a name.
   * @param ino what it stands for; 0: nothing
   * @returns how long it may believe it, ms
   */
  told(directory: number, name: Buffer, ttlMs: number, ino: number): number {
    if (!this.#notifier || ttlMs <= 0) return 0;
    if (ino !== 0) this.#linkTold(directory, name, ino);
    const names = this.#told.get(directory);
    if (names === 'many') return ttlMs;
    if (!names) this.#told.set(directory, new Map([[name.toString('latin1'), name]]));
    else if (names.size >= TOLD_NAMES_MAX) this.#told.set(directory, 'many');
    else names.set(name.toString('latin1'), name);
    return ttlMs;
  }

  /** The directory of the name by which the kernel was told of an inode last; undefined: not known. */
  directoryOf(ino: number): number | undefined {
    const links = this.#links.peek(ino);
    return links === 'many' ? undefined : links?.at(-1)?.directory;
  }

  #linkTold(directory: number, name: Buffer, ino: number): void {
    const links = this.#links.peek(ino);
    if (links === undefined) this.#links.set(ino, [{ directory, name }]);
    else this.#links.set(ino, withLink(links, directory, name));
    if (this.#links.size <= TOLD_INODES_MAX) return;
    this.#links.shift();
    this.#linksForgotten = true;
  }

  /**
   * The kernel moves what it believes of one name to another, with the time for which it was to believe it.
   * @param leased whether a recall will come before the place that it goes to changes; else it must not be believed there
   * @param ino what it stands for; undefined: not known
   */
  moved(from: ToldName, to: ToldName, ino: number | undefined, leased: boolean): void {
    const names = this.#told.get(from.directory);
    if (!this.#notifier || !(names === 'many' || names?.has(from.name.toString('latin1')))) return;
    if (leased && ino !== undefined) this.told(to.directory, to.name, 1, ino);
    else this.#forgetAll(this.#notifier);
  }

  /** The kernel holds its lock on these directories, or on one that is not known (ANY_DIRECTORY), until a call is answered. */
  during<T>(directories: readonly number[], call: Answer<T>): Answer<T> {
    return call instanceof Promise ? this.#during(directories, call) : call;
  }

  async #during<T>(directories: readonly number[], call: Promise<T>): Promise<T> {
    for (const directory of directories) {
      this.#busy.up(directory);
      this.#wake(directory);
    }
    try {
      return await call;
    } finally {
      for (const directory of directories) this.#busy.down(directory);
    }
  }

  #wake(directory: number): void {
    const waiting =
      directory === ANY_DIRECTORY ? [...this.#waiting.values()] : [this.#waiting.get(directory)];
    for (const wakers of waiting) for (const wake of wakers ?? []) wake();
  }

  #isBusy(directories: ReadonlySet<number>): boolean {
    if (this.#busy.size === 0) return false;
    return this.#busy.has(ANY_DIRECTORY) || [...directories].some((directory) => this.#busy.has(directory));
  }

  /** Makes the kernel ask again for every name in a directory that it was told of, and for the names of the inode itself. */
  async expire(ino: number): Promise<void> {
    const names = this.#told.get(ino);
    this.#told.delete(ino);
    const links = this.#links.peek(ino);
    this.#links.delete(ino);
    const notifier = this.#notifier;
    if (!notifier) return;
    if (names === 'many' || links === 'many' || (!links && this.#linksForgotten)) {
      this.#forgetAll(notifier);
      return;
    }
    const within = [...(names?.values() ?? [])].map((name) => ({ directory: ino, name }));
    await this.#expireNames([...within, ...(links ?? [])], notifier);
  }

  async #expireNames(names: readonly ToldName[], notifier: Notifier): Promise<void> {
    const directories = new Set(names.map(({ directory }) => directory));
    if (names.length > EXPIRE_NAMES_MAX || this.#isBusy(directories)) {
      this.#forgetAll(notifier);
      return;
    }
    if (names.length === 0) return;
    const called = deferred<boolean>();
    const wake = (): void => called.resolve(false);
    for (const directory of directories) {
      const wakers = this.#waiting.get(directory) ?? new Set();
      this.#waiting.set(directory, wakers.add(wake));
    }
    const expired = Promise.all(names.map(({ directory, name }) => notifier.expireEntry(directory, name)));
    try {
      if (!(await Promise.race([expired.then(() => true), called.promise]))) this.#forgetAll(notifier);
    } catch {
      this.#forgetAll(notifier);
    } finally {
      for (const directory of directories) {
        const wakers = this.#waiting.get(directory);
        wakers?.delete(wake);
        if (wakers?.size === 0) this.#waiting.delete(directory);
      }
    }
  }

  /** Nothing that the kernel was told holds any more. */
  expireAll(): void {
    if (this.#notifier) this.#forgetAll(this.#notifier);
  }

  /** What the kernel has yet to take in of a listing it believes all the same: then all that it was told stays noted. */
  #forgetAll(notifier: Notifier): void {
    if (!notifier.takesInNames?.()) {
      this.#told.clear();
      this.#links.clear();
      this.#linksForgotten = false;
    }
    notifier.forgetNames();
  }
}
