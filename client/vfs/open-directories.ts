import { Counts } from '../../common/counts.js';
import { LruMap } from '../../common/lru-map.js';
import { LeaseMode } from '../../proto/gen/meta.js';
import type { OpenReply } from '../fuse/binding.js';
import type { VfsContext } from './context.js';
import { DirectoryStream } from './directory.js';

/** Directories whose listings the kernel keeps. */
const KERNEL_LISTINGS_MAX = 16_384;

/** The directories that are open here, and which of their listings the kernel may keep. */
export class OpenDirectories {
  readonly #context: VfsContext;
  readonly #streams = new Map<number, DirectoryStream>();
  /** How often each is open. */
  readonly #opens = new Counts();
  /** Directories whose listings the kernel may keep, and the LeaseTable.stamp() as of which they are right. */
  readonly #kernelListings = new LruMap<number, number>();
  #next = 1;

  constructor(context: VfsContext) {
    this.#context = context;
  }

  isOpen(ino: number): boolean {
    return this.#opens.has(ino);
  }

  /** @param unread nobody lists it */
  open(ino: number, unread = false): OpenReply {
    const handle = this.#next++;
    this.#streams.set(handle, new DirectoryStream(ino, this.#context));
    this.#opens.up(ino);
    return unread ? { handle } : { handle, ...this.#kernelListing(ino) };
  }

  /** @param handle one that is not known is of a reader that has not opened the directory */
  stream(ino: number, handle: number): DirectoryStream {
    const known = this.#streams.get(handle);
    if (known) return known;
    this.#kernelListing(ino);
    return new DirectoryStream(ino, this.#context);
  }

  close(ino: number, handle: number): void {
    if (this.#streams.delete(handle)) this.#opens.down(ino);
  }

  /** A listing counts as a read. */
  countListing(ino: number): void {
    const { files, inodes } = this.#context;
    const attr = inodes.known(ino);
    if (attr) files.atimes?.read(files.view(attr));
  }

  /** Under a lease the kernel keeps what it has listed, until a recall takes it. Of another lease it keeps nothing. */
  #kernelListing(ino: number): Pick<OpenReply, 'cacheDir' | 'keepCache'> {
    const { notifier, meta } = this.#context;
    if (!notifier || this.#context.mode(ino) === LeaseMode.LEASE_NONE) return {};
    const asOf = this.#kernelListings.peek(ino);
    const keepCache = asOf !== undefined && this.#context.covers(ino, asOf);
    this.#kernelListings.set(ino, keepCache ? asOf : meta.leases.stamp());
    if (this.#kernelListings.size > KERNEL_LISTINGS_MAX) this.#kernelListings.shift();
    // There may be no other sign of the listing.
    if (keepCache) this.countListing(ino);
    return { cacheDir: true, keepCache };
  }
}
