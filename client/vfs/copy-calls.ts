import { FILE_SIZE_MAX_BYTES } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import { COPY_BY_SERVERS_BYTES_MIN, copyByServers } from '../data/range-copy.js';
import type { Caller } from '../fuse/binding.js';
import type { VfsContext } from './context.js';
import type { FileCalls } from './file-calls.js';
import { O_APPEND, O_DSYNC, O_NOATIME, O_SYNC_ONLY, throwWriteError } from './file-table.js';
import { checkMayWrite } from './guarded-files.js';
import type { LockCalls } from './lock-calls.js';

/** One call copies no more: it can be interrupted in between. */
const COPY_BYTES_MAX = 128 * 1024 * 1024;
const COPY_PIECE_BYTES = 1024 * 1024;

interface Place {
  handle: number;
  offset: number;
}

/** copy_file_range(2): by the servers where they can, else through this process. */
export class CopyCalls {
  readonly #context: VfsContext;
  readonly #chunks: ChunkApi;
  readonly #calls: FileCalls;
  readonly #locks: LockCalls;

  constructor(context: VfsContext, chunks: ChunkApi, calls: FileCalls, locks: LockCalls) {
    this.#context = context;
    this.#chunks = chunks;
    this.#calls = calls;
    this.#locks = locks;
  }

  /**
   * The kernel has checked that ranges of one file do not overlap, and has written back its pages.
   * @returns bytes copied, fewer than asked for at the end of the source and for long ranges
   */
  async copyFileRange(
    caller: Caller,
    from: Place,
    to: Place & { ino: number },
    length: number,
  ): Promise<number> {
    const { flags } = this.#context.files.handle(to.handle);
    const stop = Math.min(length, COPY_BYTES_MAX);
    const done = await this.#context.unleasedPages.resizing(to.ino, () =>
      this.#copied(caller, from, to, flags, stop),
    );
    await this.#context.unleasedPages.drop(to.ino);
    return done;
  }

  async #copied(
    caller: Caller,
    from: Place,
    to: Place & { ino: number },
    flags: number,
    stop: number,
  ): Promise<number> {
    let done = await this.#byServers(caller, from, to, stop);
    while (done < stop) {
      const size = Math.min(COPY_PIECE_BYTES, stop - done);
      const parts = await this.#calls.read(caller, from.handle, from.offset + done, size);
      const data = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
      if (data.length === 0) break;
      const offset = to.offset + done;
      const request = { handle: to.handle, offset, data, fromCache: false, killPriv: false };
      const written = await this.#calls.write(caller, to.ino, { ...request, flags: flags & ~O_APPEND });
      done += written;
      if (written < size) break;
    }
    return done;
  }

  /** @returns bytes copied from the start of the range on; they count as written here */
  async #byServers({ signal }: Caller, from: Place, to: Place, length: number): Promise<number> {
    const { files, quotas, readOnly, lane } = this.#context;
    const [source, target] = [files.handle(from.handle), files.handle(to.handle)];
    throwWriteError(target);
    for (const [{ file }, { handle }] of [
      [source, from],
      [target, to],
    ] as const)
      this.#locks.refuseLost(file.ino, handle);
    // Room in a quota is set aside by the bytes that are written here.
    if (readOnly || quotas.book.active || (target.flags & (O_DSYNC | O_SYNC_ONLY)) !== 0) return 0;
    await this.#calls.learnEnd(source.file, signal);
    const count = Math.min(length, source.file.size - from.offset);
    if (count < COPY_BY_SERVERS_BYTES_MIN || to.offset + count > FILE_SIZE_MAX_BYTES) return 0;
    const { atimes } = files;
    if ((source.flags & O_NOATIME) === 0) atimes?.read(atimes.view(source.file.view()));
    const range = { at: from.offset, to: to.offset, length: count };
    return this.#calls.whileSized(target.file, signal, async (isWanted) => {
      checkMayWrite(target, { flags: 0, fromCache: false }, files);
      await this.#calls.closeGap(target.file, to.offset, signal);
      const done = await lane.urgently(
        copyByServers(this.#chunks, source.file, target.file, range, { signal, isWanted }),
      );
      if (done > 0) await this.#calls.showOthers(target, undefined);
      return done;
    });
  }
}
