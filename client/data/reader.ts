import { type Interrupt, interruptible } from '../wait.js';
import type { ChunkApi, FileLayout } from './api.js';
import type { Block, BlockCache } from './block-cache.js';
import { type Piece, sliceParts } from './extent.js';
import type { FileData } from './file-data.js';
import { type DataLimits, READ_BLOCK_BYTES_MAX, unitWithin } from './limits.js';

/** A reader that is this near to where it left off goes on sequentially: the kernel sends several requests at a time. */
const SEQUENTIAL_SLACK_BYTES = 512 * 1024;
/** Read ahead by this much of what was read sequentially already. */
const READ_AHEAD_FACTOR = 4;
/** A read up to this size tells nothing of its neighbours. */
const SMALL_READ_BYTES_MAX = 64 * 1024;
/**
 * So many small reads within one block cost about as much processor time as the whole block: with the next one it is fetched
 * whole, beside it. However a program goes on, reading costs at most about twice what it would have cost at best.
 */
export const DENSE_READS_MIN = 8;
/** Such blocks on their way at a time; reads beyond them are small ones as before. */
export const DENSE_FETCHES_MAX = 8;
/** Blocks of one file whose small reads are counted; the one begun longest ago is forgotten. */
const COUNTED_BLOCKS_MAX = 4096;
/** A file that is cut again and again while it is read is answered as it was found last. */
export const READ_ATTEMPTS_MAX = 4;
/** An answer with more buffers than this is copied into one: writev(2) takes 1024. */
const ANSWER_PARTS_MAX = 256;

const ZEROS = Buffer.alloc(1024 * 1024);

/** What is remembered of one open file description's reads. */
export interface ReadStream {
  /** Behind the last sequential read. */
  expected: number;
  /** How far to read ahead of it, bytes; 0: not at all. */
  window: number;
  /** Bytes read sequentially so far. */
  run: number;
}

export function newReadStream(): ReadStream {
  return { expected: 0, window: 0, run: 0 };
}

/** Bytes that the servers gave for [start, end); `data` may be shorter: a hole. */
interface Base {
  start: number;
  end: number;
  data: Buffer;
}

function readBlockBytes(chunkSize: number): number {
  return unitWithin(chunkSize, READ_BLOCK_BYTES_MAX);
}

/** Reads files: dirty bytes over cached blocks over what the servers hold. */
export class FileReader {
  readonly #chunks: ChunkApi;
  readonly #blocks: BlockCache;
  readonly #limits: DataLimits;
  readonly #mayCache: (ino: number) => boolean;
  readonly #offer: ((file: FileData, offset: number, data: Buffer) => void) | undefined;
  /** Small reads at no order of leased files, by block. */
  readonly #smallReads = new WeakMap<FileData, Map<number, number>>();
  #denseFetches = 0;

  /**
   * @param mayCache whether a file's data is leased: otherwise each read goes to the servers
   * @param offer takes blocks in which many small reads are to be expected, as long as they are believed
   */
  constructor(
    chunks: ChunkApi,
    blocks: BlockCache,
    limits: DataLimits,
    mayCache: (ino: number) => boolean,
    offer?: (file: FileData, offset: number, data: Buffer) => void,
  ) {
    this.#offer = offer;
    this.#mayCache = mayCache;
    this.#chunks = chunks;
    this.#blocks = blocks;
    this.#limits = limits;
  }

  /**
   * @param attempt how often it was tried, this time included
   * @returns the bytes of [offset, offset + size), fewer only at the end of the file, in one or more buffers
   * @throws HoldfastError EIO; EINTR when `signal` aborts
   */
  async read(
    file: FileData,
    stream: ReadStream,
    offset: number,
    size: number,
    signal?: Interrupt,
    attempt = 1,
  ): Promise<Buffer[]> {
    if (file.alone.running) await interruptible(file.alone.running, signal);
    const { begun } = file.alone;
    const end = Math.min(offset + size, file.size);
    if (end <= offset) return [];
    // Taken before anything is asked of a server: what lands meanwhile is in one of the two.
    const dirty = file.buffer.snapshot(offset, end);
    const gap = gapOf(dirty, offset, end);
    if (this.#mayCache(file.ino)) this.#advance(stream, offset, end);
    else {
      stream.window = 0;
      this.#blocks.drop(file.ino);
    }
    const fetchEnd = Math.min(gap.end, file.serverEnd);
    // What was written here a while ago is still at hand: cp, git and compilers read what was just made.
    const kept = fetchEnd > gap.start ? file.kept(gap.start, fetchEnd) : undefined;
    if (kept) return compose(offset, end, dirty, basesOf(kept, gap.start));
    const fetched = fetchEnd > gap.start ? this.#fetch(file, stream, gap.start, fetchEnd, signal) : [];
    if (stream.window > 0) this.#readAhead(file, stream, end);
    // The common small read lies in one place.
    const bases = fetched.length === 1 ? [await (fetched[0] as Promise<Base>)] : await Promise.all(fetched);
    // What was cut off meanwhile is no hole.
    if (file.alone.begun === begun || attempt >= READ_ATTEMPTS_MAX) return compose(offset, end, dirty, bases);
    return this.read(file, stream, offset, size, signal, attempt + 1);
  }

  /**
   * What the servers hold of [offset, end), and nothing that is only on its way from here: so much others see.
   * @param end the size that the servers have told, at most
   * @returns also the newest truncate that they have carried out: if it is newer than `file`, so may the size be
   */
  async readCommitted(
    { ino, chunkSize, truncateSeq, truncates }: FileLayout,
    offset: number,
    end: number,
    signal?: Interrupt,
  ): Promise<{ parts: Buffer[]; truncateSeq: number }> {
    this.#blocks.drop(ino);
    let newest = truncateSeq;
    const sawTruncate = (seq: number): void => {
      newest = Math.max(newest, seq);
    };
    const layout = { ino, chunkSize, truncateSeq, truncates, sawTruncate };
    const unit = readBlockBytes(chunkSize);
    const fetched: Promise<Base>[] = [];
    for (let at = offset; at < end; ) {
      const until = Math.min(end, (Math.floor(at / unit) + 1) * unit);
      fetched.push(this.#fetchRange(layout, at, until, signal));
      at = until;
    }
    return { parts: compose(offset, end, [], await Promise.all(fetched)), truncateSeq: newest };
  }

  #advance(stream: ReadStream, offset: number, end: number): void {
    if (Math.abs(offset - stream.expected) > SEQUENTIAL_SLACK_BYTES) {
      stream.expected = end;
      stream.run = 0;
      stream.window = 0;
      return;
    }
    const first = stream.run === 0;
    stream.run += end - offset;
    stream.expected = Math.max(stream.expected, end);
    if (first || stream.run < this.#limits.readAheadRunBytesMin) return;
    stream.window = Math.min(this.#limits.readAheadBytesMax, READ_AHEAD_FACTOR * stream.run);
  }

  /** Sequential readers take whole blocks through the cache, others just their bytes. */
  #fetch(
    file: FileData,
    stream: ReadStream,
    start: number,
    end: number,
    signal: Interrupt | undefined,
  ): Promise<Base>[] {
    const unit = readBlockBytes(file.chunkSize);
    const waits: Promise<Base>[] = [];
    for (let at = start; at < end; ) {
      const index = Math.floor(at / unit);
      const until = Math.min(end, (index + 1) * unit);
      // Most of a block is fetched as it is: keeping the little rest would not pay.
      const known = this.#blocks.get(file.ino, index);
      const sequential =
        stream.window > 0 && (until - at) * 2 < Math.min(unit, file.serverEnd - index * unit);
      if (!known && !sequential && this.#isDense(file, index, until - at))
        this.#fetchDense(file, index, unit);
      const block = known ?? (sequential ? this.#fetchBlock(file, index, unit) : undefined);
      // A block is for all its readers: one that is interrupted leaves it to the others.
      if (block) {
        waits.push(interruptible(fromBlock(block.data, at, until, index * unit), signal));
        // A sequential reader that finds no block had the begin of it without one.
        const given = until - (sequential && !known ? index * unit : at);
        this.#blocks.gave(file.ino, index, given, Math.min(unit, file.serverEnd - index * unit));
      } else waits.push(this.#fetchRange(file, at, until, signal));
      at = until;
    }
    return waits;
  }

  /** Counts a small read of a block; true when there were so many that the whole of it is cheaper. */
  #isDense(file: FileData, index: number, bytes: number): boolean {
    if (bytes > SMALL_READ_BYTES_MAX || !this.#mayCache(file.ino)) return false;
    let counts = this.#smallReads.get(file);
    if (!counts) {
      counts = new Map();
      this.#smallReads.set(file, counts);
    }
    const count = (counts.get(index) ?? 0) + 1;
    if (count > DENSE_READS_MIN && this.#denseFetches < DENSE_FETCHES_MAX) {
      counts.delete(index);
      return true;
    }
    counts.set(index, count);
    if (counts.size > COUNTED_BLOCKS_MAX) counts.delete(counts.keys().next().value as number);
    return false;
  }

  /** Fetches a block for the reads that are to be expected of it; the one that makes it dense does not wait for it. */
  #fetchDense(file: FileData, index: number, unit: number): void {
    const block = this.#fetchBlock(file, index, unit);
    if (!block) return;
    this.#denseFetches++;
    const fetched = (data?: Buffer): void => {
      this.#denseFetches--;
      if (data && this.#blocks.get(file.ino, index) === block) this.#offer?.(file, index * unit, data);
    };
    // A failure is told to those who wait for the block.
    block.data.then(fetched, () => fetched());
  }

  async #fetchRange(file: FileLayout, start: number, end: number, signal?: Interrupt): Promise<Base> {
    const chunk = Math.floor(start / file.chunkSize);
    const data = await this.#chunks.read(file, chunk, start - chunk * file.chunkSize, end - start, signal);
    return { start, end, data };
  }

  #fetchBlock(file: FileData, index: number, unit: number): Block | undefined {
    const start = index * unit;
    const chunk = Math.floor(start / file.chunkSize);
    const offset = start - chunk * file.chunkSize;
    return this.#blocks.fetch(file.ino, index, unit, () => this.#chunks.read(file, chunk, offset, unit));
  }

  /**
   * Asks for the blocks that the window covers and that are not there yet. Those before its begin were asked for, and may be
   * read and forgotten by now, for the kernel's requests overtake one another.
   */
  #readAhead(file: FileData, stream: ReadStream, end: number): void {
    const unit = readBlockBytes(file.chunkSize);
    const until = Math.min(stream.expected + stream.window, file.serverEnd);
    if (until <= stream.expected) return;
    // Half of the cache at most, so that several readers do not throw out one another's blocks.
    const last = Math.min(
      Math.ceil(until / unit),
      Math.floor(end / unit) + this.#limits.blockCacheBytesMax / 2 / unit,
    );
    for (let index = Math.floor(stream.expected / unit); index < last; index++) {
      if (!this.#blocks.has(file.ino, index)) this.#fetchBlock(file, index, unit);
    }
  }
}

function basesOf(parts: readonly Buffer[], start: number): Base[] {
  let end = start;
  return parts.map((data) => {
    const from = end;
    end += data.length;
    return { start: from, end, data };
  });
}

async function fromBlock(
  data: Promise<Buffer>,
  start: number,
  end: number,
  blockStart: number,
): Promise<Base> {
  const block = await data;
  return { start, end, data: block.subarray(start - blockStart, end - blockStart) };
}

/** The range that the pieces leave open: from its first missing byte to its last; empty when nothing is missing. */
function gapOf(pieces: readonly Piece[], start: number, end: number): { start: number; end: number } {
  let from = start;
  let to = end;
  for (const piece of pieces) {
    if (piece.start > from) break;
    from = piece.end;
  }
  if (from >= end) return { start: end, end };
  for (let at = pieces.length - 1; at >= 0; at--) {
    const piece = pieces[at] as Piece;
    if (piece.end < to) break;
    to = piece.start;
  }
  return { start: from, end: to };
}

/** Lays the pieces over the bases and zeros under both. Nothing is copied unless there are very many parts. */
function compose(start: number, end: number, pieces: readonly Piece[], bases: readonly Base[]): Buffer[] {
  const out: Buffer[] = [];
  let at = start;
  for (const piece of pieces) {
    if (piece.start > at) fill(at, piece.start, bases, out);
    out.push(...piece.parts);
    at = piece.end;
  }
  if (at < end) fill(at, end, bases, out);
  return out.length > ANSWER_PARTS_MAX ? [Buffer.concat(out)] : out;
}

function fill(start: number, end: number, bases: readonly Base[], out: Buffer[]): void {
  let at = start;
  for (const base of bases) {
    if (base.end <= at || base.start >= end) continue;
    if (base.start > at) zeros(base.start - at, out);
    at = Math.max(at, base.start);
    const until = Math.min(end, base.end);
    const stored = Math.min(until, base.start + base.data.length);
    if (stored > at) out.push(...sliceParts([base.data], at - base.start, stored - base.start));
    zeros(until - Math.max(at, stored), out);
    at = until;
  }
  zeros(end - at, out);
}

function zeros(bytes: number, out: Buffer[]): void {
  for (let left = bytes; left > 0; left -= ZEROS.length) {
    out.push(left >= ZEROS.length ? ZEROS : ZEROS.subarray(0, left));
  }
}
