import { Counts } from '../../common/counts.js';
import { LogFailedError, type SegmentLog } from '../../common/segment-log.js';
import { blockCeil, firstBadBlock, verifiedCrc } from '../../proto/block-crc.js';
import { HoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import type { ChunkKey } from './chunk-store.js';
import { type Extent, findExtent, isLost, isReserved, sliceExtent } from './extents.js';

/** Places in the log that lie closer together are read in one go. */
const COALESCE_GAP_BYTES = 16 * 1024;
const MAX_RUN_BYTES = 8 * 1024 * 1024;
const MAX_PARALLEL_READS = 16;

interface Run {
  segment: number;
  from: number;
  to: number;
  pieces: Extent[];
}

/** Verified data of one extent's live bytes. */
export interface ExtentData {
  start: number;
  end: number;
  data: Buffer;
  /** CRC-32C of `data`, when checking it has given that too. */
  crc: number | undefined;
}

/** Reads extents from the log and verifies the blocks that it touches. */
export class ExtentReader {
  private readonly pins = new Counts();

  constructor(private readonly log: SegmentLog) {}

  /** A segment that somebody reads must not be unlinked. */
  isPinned(segment: number): boolean {
    return this.pins.has(segment);
  }

  /** Keeps the segment from being unlinked until `unpin`. */
  pin(segment: number): void {
    this.pins.up(segment);
  }

  unpin(segment: number): void {
    this.pins.down(segment);
  }

  /**
   * The data of [start, end) as far as extents have it, in order; segments are pinned before the first await.
   * @throws HoldfastError CORRUPT naming the block
   */
  async read(
    pg: number,
    key: ChunkKey,
    extents: readonly Extent[],
    start: number,
    end: number,
  ): Promise<ExtentData[]> {
    const runs = planRuns(extents, start, end);
    const lost = runs.flatMap((run) => run.pieces).find(isLost);
    if (lost) {
      throw new HoldfastError(
        'CORRUPT',
        `pg ${pg} inode ${key.ino} chunk ${key.chunk}: the index has lost it`,
      );
    }
    for (const run of runs) this.pin(run.segment);
    try {
      if (runs.length === 1) return await this.readRun(pg, key, runs[0] as Run);
      const found: ExtentData[] = [];
      for (let i = 0; i < runs.length; i += MAX_PARALLEL_READS) {
        const group = runs.slice(i, i + MAX_PARALLEL_READS).map((run) => this.readRun(pg, key, run));
        for (const data of await Promise.all(group)) found.push(...data);
      }
      return found;
    } finally {
      for (const run of runs) this.unpin(run.segment);
    }
  }

  /** read() of all that can be read, block by block where something is damaged; the rest is `lost`, joined and in order. */
  async salvage(
    pg: number,
    key: ChunkKey,
    extents: readonly Extent[],
  ): Promise<{ found: ExtentData[]; lost: DataRange[] }> {
    const found: ExtentData[] = [];
    const lost: DataRange[] = [];
    for (const { segment } of extents) this.pin(segment);
    try {
      for (const extent of extents) {
        if (isReserved(extent)) continue;
        const readable = await this.readable(pg, key, extent, extent.start, extent.end);
        for (const range of readable ? [extent] : blocksOf(extent)) {
          const data = readable ?? (await this.readable(pg, key, extent, range.start, range.end));
          if (data) found.push(...data);
          else addRange(lost, range);
        }
      }
      return { found, lost };
    } finally {
      for (const { segment } of extents) this.unpin(segment);
    }
  }

  private async readable(
    pg: number,
    key: ChunkKey,
    extent: Extent,
    start: number,
    end: number,
  ): Promise<ExtentData[] | undefined> {
    try {
      return await this.read(pg, key, [extent], start, end);
    } catch (error) {
      if (error instanceof HoldfastError && error.errorName === 'CORRUPT') return undefined;
      throw error;
    }
  }

  /** read() in this turn; undefined: use read(), which also says what is wrong. For what lies in one place of the log. */
  readNow(extents: readonly Extent[], start: number, end: number): ExtentData[] | undefined {
    const runs = planRuns(extents, start, end);
    if (runs.length === 0) return [];
    const run = runs[0] as Run;
    if (runs.length > 1 || run.pieces.some(isLost)) return undefined;
    try {
      const bytes = this.log.readNow(run.segment, run.from, run.to - run.from);
      return bytes && this.verified(run, bytes, () => new HoldfastError('CORRUPT'));
    } catch {
      return undefined;
    }
  }

  /** A place that the disk cannot read is as lost as one with a wrong checksum. */
  private async bytesOf(pg: number, key: ChunkKey, run: Run): Promise<Buffer> {
    try {
      return await this.log.readAt(run.segment, run.from, run.to - run.from);
    } catch (error) {
      if (error instanceof LogFailedError) throw error;
      const cause = error instanceof Error ? error.message : String(error);
      throw new HoldfastError(
        'CORRUPT',
        `pg ${pg} inode ${key.ino} chunk ${key.chunk}: segment ${run.segment}: ${cause}`,
      );
    }
  }

  private async readRun(pg: number, key: ChunkKey, run: Run): Promise<ExtentData[]> {
    const bytes = await this.bytesOf(pg, key, run);
    const corrupt = (bad: number): HoldfastError =>
      new HoldfastError(
        'CORRUPT',
        `pg ${pg} inode ${key.ino} chunk ${key.chunk}: block at ${bad} (segment ${run.segment})`,
      );
    return this.verified(run, bytes, corrupt);
  }

  /** The pieces of a run out of its bytes. @throws what `corrupt` makes of the place of a bad block */
  private verified(run: Run, bytes: Buffer, corrupt: (bad: number) => HoldfastError): ExtentData[] {
    return run.pieces.map((piece) => {
      const at = piece.place - run.from;
      const blocks = bytes.subarray(at, at + piece.blockEnd - piece.blockStart);
      const crc = verifiedCrc(piece.blockStart, blocks, piece.crcs);
      if (crc === undefined) throw corrupt(firstBadBlock(piece.blockStart, blocks, piece.crcs, 0));
      const { start, end } = piece;
      if (start === piece.blockStart && end === piece.blockEnd) return { start, end, data: blocks, crc };
      const data = blocks.subarray(start - piece.blockStart, end - piece.blockStart);
      return { start, end, data, crc: undefined };
    });
  }
}

/** What has a checksum of its own each; all that is lost is one. */
function* blocksOf(extent: Extent): Generator<DataRange> {
  if (isLost(extent)) yield extent;
  else {
    for (let { start } = extent; start < extent.end; ) {
      const end = Math.min(extent.end, blockCeil(start + 1));
      yield { start, end };
      start = end;
    }
  }
}

function addRange(ranges: DataRange[], { start, end }: DataRange): void {
  const last = ranges.at(-1);
  if (last && last.end === start) last.end = end;
  else ranges.push({ start, end });
}

function planRuns(extents: readonly Extent[], start: number, end: number): Run[] {
  const runs: Run[] = [];
  for (let i = findExtent(extents, start); i < extents.length; i++) {
    const extent = extents[i] as Extent;
    if (extent.start >= end) break;
    if (isReserved(extent)) continue;
    const piece = sliceExtent(extent, Math.max(extent.start, start), Math.min(extent.end, end));
    const to = piece.place + piece.blockEnd - piece.blockStart;
    const run = runs.at(-1);
    if (
      run &&
      run.segment === piece.segment &&
      piece.place >= run.from &&
      piece.place <= run.to + COALESCE_GAP_BYTES &&
      to - run.from <= MAX_RUN_BYTES
    ) {
      run.to = Math.max(run.to, to);
      run.pieces.push(piece);
    } else {
      runs.push({ segment: piece.segment, from: piece.place, to, pieces: [piece] });
    }
  }
  return runs;
}
