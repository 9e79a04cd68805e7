import { Counts } from '../../common/counts.js';
import { type Answer, lastly } from '../answer.js';
import type { Notifier, WriteRequest } from '../fuse/binding.js';
import type { OpenFile } from './file-table.js';
import type { PageDrops } from './page-drops.js';

/** Bytes from `from` on, up to `to`. */
export interface ByteRange {
  from: number;
  to: number;
}

const PAGE_BYTES = 4096;
/** So long for pages that a write may have locked itself: it has none of them once it is answered, and they show nothing old then. */
const OWN_PAGES_WAIT_MS = 10;

export interface UnleasedPagesDeps {
  notifier(): Notifier | undefined;
  owns(ino: number): boolean;
  /** Whether the kernel may have pages of it that no lease covers: none is held, and it is open through the page cache. */
  mayFill(ino: number): boolean;
  pageDrops: PageDrops;
  failed(ino: number, error: unknown): void;
}

/**
 * Pages that the kernel may have of files which were read or written here without a lease.
 *
 * It asks for the attributes before it shows one, and drops its pages when size or time of the last change have moved. But it
 * drops the answer instead when it was told of the inode in another way since it asked: by the end of a write, or another change
 * made here. And out of the answer to SETATTR it takes the new time without a look at its pages: then they pass for right, until
 * somebody changes the file again. Either way it would show what was there before another mount wrote, long ago perhaps.
 *
 * So before a change made here is answered, such pages are dropped: nobody finds one behind it. While a change of the size is on it
 * drops all answers; then such pages are dropped before each. There are none of files that are open
 * with direct I/O alone, for nobody reads them; at an open they are dropped or known to be right.
 */
export class UnleasedPages {
  readonly #deps: UnleasedPagesDeps;
  /** For each inode a range that holds all such pages. */
  readonly #pages = new Map<number, ByteRange>();
  /** Calls on which the kernel waits, and may drop all answers until then. */
  readonly #resizing = new Counts();

  constructor(deps: UnleasedPagesDeps) {
    this.#deps = deps;
  }

  /** Pages that hold these bytes, if any, were filled through the page cache, or will be when a call is answered that is on. */
  filled(ino: number, { from, to }: ByteRange): void {
    if (from >= to || !this.#deps.notifier() || !this.#deps.mayFill(ino)) return;
    const known = this.#pages.get(ino);
    this.#pages.set(
      ino,
      known ? { from: Math.min(known.from, from), to: Math.max(known.to, to) } : { from, to },
    );
  }

  has(ino: number): boolean {
    return this.#pages.has(ino);
  }

  /** Whether there are some, and the kernel takes no attributes now. */
  areUnguarded(ino: number): boolean {
    return this.#resizing.has(ino) && this.#pages.has(ino);
  }

  /** Nobody can read them any more. */
  forget(ino: number): void {
    this.#pages.delete(ino);
  }

  /** Carries out a call in which the kernel counts the size as unstable: a truncate, an allocation, a copy, a write behind the end through its pages. */
  resizing<T>(ino: number, call: () => Answer<T>): Answer<T> {
    this.#resizing.up(ino);
    return lastly(call, () => {
      this.#resizing.down(ino);
    });
  }

  /** Carries out a write, without a lease perhaps. Pages of a mapping wait for the very answer behind which others would have to be dropped. */
  written<T>(
    open: Pick<OpenFile, 'file' | 'direct'>,
    request: WriteRequest,
    write: () => Answer<T>,
  ): Answer<T> {
    const { ino } = open.file;
    if (request.fromCache || (!this.#pages.has(ino) && this.#deps.owns(ino))) return write();
    const { offset, data } = request;
    const bytes = open.direct ? undefined : { from: offset, to: offset + data.length };
    return this.#unleased(open.file, bytes, write);
  }

  /** @param bytes that are written through the page cache; undefined: it is passed by */
  async #unleased<T>(
    { ino, size }: { ino: number; size: number },
    bytes: ByteRange | undefined,
    write: () => Answer<T>,
  ): Promise<T> {
    try {
      return await (bytes && bytes.to > size ? this.resizing(ino, write) : write());
    } finally {
      const dropped = this.drop(ino, bytes);
      if (bytes) this.filled(ino, wholePages(bytes));
      if (dropped) await dropped;
    }
  }

  /**
   * To be called behind a change of a file made here, before it is answered.
   * @param written by a write through the page cache: it may have locked its pages, when they were empty before
   * @returns ends when the kernel has dropped them, or takes too long; undefined: there are none
   */
  drop(ino: number, written?: ByteRange): Promise<void> | undefined {
    const notifier = this.#deps.notifier();
    if (!notifier || !this.#pages.has(ino)) return undefined;
    const dropped = this.#dropAll(ino, notifier, written);
    dropped.catch((error: unknown) => this.#deps.failed(ino, error));
    this.#deps.pageDrops.track(ino, dropped);
    return this.#deps.pageDrops.withPatience(dropped);
  }

  async #dropAll(ino: number, notifier: Notifier, written: ByteRange | undefined): Promise<void> {
    const pages = this.#pages.get(ino);
    this.#pages.delete(ino);
    if (!written) return notifier.invalidateInode(ino, 0, 0);
    const [start, end] = [written.from - (written.from % PAGE_BYTES), pageBehind(written.to)];
    const dropped = [notifier.invalidateInode(ino, end, 0)];
    if (start > 0) dropped.push(notifier.invalidateInode(ino, 0, start));
    if (pages && pages.from < end && pages.to > start) {
      const own = notifier.invalidateInode(ino, start, end - start);
      dropped.push(this.#deps.pageDrops.withPatience(own, OWN_PAGES_WAIT_MS));
    }
    await Promise.all(dropped);
  }
}

/** Pages that a write fills. Of others it leaves nothing that was not there before. */
export function wholePages({ from, to }: ByteRange): ByteRange {
  return { from: pageBehind(from), to: to - (to % PAGE_BYTES) };
}

function pageBehind(at: number): number {
  return Math.ceil(at / PAGE_BYTES) * PAGE_BYTES;
}
