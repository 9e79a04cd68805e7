import { assert } from '../../../common/assert.js';
import type { Clock } from '../../../common/clock.js';
import { HoldfastError } from '../../../proto/errors.js';
import { ROOT_INO } from '../../../proto/types.js';
import type { Caller, Entry, FileSystem } from '../binding.js';

/** Paths kept; beyond it those used longest ago go, unless they are in use. */
export const MAX_CACHED_PATHS = 65_536;

/** An inode that stays looked up until it is released. */
export interface PinnedInode {
  readonly ino: number;
  release(): void;
}

interface Known {
  path: string;
  ino: number;
  /** Lookups that the file system has counted for it and that forget() gives back. */
  lookups: number;
  users: number;
  /** Until then the path may be believed without asking; milliseconds of the clock. */
  validUntil: number;
  /** No longer in the map: forgotten when its last user releases it. */
  dropped: boolean;
}

const ROOT: PinnedInode = { ino: ROOT_INO, release: () => undefined };

/**
 * Paths to inodes, for a binding that is told paths only: walks from the root by lookup, and keeps what it has found
 * for as long as the file system lets it. Inodes in use are pinned: their lookups are given back after their release.
 */
export class PathMap {
  /** In order of use, oldest first. */
  private readonly known = new Map<string, Known>();

  constructor(
    private readonly fs: FileSystem,
    private readonly caller: Caller,
    private readonly clock: Clock,
    private readonly limit = MAX_CACHED_PATHS,
  ) {}

  get size(): number {
    return this.known.size;
  }

  /** @param path absolute, without a slash at its end, "/" for the root. @throws HoldfastError ENOENT and others */
  async resolve(path: string): Promise<PinnedInode> {
    if (path === '/') return ROOT;
    const present = this.known.get(path);
    if (present && present.validUntil > this.clock.now()) {
      this.known.delete(path);
      this.known.set(path, present);
      return pin(present, this.fs);
    }
    const parent = await this.resolve(parentOf(path));
    try {
      const entry = await this.fs.lookup(this.caller, parent.ino, Buffer.from(nameOf(path)));
      if (entry.attr.ino === 0) throw new HoldfastError('ENOENT');
      return this.add(path, entry);
    } finally {
      parent.release();
    }
  }

  /** Keeps an entry that the file system has answered for a new name. */
  adopt(path: string, entry: Entry): void {
    this.add(path, entry).release();
  }

  /** Forgets a path and all below it: it was removed or renamed. */
  drop(path: string): void {
    const below = `${path}/`;
    for (const [key, known] of this.known) {
      if (key === path || key.startsWith(below)) this.remove(known);
    }
  }

  /** Forgets one path that has nothing below it. */
  dropLeaf(path: string): void {
    const known = this.known.get(path);
    if (known) this.remove(known);
  }

  /** Forgets all. */
  clear(): void {
    for (const known of this.known.values()) this.remove(known);
  }

  private add(path: string, entry: Entry): PinnedInode {
    let known = this.known.get(path);
    if (known && known.ino !== entry.attr.ino) {
      this.remove(known);
      known = undefined;
    }
    known ??= { path, ino: entry.attr.ino, lookups: 0, users: 0, validUntil: 0, dropped: false };
    known.lookups++;
    known.validUntil = this.clock.now() + entry.entryTtlMs;
    this.known.delete(path);
    this.known.set(path, known);
    const pinned = pin(known, this.fs);
    if (this.known.size > this.limit) this.evict();
    return pinned;
  }

  private evict(): void {
    for (const known of this.known.values()) {
      if (this.known.size <= this.limit) return;
      if (known.users === 0) this.remove(known);
    }
  }

  private remove(known: Known): void {
    this.known.delete(known.path);
    known.dropped = true;
    if (known.users === 0) forget(known, this.fs);
  }
}

function pin(known: Known, fs: FileSystem): PinnedInode {
  known.users++;
  let released = false;
  return {
    ino: known.ino,
    release() {
      assert(!released, 'an inode is released once');
      released = true;
      known.users--;
      if (known.users === 0 && known.dropped) forget(known, fs);
    },
  };
}

function forget(known: Known, fs: FileSystem): void {
  if (known.lookups > 0) fs.forget(known.ino, known.lookups);
  known.lookups = 0;
}

/** The directory of a path. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? '/' : path.slice(0, slash);
}

/** The last component of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
