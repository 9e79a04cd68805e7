import type { Clock } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, DirPage, DirEntry as WireEntry } from '../../proto/gen/meta.js';
import { S_IFDIR } from '../../proto/types.js';
import type { DirEntry } from '../fuse/binding.js';
import { type MetaApi, resultOf } from '../meta/api.js';
import { ATTR_TTL_MS, toEntry } from './attr.js';
import type { InodeCache } from './inode-cache.js';

/** Entries asked of the server at a time, at most; less at the beginning of a listing. */
export const DIR_PAGE_ENTRIES_MAX = 1024;
/** The kernel's cookies: 1 is behind ".", 2 behind "..", then the server's own, moved up. */
const COOKIE_DOT = 1;
const COOKIE_DOT_DOT = 2;
const TYPE_DIRECTORY = S_IFDIR >> 12;

export interface DirectoryDeps {
  meta: MetaApi;
  clock: Clock;
  inodes: InodeCache;
  /** Attributes with what was written here laid over them. */
  view(attr: Attr): Attr;
}

interface Buffered {
  /** The server's cookie that the page was asked for. */
  from: number;
  page: DirPage;
  plus: boolean;
  at: number;
  epoch: number;
}

/**
 * One open directory. Entries are fetched ahead of the kernel's small requests; the buffer is given up at rewinddir(3),
 * after the attribute time-out, and as soon as anything is made or removed on this mount.
 */
export class DirectoryStream {
  readonly #ino: number;
  readonly #deps: DirectoryDeps;
  #buffer: Buffered | undefined;
  #pageEntries = 0;

  constructor(ino: number, deps: DirectoryDeps) {
    this.#ino = ino;
    this.#deps = deps;
  }

  /** Entries behind `cookie`, at most `max`; none: the end. */
  async read(cookie: number, max: number, plus: boolean, signal?: AbortSignal): Promise<DirEntry[]> {
    const from = Math.max(0, cookie - COOKIE_DOT_DOT);
    const { buffer, index } = await this.#find(from, cookie === 0, max, plus, signal);
    const found: DirEntry[] = [];
    if (cookie < COOKIE_DOT) found.push(dot('.', this.#ino, COOKIE_DOT));
    if (cookie < COOKIE_DOT_DOT && found.length < max)
      found.push(dot('..', buffer.page.parent, COOKIE_DOT_DOT));
    const { entries } = buffer.page;
    const ttlMs = Math.max(0, ATTR_TTL_MS - (this.#deps.clock.now() - buffer.at));
    for (let at = index; at < entries.length && found.length < max; at++) {
      found.push(this.#entry(entries[at] as WireEntry, plus, ttlMs, buffer));
    }
    return found;
  }

  async #find(
    from: number,
    rewind: boolean,
    max: number,
    plus: boolean,
    signal?: AbortSignal,
  ): Promise<{ buffer: Buffered; index: number }> {
    const buffer = this.#buffer;
    if (buffer && !rewind && this.#valid(buffer, plus)) {
      const index = indexBehind(buffer, from);
      if (index !== undefined && (index < buffer.page.entries.length || buffer.page.end))
        return { buffer, index };
      this.#pageEntries = Math.min(DIR_PAGE_ENTRIES_MAX, this.#pageEntries * 2);
    } else {
      this.#pageEntries = Math.min(DIR_PAGE_ENTRIES_MAX, Math.max(1, max));
    }
    const maxEntries = Math.max(max, this.#pageEntries);
    const { at, epoch } = this.#deps.inodes.stamp();
    const op = { $case: 'readDir' as const, value: { ino: this.#ino, cookie: from, maxEntries, plus } };
    const page = resultOf(await this.#deps.meta.read(op, signal), 'dir');
    if (page.entries.length === 0 && !page.end)
      throw new HoldfastError('PROTOCOL', 'an empty page is not the end');
    this.#buffer = { from, page, plus, at, epoch };
    return { buffer: this.#buffer, index: 0 };
  }

  #valid(buffer: Buffered, plus: boolean): boolean {
    const { clock, inodes } = this.#deps;
    return buffer.epoch === inodes.epoch && buffer.plus === plus && clock.now() - buffer.at < ATTR_TTL_MS;
  }

  #entry(wire: WireEntry, plus: boolean, ttlMs: number, stamp: { at: number; epoch: number }): DirEntry {
    const { name, ino, type } = wire;
    const entry: DirEntry = { name, ino, type, cookie: wire.cookie + COOKIE_DOT_DOT };
    if (!plus || !wire.attr) return entry;
    const { inodes, view } = this.#deps;
    inodes.learn(wire.attr, stamp, false);
    inodes.tell(wire.attr);
    entry.entry = toEntry(view(wire.attr), ttlMs);
    return entry;
  }
}

/** Where the entries behind a server's cookie begin; undefined: not in this page. */
function indexBehind(buffer: Buffered, cookie: number): number | undefined {
  if (cookie === buffer.from) return 0;
  const { entries } = buffer.page;
  // The kernel goes on at the end of what it got: near the end of the page, as a rule.
  for (let at = entries.length - 1; at >= 0; at--) if (entries[at]?.cookie === cookie) return at + 1;
  return undefined;
}

function dot(name: string, ino: number, cookie: number): DirEntry {
  return { name: Buffer.from(name), ino, type: TYPE_DIRECTORY, cookie };
}
