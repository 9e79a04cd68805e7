import { HoldfastError } from '../../proto/errors.js';
import { FILE_SIZE_MAX_BYTES } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import type { FileData } from '../data/file-data.js';
import { punchRange } from '../data/punch.js';
import type { Caller } from '../fuse/binding.js';
import { interruptible } from '../wait.js';
import type { VfsContext } from './context.js';
import type { FileCalls } from './file-calls.js';
import type { OpenFile } from './file-table.js';
import { checkMayAllocate } from './guarded-files.js';
import { seekData, seekHole } from './holes.js';
import type { LockCalls } from './lock-calls.js';

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
    const end = offset + length;
    if (this.#context.readOnly) throw new HoldfastError('EROFS');
    if (kind !== 0) {
      const punch = () => this.#punch(file, offset, end);
      const punched = await this.#calls.whileSized(file, caller.signal, punch);
      if (punched === 'all' || (punched === 'to the end' && keepSize)) return;
    } else {
      await this.#calls.learnAsWriter(file, caller.signal);
      checkMayAllocate(file, false);
    }
    if (!keepSize && end > file.size && (await this.#calls.extend(file, end, caller.signal))) return;
    await this.#calls.allocated(caller, file.ino);
  }

  /** @returns how much of the range was there to become a hole */
  async #punch(file: FileData, start: number, end: number): Promise<'nothing' | 'to the end' | 'all'> {
    checkMayAllocate(file, true);
    const { size } = file;
    if (start >= size) return 'nothing';
    await this.#context.lane.urgently(punchRange(file, this.#chunks, start, Math.min(end, size)));
    return end <= size ? 'all' : 'to the end';
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
