import { HoldfastError } from '../../../proto/errors.js';

/** fuse-native keeps file handles as 32-bit integers, and takes 0 for none. */
const MAX_HANDLE = 0x7fff_ffff;

/** An open file of the file system. */
export interface OpenFile {
  ino: number;
  handle: number;
  /** Flags of open(2). */
  flags: number;
}

/** Open files by a number that fits into 31 bits. */
export class HandleTable {
  private readonly open = new Map<number, OpenFile>();
  private next = 1;

  add(file: OpenFile): number {
    while (this.open.has(this.next)) this.next = this.next === MAX_HANDLE ? 1 : this.next + 1;
    this.open.set(this.next, file);
    return this.next;
  }

  /** @throws HoldfastError EBADF */
  get(number: number): OpenFile {
    const file = this.open.get(number);
    if (!file) throw new HoldfastError('EBADF');
    return file;
  }

  remove(number: number): void {
    this.open.delete(number);
  }

  /** Takes out all that are still open. */
  drain(): OpenFile[] {
    const files = [...this.open.values()];
    this.open.clear();
    return files;
  }
}
