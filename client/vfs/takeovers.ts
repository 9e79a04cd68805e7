import { LruMap } from '../../common/lru-map.js';
import { toHoldfastError } from '../../proto/errors.js';
import { LeaseMode } from '../../proto/gen/meta.js';
import { isGuarded } from '../../proto/inode-flags.js';
import { COMPLETE_ENTRIES_MAX } from '../leases/name-cache.js';
import type { VfsContext } from './context.js';
import { Listing, type ListingState } from './listings.js';

/** A directory that somebody else uses is asked for again after this time, and after twice as much each time it is taken. */
export const ACQUIRE_RETRY_MS = 2_000;
export const ACQUIRE_RETRY_MAX_MS = 60_000;
/** Pages of a directory's listing that each change made by request is worth. */
const PAGES_PER_CHANGE = 1;
/** Changes by request in a directory that is too large even for its names to be known, before it is tried again. */
export const LARGE_DIRECTORY_CHANGES = COMPLETE_ENTRIES_MAX / 2;
/** Of a directory too large to be known as a whole, whose names are known: pages read at a time for what is in it .. */
const LARGE_DIRECTORY_PAGES_MAX = 32;
/** .. and changes by request that have to be made before the next time: who removes names in their order profits. */
const LARGE_DIRECTORY_FOREIGN_CHANGES = 512;
/** Attempts at a listing while changes of this mount that were under way come to their end. */
const ACQUIRE_ATTEMPTS_MAX = 3;
/** Directories whose recent changes are counted. */
const WATCHED_DIRECTORIES_MAX = 1024;
/** A directory is asked for at this change by request. */
const ACQUIRE_AT_CHANGES = 2;
/** A directory is ours, and something in it is not: so many changes by request from there on, and all in it is asked of others at once. */
export const SOLE_AT_CHANGES = 4;

interface Watched {
  /** By request. */
  changes: number;
  notBefore: number;
  /** Changes at which the next attempt is made: a long listing has to be worth it. */
  due: number;
  retryMs: number;
  takenAt: number;
  /** Changes by request since something in it was not ours alone when its name was to be changed; 0: nothing was. */
  foreign: number;
  /** What in it had its attributes changed by request last. */
  changedInode: number;
  /** Others are not asked before for what they have of its entries. */
  soleNotBefore: number;
}

/**
 * Which directories this mount takes over, with what is in them, so that changes there need no request: those in which it
 * has made some by request and that nobody else seems to use. One that others want back is left to all for a while.
 */
export class Takeovers {
  readonly #context: VfsContext;
  readonly #onTakenOver: () => Promise<void>;
  readonly #watched = new LruMap<number, Watched>();
  /** Directories that are being taken over. */
  readonly #acquiring = new Map<number, Promise<void>>();
  /** When a directory was taken over last: another one is asked for at its first change then, as by rm -r. */
  #acquiredAt = Number.NEGATIVE_INFINITY;
  /** When one was taken over last with all that others had of what is in it: another one is, too, as by rm -r of what others have made. */
  #soleAt = Number.NEGATIVE_INFINITY;

  /** @param onTakenOver called before a directory that was taken over is used */
  constructor(context: VfsContext, onTakenOver: () => Promise<void>) {
    this.#context = context;
    this.#onTakenOver = onTakenOver;
  }

  /** The session is over. */
  clear(): void {
    this.#watched.clear();
  }

  /** Something in a directory is to be changed that is not ours alone. */
  noteForeign(directory: number): void {
    this.#watch(directory).foreign ||= 1;
  }

  hasForeign(directory: number): boolean {
    return (this.#watched.peek(directory)?.foreign ?? 0) > 0;
  }

  /**
   * A name in a directory is about to be changed, perhaps by request.
   * @returns when an attempt to take it over is over; undefined: none is made
   */
  forName(directory: number): Promise<void> | undefined {
    if (!this.#acquiring.has(directory) && this.#dueToAcquire(directory)) this.#beginAcquiring(directory);
    return this.#acquiring.get(directory);
  }

  /**
   * An inode that others may know is about to be changed by request: at repeated changes of what is in its directory, as by
   * chmod -R, all of that is asked for.
   * @returns as forName()
   */
  forInode(ino: number): Promise<void> | undefined {
    const directory = this.#context.kernel.directoryOf(ino);
    if (directory === undefined || this.#context.owns(ino)) return undefined;
    const watched = this.#watch(directory);
    // One file that is touched again and again is no reason to ask for its neighbours.
    if (watched.changedInode !== ino) {
      watched.changedInode = ino;
      watched.foreign ||= 1;
      const due = !this.#acquiring.has(directory) && this.#dueToAcquire(directory, true);
      if (due) this.#beginAcquiring(directory);
    }
    return this.#acquiring.get(directory);
  }

  /** Somebody else wants an inode that was leased exclusively: a directory is left to all for a while, the longer the more often. */
  taken(ino: number): void {
    if (!this.#watched.has(ino) && !this.#context.names.tellsAbsence(ino)) return;
    const watched = this.#watch(ino);
    const now = this.#context.clock.now();
    const again = now - watched.takenAt < 2 * watched.retryMs;
    watched.retryMs = again ? Math.min(ACQUIRE_RETRY_MAX_MS, 2 * watched.retryMs) : ACQUIRE_RETRY_MS;
    watched.takenAt = now;
    watched.notBefore = Math.max(watched.notBefore, now + watched.retryMs);
  }

  #watch(directory: number): Watched {
    const watched = this.#watched.peek(directory) ?? {
      changes: 0,
      notBefore: Number.NEGATIVE_INFINITY,
      due: ACQUIRE_AT_CHANGES,
      retryMs: ACQUIRE_RETRY_MS,
      takenAt: Number.NEGATIVE_INFINITY,
      foreign: 0,
      changedInode: 0,
      soleNotBefore: Number.NEGATIVE_INFINITY,
    };
    this.#watched.set(directory, watched);
    if (this.#watched.size > WATCHED_DIRECTORIES_MAX) this.#watched.shift();
    return watched;
  }

  /** @param sole its entries are what is wanted */
  #dueToAcquire(directory: number, sole = false): boolean {
    const now = this.#context.clock.now();
    if (this.#context.meta.leases.believedUntil <= now) return false;
    if (isGuarded(this.#context.inodes.known(directory) ?? {})) return false;
    const watched = this.#watch(directory);
    watched.changes++;
    if (watched.foreign > 0) watched.foreign++;
    const likely = this.#context.owns(directory) || now - this.#acquiredAt < ACQUIRE_RETRY_MS;
    const due = likely && watched.due === ACQUIRE_AT_CHANGES ? 1 : watched.due;
    // Of a large one some of what is in it will always be foreign: only changes of that count.
    if (this.#context.names.isLarge(directory)) watched.foreign = 0;
    return this.#wantsSole(watched) || (!sole && watched.changes >= due && now >= watched.notBefore);
  }

  #wantsSole({ foreign, soleNotBefore }: Watched): boolean {
    return foreign >= (this.#soleLately ? 1 : SOLE_AT_CHANGES) && this.#context.clock.now() >= soleNotBefore;
  }

  get #soleLately(): boolean {
    return this.#context.clock.now() - this.#soleAt < ACQUIRE_RETRY_MS;
  }

  #beginAcquiring(directory: number): void {
    const acquired = this.#acquire(directory, this.#watch(directory)).finally(() =>
      this.#acquiring.delete(directory),
    );
    this.#acquiring.set(directory, acquired);
  }

  /** Failure means that changes are made by request: it is no error. */
  async #acquire(directory: number, watched: Watched): Promise<void> {
    const { clock, log, names } = this.#context;
    watched.notBefore = clock.now() + watched.retryMs;
    const sole = this.#soleLately || this.#wantsSole(watched);
    if (sole) watched.soleNotBefore = watched.notBefore;
    try {
      const pagesMax = names.isLarge(directory) ? LARGE_DIRECTORY_PAGES_MAX : Number.POSITIVE_INFINITY;
      const pages = Math.min(pagesMax, PAGES_PER_CHANGE * watched.changes);
      let state: ListingState = 'void';
      for (let attempt = 0; state === 'void' && attempt < ACQUIRE_ATTEMPTS_MAX; attempt++) {
        const listing = new Listing(this.#context, directory, LeaseMode.LEASE_EXCLUSIVE, true, sole);
        state = await listing.read(pages).finally(() => listing.close());
        if (!this.#context.owns(directory)) return;
      }
      if (state === 'partial') {
        watched.due = 2 * watched.changes;
        watched.notBefore = Number.NEGATIVE_INFINITY;
      }
      // To read so much again has to be worth it: much of it may have been removed by then.
      if (state === 'large' || pages === pagesMax) {
        watched.changes = 0;
        watched.due = state === 'large' ? LARGE_DIRECTORY_CHANGES : LARGE_DIRECTORY_FOREIGN_CHANGES;
      }
      if (state !== 'complete') return;
      watched.foreign = 0;
      this.#acquiredAt = clock.now();
      if (sole) this.#soleAt = this.#acquiredAt;
      watched.due = ACQUIRE_AT_CHANGES;
      watched.changes = 0;
      await this.#onTakenOver();
    } catch (error) {
      log.debug({ directory, error: toHoldfastError(error).message }, 'directory not taken over');
    }
  }
}
