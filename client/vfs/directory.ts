import { CAN_PACK } from '../../proto/dir-rows.js';
import { HoldfastError } from '../../proto/errors.js';
import type { DirPage, DirEntry as WireEntry } from '../../proto/gen/meta.js';
import { S_IFDIR, TYPE_SHIFT } from '../../proto/types.js';
import type { DirEntry } from '../fuse/binding.js';
import type { Name } from '../leases/name-cache.js';
import { resultOf } from '../meta/api.js';
import { type Interrupt, interruptible } from '../wait.js';
import type { VfsContext } from './context.js';

/** Entries asked of the server at a time, at most. */
export const DIR_PAGE_ENTRIES_MAX = 1024;
/** At the beginning of a listing, which may not be read on; each further page is larger by the factor. */
const DIR_PAGE_ENTRIES_FIRST = 128;
const DIR_PAGE_GROWTH = 8;
/** The kernel's cookies: 1 is behind ".", 2 behind "..", then the server's own, moved up. */
const COOKIE_DOT = 1;
const COOKIE_DOT_DOT = 2;
const TYPE_DIRECTORY = S_IFDIR >>> TYPE_SHIFT;

/** Consecutive entries, and what is behind them. */
interface Page {
  /** The server's cookie that it begins behind. */
  from: number;
  entries: readonly (Name | WireEntry)[];
  end: boolean;
  parent: number;
  plus: boolean;
  /** LeaseTable.stamp() at its arrival: good for as long as the directory's lease covers it. */
  asOf: number;
  change: number | undefined;
}

/** What was read so far from the beginning, to be known as a whole at the end. */
interface Gathering {
  entries: Name[];
  asOf: number;
  change: number | undefined;
}

/**
 * One open directory. A directory known as a whole is listed without asking; otherwise pages are fetched ahead of the
 * kernel's small requests, and make the directory known when it was read to its end under one lease.
 */
export class DirectoryStream {
  readonly #ino: number;
  readonly #context: VfsContext;
  #page: Page | undefined;
  #gathering: Gathering | undefined;
  #pageEntries = 0;

  constructor(ino: number, context: VfsContext) {
    this.#ino = ino;
    this.#context = context;
  }

  /** Entries behind `cookie`, at most `max`; none: the end. */
  async read(cookie: number, max: number, plus: boolean, signal?: Interrupt): Promise<DirEntry[]> {
    const from = Math.max(0, cookie - COOKIE_DOT_DOT);
    const page =
      (await this.#known(from, signal)) ?? (await this.#fetched(from, cookie === 0, max, plus, signal));
    const found: DirEntry[] = [];
    if (cookie < COOKIE_DOT) found.push(dot('.', this.#ino, COOKIE_DOT));
    if (cookie < COOKIE_DOT_DOT && found.length < max) found.push(dot('..', page.parent, COOKIE_DOT_DOT));
    const { entries } = page;
    for (let at = indexBehind(entries, from); at < entries.length && found.length < max; at++) {
      found.push(this.#entry(entries[at] as Name, plus));
    }
    return found;
  }

  /** From what is known of the directory as a whole; entries made here get their places first. */
  async #known(from: number, signal?: Interrupt): Promise<Page | undefined> {
    const { names, lane } = this.#context;
    if (this.#context.mode(this.#ino) === 0 || !names.isComplete(this.#ino)) return undefined;
    // The answers to changes made here tell the places of their names.
    if (names.hasUnplaced(this.#ino)) await interruptible(lane.settledFor([this.#ino]), signal);
    if (names.hasUnplaced(this.#ino)) await this.#place(signal);
    if (this.#context.mode(this.#ino) === 0) return undefined;
    const listing = names.listing(this.#ino);
    return listing && { ...listing, from, end: true, plus: false, asOf: 0, change: undefined };
  }

  /** New entries are behind all others: their pages tell their places. */
  async #place(signal?: Interrupt): Promise<void> {
    const { names } = this.#context;
    for (;;) {
      const cookie = names.unplacedFrom(this.#ino);
      if (cookie === undefined) return;
      const { page } = await this.#ask(cookie, DIR_PAGE_ENTRIES_MAX, false, signal);
      for (const entry of page.entries) {
        const known = names.lookup(this.#ino, entry.name);
        // What was renamed or removed here meanwhile is not what the server still has.
        if (known !== 'absent' && known?.ino === entry.ino) names.put(this.#ino, entry);
      }
      if (page.end || page.entries.length === 0) break;
    }
    // Something is left without a place: others or this mount changed it meanwhile. It is listed from the server.
    if (names.unplacedFrom(this.#ino) !== undefined) names.drop(this.#ino);
  }

  async #fetched(
    from: number,
    rewind: boolean,
    max: number,
    plus: boolean,
    signal?: Interrupt,
  ): Promise<Page> {
    const known = this.#page;
    if (known && !rewind && known.plus === plus && this.#good(known)) {
      const index = holds(known, from) ? indexBehind(known.entries, from) : -1;
      if (index >= 0 && (index < known.entries.length || known.end)) return known;
      this.#pageEntries = Math.min(DIR_PAGE_ENTRIES_MAX, this.#pageEntries * DIR_PAGE_GROWTH);
    } else this.#pageEntries = Math.min(DIR_PAGE_ENTRIES_MAX, Math.max(DIR_PAGE_ENTRIES_FIRST, max));
    const { epoch } = this.#context.inodes;
    const watch = this.#context.nameChanges.watch(this.#ino);
    try {
      const { page, asOf } = await this.#ask(from, Math.max(max, this.#pageEntries), plus, signal);
      if (page.entries.length === 0 && !page.end)
        throw new HoldfastError('PROTOCOL', 'an empty page is not the end');
      for (const { attr } of page.entries) if (attr) this.#context.inodes.learn(attr, { asOf, epoch }, false);
      const former = this.#page?.entries.at(-1);
      this.#context.smallFiles.listed(page.entries, former?.cookie === from ? former : undefined);
      // With a change of our own under way the page may be older than the attributes: it is good for this call only.
      const change = watch.changed ? undefined : this.#context.inodes.known(this.#ino)?.change;
      this.#page = { ...page, from, plus, asOf, change };
      if (watch.changed) this.#gathering = undefined;
      else this.#gather(this.#page);
      return this.#page;
    } finally {
      watch.end();
    }
  }

  async #ask(
    cookie: number,
    maxEntries: number,
    plus: boolean,
    signal?: Interrupt,
  ): Promise<{ page: DirPage; asOf: number }> {
    const op = {
      $case: 'readDir' as const,
      value: { ino: this.#ino, cookie, maxEntries, plus, packed: CAN_PACK },
    };
    const { result, asOf } = await this.#context.askFor(this.#ino, op, signal);
    return { page: resultOf(result, 'dir'), asOf };
  }

  /** A change of our own shows in the directory's attributes, one of somebody else's takes the lease. */
  #good(page: Pick<Page, 'asOf' | 'change'>): boolean {
    const { inodes } = this.#context;
    return this.#context.covers(this.#ino, page.asOf) && inodes.known(this.#ino)?.change === page.change;
  }

  #gather(page: Page): void {
    if (page.from === 0) this.#gathering = { entries: [], asOf: page.asOf, change: page.change };
    const gathering = this.#gathering;
    if (!gathering) return;
    const last = gathering.entries.at(-1)?.cookie ?? 0;
    const good = last === page.from && this.#good(gathering);
    const { names } = this.#context;
    if (!good || gathering.entries.length + page.entries.length > names.entriesMax) {
      this.#gathering = undefined;
      return;
    }
    for (const { name, ino, type, cookie } of page.entries) {
      const entry = { name, ino, type, cookie };
      gathering.entries.push(entry);
      // The kernel may keep an entry that it is given only if it is known here.
      if (page.plus && !page.end) names.put(this.#ino, entry);
    }
    if (!page.end) return;
    names.complete(this.#ino, page.parent, gathering.entries);
    this.#gathering = undefined;
  }

  #entry({ name, ino, type, cookie }: Name, plus: boolean): DirEntry {
    const entry: DirEntry = { name, ino, type, cookie: cookie + COOKIE_DOT_DOT };
    if (!plus) return entry;
    const attr = this.#context.inodes.fresh(ino)?.attr;
    // Without attributes to believe, the kernel asks for those it wants.
    if (attr) entry.entry = this.#context.entry(attr, this.#ino, name);
    return entry;
  }
}

/** Where the entries behind a server's cookie begin. Entries are in the order of their cookies. */
function indexBehind(entries: readonly { cookie: number }[], cookie: number): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((entries[middle] as { cookie: number }).cookie <= cookie) low = middle + 1;
    else high = middle;
  }
  return low;
}

function holds(page: Page, from: number): boolean {
  return from === page.from || (from > page.from && from <= (page.entries.at(-1)?.cookie ?? 0));
}

function dot(name: string, ino: number, cookie: number): DirEntry {
  return { name: Buffer.from(name), ino, type: TYPE_DIRECTORY, cookie };
}
