import type { FileLayout } from './api.js';
import type { DataDeps } from './data-deps.js';

/** While it holds nobody else has the file open, and whoever had it can write to it no more. */
export interface Tenure {
  holds(): boolean;
}

/**
 * Bytes behind the end of a file that nobody speaks of: a mount that dies has sent them perhaps without having said how far
 * the file reaches. Where the file grows over them they must read as zeros (POSIX: ftruncate, lseek), so whoever leaves a
 * gap discards them before the file is said to reach further.
 */
export class FileTail {
  readonly #file: FileLayout & { readonly size: number };
  readonly #deps: Pick<DataDeps, 'chunks' | 'blocks'>;
  #clear: { to: number; tenure: Tenure } | undefined;

  /** @param file its size is its end as everybody sees it, or will */
  constructor(file: FileLayout & { readonly size: number }, deps: Pick<DataDeps, 'chunks' | 'blocks'>) {
    this.#file = file;
    this.#deps = deps;
  }

  /** Behind the end of the file there is nothing but what is written here from now on, while `tenure` holds. */
  setClear(tenure: Tenure, to = Number.POSITIVE_INFINITY): void {
    this.#clear = { to, tenure };
  }

  /** What was written here may lie behind the end as well: its write or its commit has failed. */
  forget(): void {
    this.#clear = undefined;
  }

  /** Whether there is nothing of others between the end of the file and `end`. */
  isClear(end: number): boolean {
    if (end <= this.#file.size) return true;
    return this.#clear !== undefined && end <= this.#clear.to && this.#clear.tenure.holds();
  }

  /**
   * Discards what lies between the end of the file and `end`, and in the rest of that chunk: the next gap mostly begins in
   * it. The caller sees to it that nothing is written there meanwhile. It stops when `tenure` ends, for somebody else may
   * write there then; what is on its way by then has landed when this resolves.
   * @throws HoldfastError EIO, ETIMEDOUT
   */
  async discard(end: number, tenure: Tenure): Promise<void> {
    if (this.isClear(end)) return;
    const { blocks } = this.#deps;
    const file = this.#file;
    const until = Math.ceil(end / file.chunkSize) * file.chunkSize;
    try {
      await this.#discard(file.size, until, tenure);
    } catch (error) {
      if (tenure.holds()) throw error;
    }
    blocks.drop(file.ino); // a block that was read at the end may reach behind it
    this.setClear(tenure, until);
  }

  /** @param until a border of chunks */
  async #discard(from: number, until: number, tenure: Tenure): Promise<void> {
    const { chunks } = this.#deps;
    const file = this.#file;
    const last = until / file.chunkSize - 1;
    for (let at = from; at < until; ) {
      const first = Math.floor(at / file.chunkSize);
      const chunk = first === last ? last : await chunks.nextChunk(file, first, last);
      if (chunk === undefined) return;
      const base = chunk * file.chunkSize;
      for (const range of await chunks.ranges(file, chunk)) {
        const start = Math.max(at, base + range.start);
        const length = base + range.end - start;
        if (length <= 0) continue;
        // Asked when it is sent, for then the request gets its session.
        if (!tenure.holds()) return;
        // To all disks, for no sync will ask for it later.
        await chunks.punch(file, chunk, start - base, length, true);
      }
      at = base + file.chunkSize;
    }
  }
}
