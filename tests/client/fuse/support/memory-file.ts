/** Sparse contents of a file: pages that were never written, or were punched out, do not exist. */

export const PAGE_BYTES = 4096;

const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const FALLOC_ZERO_RANGE = 16;
/** The modes of fallocate(2) that are known here. */
export const FALLOC_SUPPORTED = FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE;

export class SparseData {
  private readonly pages = new Map<number, Buffer>();
  size = 0;

  get allocatedBytes(): number {
    return this.pages.size * PAGE_BYTES;
  }

  read(offset: number, length: number): Buffer {
    const end = Math.min(offset + length, this.size);
    if (offset >= end) return Buffer.alloc(0);
    const out = Buffer.alloc(end - offset);
    for (let at = offset; at < end; ) {
      const stop = Math.min(end, pageEnd(at));
      const page = this.pages.get(pageOf(at));
      page?.copy(out, at - offset, at % PAGE_BYTES, (at % PAGE_BYTES) + stop - at);
      at = stop;
    }
    return out;
  }

  write(offset: number, data: Buffer): void {
    for (let done = 0; done < data.length; ) {
      const at = offset + done;
      const stop = Math.min(offset + data.length, pageEnd(at));
      data.copy(this.ensure(pageOf(at)), at % PAGE_BYTES, done, done + stop - at);
      done += stop - at;
    }
    this.size = Math.max(this.size, offset + data.length);
  }

  truncate(size: number): void {
    if (size < this.size) {
      for (const index of this.pages.keys()) if (index * PAGE_BYTES >= size) this.pages.delete(index);
      this.pages.get(pageOf(size))?.fill(0, size % PAGE_BYTES);
    }
    this.size = size;
  }

  /** fallocate(2), with modes of FALLOC_SUPPORTED. */
  fallocate(mode: number, offset: number, length: number): void {
    if (mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE)) this.punch(offset, length);
    if (!(mode & FALLOC_PUNCH_HOLE)) this.allocate(offset, length);
    if (!(mode & FALLOC_KEEP_SIZE)) this.size = Math.max(this.size, offset + length);
  }

  /** Makes pages exist, with zeros where nothing was. */
  private allocate(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at = pageEnd(at)) this.ensure(pageOf(at));
  }

  /** Zeros, and holes where whole pages are covered. */
  private punch(offset: number, length: number): void {
    const end = offset + length;
    for (let at = offset; at < end; at = pageEnd(at)) {
      const stop = Math.min(end, pageEnd(at));
      if (stop - at === PAGE_BYTES) this.pages.delete(pageOf(at));
      else this.pages.get(pageOf(at))?.fill(0, at % PAGE_BYTES, (at % PAGE_BYTES) + stop - at);
    }
  }

  /** The next offset at or behind `offset` that lies in data, or in a hole; undefined when there is none. */
  seek(offset: number, data: boolean): number | undefined {
    if (offset >= this.size) return undefined;
    for (let at = offset; at < this.size; at = pageEnd(at))
      if (this.pages.has(pageOf(at)) === data) return at;
    return data ? undefined : this.size;
  }

  private ensure(index: number): Buffer {
    let page = this.pages.get(index);
    if (!page) {
      page = Buffer.alloc(PAGE_BYTES);
      this.pages.set(index, page);
    }
    return page;
  }
}

function pageOf(offset: number): number {
  return Math.floor(offset / PAGE_BYTES);
}

function pageEnd(offset: number): number {
  return (pageOf(offset) + 1) * PAGE_BYTES;
}
