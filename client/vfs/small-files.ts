import type { Attr } from '../../proto/gen/meta.js';
import { S_IFMT, S_IFREG, TYPE_SHIFT } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import type { BlockCache } from '../data/block-cache.js';
import { READ_BLOCK_BYTES_MAX, unitWithin } from '../data/limits.js';
import type { FileTable } from './file-table.js';
import type { InodeCache } from './inode-cache.js';

/** Larger files are left to the read-ahead within a file. */
export const SMALL_FILE_BYTES_MAX = 64 * 1024;
/** So many files of a directory are read one after the other before further ones are fetched; fewer where another one was read so before. */
export const FILES_BEFORE_AHEAD = 2;
/** Files fetched ahead of one that is being read; as many as were read before it, at most this. */
export const FILES_AHEAD_MAX = 32;
/** Of their contents, at a time. */
export const FILES_AHEAD_BYTES_MAX = 1024 * 1024;
/** Files whose place in a listing is remembered; those listed longest ago are forgotten. */
const PLACES_MAX = 65_536;
/** Readers of directories that are told apart; the one unused longest is forgotten. */
const STREAKS_MAX = 64;

const TYPE_REGULAR = S_IFREG >>> TYPE_SHIFT;

/** Somebody reads a directory's files in their order. */
interface Streak {
  /** Read so far. */
  files: number;
  /** Counted beside them: of the directory that was read before, as by grep -r. */
  carried: number;
  /** Looked at already, behind the last one that was read. */
  ahead: number;
}

/**
 * Programs that read the small files of a directory one after the other (grep -r, cp -r, a compiler) find them here: their
 * contents are asked for some files ahead, many requests in one turn of the event loop, so that a file costs neither a round
 * trip nor a wake-up of each side. What is fetched lies in the block cache, and is believed as blocks are: under the
 * file's lease. Only files are fetched whose attributes are known under one.
 */
export class SmallFiles {
  readonly #deps: { inodes: InodeCache; files: FileTable; blocks: BlockCache; chunks: ChunkApi };
  /** Of each regular file the next one in its directory's listing. */
  readonly #next = new Map<number, number>();
  /** By the file that is expected next. */
  readonly #streaks = new Map<number, Streak>();
  /** What the streak that went on last is worth to one that begins: half of it, so that it is soon forgotten where none goes on. */
  #latest = 0;

  constructor(deps: { inodes: InodeCache; files: FileTable; blocks: BlockCache; chunks: ChunkApi }) {
    this.#deps = deps;
  }

  /** Entries of one directory in its order. @param behind the entry that comes before them, if it is known */
  listed(entries: readonly { ino: number; type: number }[], behind?: { ino: number; type: number }): void {
    let last = behind?.type === TYPE_REGULAR ? behind.ino : undefined;
    for (const { ino, type } of entries) {
      if (type !== TYPE_REGULAR) continue;
      if (last !== undefined) {
        this.#next.delete(last);
        this.#next.set(last, ino);
      }
      last = ino;
    }
    for (const oldest of this.#next.keys()) {
      if (this.#next.size <= PLACES_MAX) break;
      this.#next.delete(oldest);
    }
  }

  /** A small file is being read from its beginning. */
  reading(ino: number): void {
    const next = this.#next.get(ino);
    const streak = this.#streaks.get(ino);
    if (next === undefined || (!streak && this.#streaks.has(next))) return;
    this.#streaks.delete(ino);
    const files = (streak?.files ?? 0) + 1;
    const carried = streak?.carried ?? Math.floor(this.#latest / 2);
    this.#latest = Math.max(files, carried);
    let ahead = Math.max(0, (streak?.ahead ?? 0) - 1);
    const run = files + carried;
    const window = run > FILES_BEFORE_AHEAD ? Math.min(run, FILES_AHEAD_MAX) : 0;
    // Half a window at a time: requests that leave together are cheaper than one behind each file.
    if (ahead * 2 <= window) ahead = this.#fetch(next, window);
    this.#streaks.set(next, { files, carried, ahead });
    for (const oldest of this.#streaks.keys()) {
      if (this.#streaks.size <= STREAKS_MAX) break;
      this.#streaks.delete(oldest);
    }
  }

  /**
   * A file is opened whose contents may have been fetched ahead: what is here goes to `store`.
   * @param store takes all bytes of the file. @returns false: nobody will read them from there
   * @returns whether it did: there will be no other sign that the file is read
   */
  opening(attr: Attr, store: (data: Buffer) => boolean): boolean {
    const { blocks } = this.#deps;
    const data = isSmall(attr) ? blocks.get(attr.ino, 0)?.ready : undefined;
    if (data?.length !== attr.size || !store(data)) return false;
    blocks.gave(attr.ino, 0, attr.size, attr.size);
    this.reading(attr.ino);
    return true;
  }

  /** @returns how many files from `first` on were looked at */
  #fetch(first: number, filesMax: number): number {
    const { inodes, files, blocks, chunks } = this.#deps;
    let bytes = 0;
    let looked = 0;
    for (let ino: number | undefined = first; ino !== undefined && looked < filesMax; looked++) {
      const attr = inodes.fresh(ino)?.attr;
      // Of an open file, or one not yet written back, this mount knows more than the servers.
      if (attr && isSmall(attr) && !files.get(ino) && !blocks.has(ino, 0)) {
        bytes += attr.size;
        if (bytes > FILES_AHEAD_BYTES_MAX) break;
        blocks.fetch(ino, 0, attr.size, () => chunks.read(attr, 0, 0, attr.size));
      }
      ino = this.#next.get(ino);
    }
    return looked;
  }
}

/** Whether a regular file has contents that lie in its first block. */
function isSmall({ mode, size, chunkSize }: { mode: number; size: number; chunkSize: number }): boolean {
  if ((mode & S_IFMT) !== S_IFREG || size === 0 || size > SMALL_FILE_BYTES_MAX) return false;
  return size <= unitWithin(chunkSize, READ_BLOCK_BYTES_MAX);
}
