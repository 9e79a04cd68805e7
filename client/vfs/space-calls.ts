import { HoldfastError } from '../../proto/errors.js';
import { reservesBehindEnd } from '../../proto/inode-flags.js';
import { FILE_SIZE_MAX_BYTES, ROOT_INO } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import type { FileData } from '../data/file-data.js';
import { punchRange } from '../data/punch.js';
import { reserveRange } from '../data/reserve.js';
import type { Caller } from '../fuse/binding.js';
import { type Interrupt, interruptible } from '../wait.js';
import type { VfsContext } from './context.js';
import type { FileCalls } from './file-calls.js';
import type { OpenFile } from './file-table.js';
import { checkMayAllocate } from './guarded-files.js';
import { seekData, seekHole } from './holes.js';
import type { LockCalls } from './lock-calls.js';
import { holdToReserve } from './quota-room.js';
import { statfs } from './statfs.js';

/** fallocate(2) modes. */
const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_PUNCH_HOLE = 0x02;
const FALLOC_FL_ZERO_RANGE = 0x10;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** Calls about where a file has data and where holes. */
export class SpaceCalls {
  readonly #context: VfsContext;
  readonly #chunks: ChunkApi;
  readonly #locks: LockCalls;
  readonly #calls: FileCalls;

  constructor(context: VfsContext, chunks: ChunkApi, locks: LockCalls, calls: FileCalls) {
    this.#context = context;
    this.#chunks = chunks;
    this.#locks = locks;
    this.#calls = calls;
  }

  /** mtime and ctime change with every call that succeeds, as on local file systems. */
  async fallocate(
    caller: Caller,
    handle: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    const open = this.#context.files.handle(handle);
    const allocate = (): Promise<void> => this.#allocate(caller, open, handle, mode, offset, length);
    await this.#context.unleasedPages.resizing(open.file.ino, allocate);
    await this.#context.unleasedPages.drop(open.file.ino);
  }

  async #allocate(
    caller: Caller,
    { file, writable }: OpenFile,
    handle: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    if (!writable) throw new HoldfastError('EBADF');
    if (offset < 0 || length <= 0) throw new HoldfastError('EINVAL');
    this.#locks.refuseLost(file.ino, handle);
    if (offset + length > FILE_SIZE_MAX_BYTES) throw new HoldfastError('EFBIG');
    const kind = mode & ~FALLOC_FL_KEEP_SIZE;
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    if (kind !== 0 && kind !== FALLOC_FL_PUNCH_HOLE && kind !== FALLOC_FL_ZERO_RANGE) {
      throw new HoldfastError('EOPNOTSUPP');
    }
    if (kind === FALLOC_FL_PUNCH_HOLE && !keepSize) throw new HoldfastError('EOPNOTSUPP');
    if (this.#context.readOnly) throw new HoldfastError('EROFS');
    const end = offset + length;
    if (kind === 0) {
      await this.#calls.learnAsWriter(file, caller.signal);
      checkMayAllocate(file, false);
    }
    const punch = (): Promise<boolean> => this.#punch(file, offset, end);
    const punched = kind !== 0 && (await this.#calls.whileSized(file, caller.signal, punch));
    if (kind !== FALLOC_FL_PUNCH_HOLE) {
      await this.#reserve(file, offset, end, keepSize, caller.signal);
      if (keepSize || end <= file.size) return;
    } else if (punched) return;
    if (!keepSize && end > file.size && (await this.#calls.extend(file, end, caller.signal))) return;
    await this.#calls.allocated(caller, file.ino);
  }

  /** @returns whether anything of the range was there to become a hole */
  async #punch(file: FileData, start: number, end: number): Promise<boolean> {
    checkMayAllocate(file, true);
    const { size } = file;
    if (start >= size) return false;
    await this.#context.lane.urgently(punchRange(file, this.#chunks, start, Math.min(end, size)));
    return true;
  }

  /**
   * Keeps space for [start, end), as far as it takes none; in parts, where others want the file meanwhile. Interrupted or refused
   * midway, what was reserved stays so, as on ext4: it counts for the file, and goes with it or with its next cut.
   * @throws HoldfastError ENOSPC, EDQUOT, EINTR
   */
  async #reserve(
    file: FileData,
    start: number,
    end: number,
    keepSize: boolean,
    signal: Interrupt,
  ): Promise<void> {
    await interruptible(this.#context.lane.urgently(file.flush()), signal);
    await this.#refuseTooLarge(file, start, end, signal);
    for (let at = start; at < end; ) {
      const from = at;
      at = await this.#calls.whileSized(file, signal, (isWanted) =>
        this.#reservePart(file, from, end, keepSize, { signal, isWanted }),
      );
    }
  }

  /** @returns up to where space is kept now */
  async #reservePart(
    file: FileData,
    start: number,
    end: number,
    keepSize: boolean,
    ends: { signal: Interrupt; isWanted(): boolean },
  ): Promise<number> {
    const { quotas, lane, log } = this.#context;
    const behindEnd = end > file.size;
    // Told before: whoever cuts or deletes the file must know of it, whatever becomes of this mount.
    if (behindEnd && keepSize) await this.#tellReserving(file);
    const hold = quotas.book.active
      ? await holdToReserve(this.#context, this.#chunks, file, start, end - start, ends.signal)
      : undefined;
    try {
      return await lane.urgently(reserveRange(file, this.#chunks, start, end, { ...ends, hold }));
    } catch (error) {
      // Otherwise the file is about to reach there.
      if (behindEnd && !keepSize)
        await this.#tellReserving(file).catch((failure: unknown) =>
          log.warn({ ino: file.ino, err: failure }, 'space may be reserved behind the end of a file'),
        );
      throw error;
    }
  }

  async #tellReserving(file: FileData): Promise<void> {
    if (reservesBehindEnd(file)) return;
    file.applyAttr(await this.#context.setAttr(file.ino, { reserving: true }), true);
  }

  /** What does not fit is refused before anything is reserved, as far as that can be told. @throws HoldfastError ENOSPC */
  async #refuseTooLarge(file: FileData, start: number, end: number, signal: Interrupt): Promise<void> {
    const { quotas, meta } = this.#context;
    const { allocated, size } = file.view();
    const reach = reservesBehindEnd(file) ? end : Math.min(end, size);
    const least = end - start - Math.min(allocated, Math.max(0, reach - start));
    // One chunk says by itself; where there are quotas, they say what is free.
    if (least <= file.chunkSize || quotas.book.active) return;
    const { blocks, available, blockSize } = await statfs(meta, ROOT_INO, signal);
    // Without any block nobody has told the leader yet.
    if (blocks > 0 && least > available * blockSize) throw new HoldfastError('ENOSPC');
  }

  /** Where data is, the servers know: what is dirty goes there first. */
  async lseek(caller: Caller, handle: number, offset: number, whence: number): Promise<number> {
    const { file } = this.#context.files.handle(handle);
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new HoldfastError('EINVAL');
    if (!file.clean) await interruptible(this.#context.lane.urgently(file.flush()), caller.signal);
    await this.#calls.learnEnd(file, caller.signal);
    if (offset < 0 || offset >= file.size) throw new HoldfastError('ENXIO');
    const seek = whence === SEEK_DATA ? seekData : seekHole;
    return seek(this.#chunks, file, offset, caller.signal);
  }
}
