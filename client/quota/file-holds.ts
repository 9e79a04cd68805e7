import { type Hold, mergeHold, type QuotaBook } from './quota-book.js';

/** What was taken for the writes of one file that are not committed yet, in their order. */
export class FileHolds {
  readonly #book: QuotaBook;
  #entries: { line: number; hold: Hold }[] = [];
  #line = 0;

  constructor(book: QuotaBook) {
    this.#book = book;
  }

  /** @param bytes what the write has added to what is dirty */
  add(hold: Hold, bytes: number): void {
    if (hold.parts.length === 0) return;
    this.#book.shrink(hold, bytes);
    const last = this.#entries.at(-1);
    if (last?.line === this.#line) mergeHold(last.hold, hold);
    else this.#entries.push({ line: this.#line, hold });
  }

  /** Draws a line behind the writes so far. */
  mark(): number {
    return this.#entries.length > 0 ? this.#line++ : this.#line - 1;
  }

  /** What was taken for the writes up to a line, for the commit that ends it. */
  take(line: number): Hold | undefined {
    let taken: Hold | undefined;
    while (this.#entries[0] && this.#entries[0].line <= line) {
      const { hold } = this.#entries.shift() as { hold: Hold };
      if (taken) mergeHold(taken, hold);
      else taken = hold;
    }
    return taken;
  }

  /** The session is over, and what was taken with it. */
  clear(): void {
    this.#entries = [];
  }
}
