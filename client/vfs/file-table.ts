import { assert } from '../../common/assert.js';
import { Counts } from '../../common/counts.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import type { Answer } from '../answer.js';
import type { DataDeps } from '../data/data-deps.js';
import { FileData } from '../data/file-data.js';
import { newReadStream, type ReadStream } from '../data/reader.js';
import type { ErrorMark } from '../data/write-errors.js';
import type { Atimes } from './atimes.js';

export const O_ACCMODE = 3;
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_DSYNC = 0o10000;
export const O_NOATIME = 0o1000000;
/** O_SYNC holds the bit of O_DSYNC and this one. */
export const O_SYNC_ONLY = 0o4000000;

/** An open file description. */
export interface OpenFile {
  readonly file: FileData;
  readonly flags: number;
  readonly writable: boolean;
  /** The kernel reads and writes through it without its page cache. */
  readonly direct: boolean;
  readonly errors: ErrorMark;
  readonly stream: ReadStream;
}

/** The open files of the mount: one FileData for each inode, any number of descriptions on it. */
export class FileTable {
  readonly #deps: DataDeps;
  readonly #files = new Map<number, { file: FileData; references: number }>();
  readonly #handles = new Map<number, OpenFile>();
  /** Descriptions open for writing, by inode. */
  readonly #writers = new Counts();
  /** Descriptions through which the kernel's pages are read, by inode. */
  readonly #cached = new Counts();
  #nextHandle = 1;

  /** @param atimes absent: reads set no access time */
  constructor(
    deps: DataDeps,
    readonly atimes?: Atimes,
  ) {
    this.#deps = deps;
  }

  get openHandles(): number {
    return this.#handles.size;
  }

  /** The contents of an inode that is open or not yet written back. */
  get(ino: number): FileData | undefined {
    return this.#files.get(ino)?.file;
  }

  /** Attributes from the server, with what was written here laid over them. */
  view(attr: Attr): Attr {
    const file = this.get(attr.ino);
    file?.applyAttr(attr, false);
    const seen = file ? file.view() : attr;
    this.#deps.clock.seen(seen.mtime, seen.ctime);
    return this.atimes?.view(seen) ?? seen;
  }

  /** Attributes from the server, and no more: of a file that is not leased others see nothing else. */
  told(attr: Attr): Attr {
    this.get(attr.ino)?.applyAttr(attr, false);
    return this.atimes?.view(attr) ?? attr;
  }

  /** All that are open or not yet written back. */
  *all(): Generator<FileData> {
    for (const { file } of this.#files.values()) yield file;
  }

  /** Blocks of a file that were read ahead are not good any more. */
  dropBlocks(ino: number): void {
    this.#deps.blocks.drop(ino);
  }

  /** Others may write to the file from now on: what is kept of it must not be written again. */
  shared(ino: number): void {
    this.#deps.unsynced.shared(ino);
  }

  /**
   * Takes a file that nobody uses into use, to write again what the servers lost of it.
   * @param attr as it is now; undefined: not known
   * @returns ends that use; undefined: others may have written to it, or it is gone
   */
  revive(attr: Attr | undefined): (() => void) | undefined {
    if (!attr || attr.nlink === 0 || !this.#deps.owns(attr.ino)) return undefined;
    const file = this.acquire(attr, false);
    return () => {
      void (async () => this.release(file))().catch((error: unknown) =>
        this.#deps.log.error({ ino: file.ino, err: error }, 'what the servers lost was not written again'),
      );
    };
  }

  /** @param isNew made here just now */
  acquire(attr: Attr, isNew: boolean): FileData {
    const entry = this.#files.get(attr.ino);
    if (entry) {
      entry.references++;
      entry.file.applyAttr(attr, false);
      return entry.file;
    }
    const file = new FileData(attr, isNew, this.#deps);
    this.#files.set(attr.ino, { file, references: 1 });
    return file;
  }

  /** Whether nothing but what was acquired once uses the file: no other description of it is open, or being opened. */
  isSole(ino: number): boolean {
    return this.#files.get(ino)?.references === 1;
  }

  /** Writes back what is left, at the last reference, and forgets the file. */
  release(file: FileData): Answer<void> {
    const entry = this.#files.get(file.ino);
    assert(entry?.file === file && entry.references > 0, 'a released file was acquired');
    // Pages of a mapping may come after the last close(2).
    // Asked again after the wait: more may have been written, through a description that was released meanwhile.
    if (entry.references === 1 && !file.clean) return file.flush().then(() => this.release(file));
    entry.references--;
    if (entry.references > 0) return;
    this.#files.delete(file.ino);
    this.#deps.unsynced.closed(file.ino, (ino) => this.#files.has(ino));
    this.#deps.blocks.drop(file.ino);
  }

  /** @param direct without the kernel's page cache @returns the handle's number */
  open(file: FileData, flags: number, direct = false): number {
    const handle = this.#nextHandle++;
    const writable = (flags & O_ACCMODE) !== O_RDONLY;
    if (writable) this.#writers.up(file.ino);
    if (!direct) this.#cached.up(file.ino);
    const errors = file.newMark();
    this.#handles.set(handle, { file, flags, writable, direct, errors, stream: newReadStream() });
    return handle;
  }

  /** @throws HoldfastError EBADF */
  handle(handle: number): OpenFile {
    const open = this.#handles.get(handle);
    if (!open) throw new HoldfastError('EBADF', `handle ${handle}`);
    return open;
  }

  find(handle: number): OpenFile | undefined {
    return this.#handles.get(handle);
  }

  /** Whether a description is open that can write to the file. */
  hasWriter(ino: number): boolean {
    return this.#writers.has(ino);
  }

  /** Whether one is open through which the kernel's pages are read. */
  readsPages(ino: number): boolean {
    return this.#cached.has(ino);
  }

  /** Whether one is open that may write anywhere in the file, not at its end alone. */
  writesAnywhere(ino: number): boolean {
    for (const { file, writable, flags } of this.#handles.values())
      if (file.ino === ino && writable && (flags & O_APPEND) === 0) return true;
    return false;
  }

  close(handle: number): OpenFile {
    const open = this.handle(handle);
    this.#handles.delete(handle);
    if (open.writable) this.#writers.down(open.file.ino);
    if (!open.direct) this.#cached.down(open.file.ino);
    return open;
  }
}

/** @throws HoldfastError the write error that this description has not reported yet */
export function throwWriteError(open: OpenFile): void {
  const error = open.file.takeError(open.errors);
  if (error) throw error;
}
