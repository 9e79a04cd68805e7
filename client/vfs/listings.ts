import { LruMap } from '../../common/lru-map.js';
import { CAN_PACK } from '../../proto/dir-rows.js';
import { type DirPage, LeaseMode } from '../../proto/gen/meta.js';
import type { Caller } from '../fuse/binding.js';
import { FILTERED_NAMES_MAX, type Name } from '../leases/name-cache.js';
import { NameFilter } from '../leases/name-filter.js';
import { resultOf } from '../meta/api.js';
import { type Interrupt, interruptible } from '../wait.js';
import type { VfsContext } from './context.js';

/** Entries with attributes and leases asked for at a time. */
export const LISTING_PAGE_ENTRIES = 1024;
/** Names looked up by request in one directory before its listing is fetched. */
export const MISSES_BEFORE_LISTING = 2;
/** A listing that was begun again within this time did not pay: the next one waits for twice as many misses. */
const LISTING_PAYS_AFTER_MS = 10_000;
const MISSES_MAX = 1024;
/** Directories in which names are being looked up. */
const WATCHED_DIRECTORIES_MAX = 256;

/**
 * What came of a listing: all of it is known, or of a directory that is longer than what is kept of one, which names there
 * are; more can be read; somebody changed it, or its lease is not to be had; it is too long.
 */
export type ListingState = 'complete' | 'partial' | 'void' | 'large';

/**
 * A directory read from its beginning, page by page, under one lease: names and attributes, with a lease on each inode;
 * where it is longer than what is kept of one, on request its names alone. What this mount changes meanwhile by itself makes it void.
 */
export class Listing {
  readonly #context: VfsContext;
  readonly #directory: number;
  readonly #want: LeaseMode;
  readonly #namesBeyond: boolean;
  readonly #sole: boolean;
  readonly #watch: { changed: boolean; end(): void };
  /** All so far; only the last page when there is a filter. */
  #entries: Name[] = [];
  #filter: NameFilter | undefined;
  #asOf: number | undefined;

  /**
   * @param want what is asked for on the directory and, where nobody else has a lease, on what is in it
   * @param namesBeyond where it is too long to be kept, it is read on for its names
   * @param sole others are asked for what they have of its entries
   */
  constructor(context: VfsContext, directory: number, want: LeaseMode, namesBeyond = false, sole = false) {
    this.#context = context;
    this.#directory = directory;
    this.#want = want;
    this.#namesBeyond = namesBeyond;
    this.#sole = sole;
    this.#watch = context.nameChanges.watch(directory);
  }

  /** Reads up to so many pages more. Call close() behind the last one. @throws HoldfastError as MetaApi.ask */
  async read(pagesMax: number, signal?: Interrupt): Promise<ListingState> {
    for (let pages = 0; pages < pagesMax; pages++) {
      const { page, asOf } = await this.#ask(signal);
      this.#asOf ??= asOf;
      const owns = this.#context.owns(this.#directory);
      if (this.#watch.changed || !this.#context.covers(this.#directory, this.#asOf)) return 'void';
      if (this.#want === LeaseMode.LEASE_EXCLUSIVE && !owns) return 'void';
      if (!this.#take(page)) return 'large';
      if (page.end || page.entries.length === 0) return this.#finish(page.parent) ? 'complete' : 'void';
    }
    return 'partial';
  }

  close(): void {
    this.#watch.end();
  }

  /** @returns whether more is to be read */
  #take(page: DirPage): boolean {
    const entries = page.entries.map(({ name, ino, type, cookie }) => ({ name, ino, type, cookie }));
    if (!this.#filter && this.#entries.length + entries.length <= this.#context.names.entriesMax) {
      this.#entries.push(...entries);
      if (!page.end) for (const entry of entries) this.#context.names.put(this.#directory, entry);
      return true;
    }
    if (!this.#namesBeyond) return false;
    this.#filter ??= new NameFilter();
    for (const { name } of [...this.#entries, ...entries]) this.#filter.add(name);
    this.#entries = entries;
    return this.#filter.size <= FILTERED_NAMES_MAX;
  }

  #finish(parent: number): boolean {
    const { names } = this.#context;
    if (!this.#filter) return names.complete(this.#directory, parent, this.#entries);
    names.filtered(this.#directory, this.#filter);
    return names.tellsAbsence(this.#directory);
  }

  async #ask(signal?: Interrupt): Promise<{ page: DirPage; asOf: number }> {
    const { inodes } = this.#context;
    const { epoch } = inodes;
    const cookie = this.#entries.at(-1)?.cookie ?? 0;
    const value = {
      ino: this.#directory,
      cookie,
      maxEntries: LISTING_PAGE_ENTRIES,
      plus: !this.#filter,
      packed: CAN_PACK,
      want: this.#want,
      sole: this.#sole || undefined,
    };
    const { result, asOf } = await this.#context.askFor(this.#directory, { $case: 'readDir', value }, signal);
    const page = resultOf(result, 'dir');
    if (page.attr) inodes.learn(page.attr, { asOf, epoch }, false);
    for (const { attr } of page.entries) if (attr) inodes.learn(attr, { asOf, epoch }, false);
    if (!this.#filter) this.#context.smallFiles.listed(page.entries, this.#entries.at(-1));
    return { page, asOf };
  }
}

interface Watched {
  misses: number;
  /** A page is fetched at this number of misses. */
  due: number;
  pages: number;
  startedAt: number;
  listing: Listing | undefined;
  /** The page that is being fetched. */
  running: Promise<void> | undefined;
}

/**
 * Programs that look up one name after the other in a directory (stat in a loop, ls -l, grep -r) are answered from its
 * listing, which is fetched at the first sign of it: a page at a time, each further one after more misses than the last.
 */
export class Listings {
  readonly #context: VfsContext;
  /** In the order in which they were missed last. */
  readonly #watched = new LruMap<number, Watched>();

  constructor(context: VfsContext) {
    this.#context = context;
  }

  /**
   * A name is not known here, and would be asked for.
   * @returns when a page of the directory's listing has been fetched: the name may be known now; undefined: it is not tried
   */
  missed(directory: number, caller: Pick<Caller, 'signal'>): Promise<void> | undefined {
    const watched = this.#watch(directory);
    if (!watched.running) {
      if (++watched.misses <= watched.due) return undefined;
      watched.misses = 0;
      watched.running = this.#fetch(directory, watched);
    }
    return interruptible(watched.running, caller.signal);
  }

  /** The session is over. */
  clear(): void {
    for (const { listing } of this.#watched.values()) listing?.close();
    this.#watched.clear();
  }

  #watch(directory: number): Watched {
    const known = this.#watched.get(directory);
    if (known) return known;
    const watched: Watched = {
      misses: 0,
      due: MISSES_BEFORE_LISTING,
      pages: 0,
      startedAt: Number.NEGATIVE_INFINITY,
      listing: undefined,
      running: undefined,
    };
    this.#watched.set(directory, watched);
    if (this.#watched.size > WATCHED_DIRECTORIES_MAX) this.#watched.shift()?.[1].listing?.close();
    return watched;
  }

  /** Failure means that each name is asked for: it is no error. */
  async #fetch(directory: number, watched: Watched): Promise<void> {
    const now = this.#context.clock.now();
    if (!watched.listing) {
      const paid = now - watched.startedAt > LISTING_PAYS_AFTER_MS;
      watched.due = paid ? MISSES_BEFORE_LISTING : Math.min(MISSES_MAX, 2 * watched.due);
      watched.startedAt = now;
      watched.pages = 0;
      // What is ours alone stays so: its entries are asked for in the same way.
      const want = this.#context.owns(directory) ? LeaseMode.LEASE_EXCLUSIVE : LeaseMode.LEASE_SHARED;
      watched.listing = new Listing(this.#context, directory, want);
    }
    const { listing } = watched;
    let state: ListingState = 'void';
    try {
      state = await listing.read(1);
    } catch (error) {
      this.#context.log.debug({ directory, err: error }, 'directory not listed ahead');
    } finally {
      watched.running = undefined;
    }
    watched.pages++;
    watched.due = Math.max(watched.due, MISSES_BEFORE_LISTING + watched.pages);
    if (state === 'partial') return;
    listing.close();
    watched.listing = undefined;
  }
}
