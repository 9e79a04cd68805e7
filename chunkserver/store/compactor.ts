import { type Clock, delay } from '../../common/clock.js';
import { diskErrorCode } from '../../common/disk.js';
import type { Logger } from '../../common/logger.js';
import { type RecordSummary, SegmentLog } from '../../common/segment-log.js';
import { HoldfastError } from '../../proto/errors.js';
import type { ChunkIndex } from './chunk-index.js';
import type { ChunkKey } from './chunk-store.js';
import type { ExtentData, ExtentReader } from './extent-reader.js';
import { type Extent, findExtent, isReserved, sameExtent } from './extents.js';
import { INO_MAX } from './index-db.js';
import { decodeMeta, META_BYTES, RecordType } from './records.js';
import { withoutReserved } from './reserved.js';
import type { SpaceMeter } from './space.js';

/** A segment is rewritten when moving what is live takes less than this part of it; under pressure already below the second. */
const COMPACT_BELOW_LIVE = 0.5;
const COMPACT_BELOW_LIVE_PRESSED = 0.9;
/** Pieces of one move; neighbouring extents become one. */
const MAX_MOVE_BYTES = 1024 * 1024;
/** Moved and not yet synced: whoever syncs what he wrote himself waits for no more than this, and one move, of what was moved. */
export const MOVED_UNSYNCED_BYTES_MAX = 1024 * 1024;
/** A chunk in more pieces than this is put together in the background, pieces of at least SMALL_BYTES left alone. */
export const DEFRAGMENT_EXTENTS = 1024;
const SMALL_BYTES = 64 * 1024;
/**
 * Holes below it, reserved ones too, are filled with zeros, which no read can tell, where somebody waits for a chunk in too many pieces: scattered
 * writes leave pieces that have no neighbours. A chunk of 4 MiB has at most 4096 pieces afterwards.
 */
const FILLED_HOLE_BYTES = 1024;
/** Records whose payload holds bytes of a chunk. */
const WITH_DATA: ReadonlySet<number> = new Set([
  RecordType.WRITE,
  RecordType.WRITE_EXTENTS,
  RecordType.INSTALL,
  RecordType.MOVE,
]);
/** Rests are not shorter: a timer takes a millisecond, in which many a small record could be moved. */
const REST_MIN_MS = 5;
const MAX_DEFRAGMENT_QUEUE = 1024;

export interface CompactorEnv {
  log: SegmentLog;
  index: ChunkIndex;
  reader: ExtentReader;
  space: SpaceMeter;
  clock: Clock;
  logger: Logger;
  bytesPerSecond: number;
  /** Logs and applies the same bytes at a new place. */
  move(pg: number, key: ChunkKey, offset: number, data: Buffer): void;
}

/** Rewrites the live bytes of mostly dead segments, and chunks that lie in very many pieces. */
export class Compactor {
  /** Segments that gave nothing when last tried; tried again when no other one is left. */
  private readonly skipped = new Set<number>();
  private readonly reported = new Set<number>();
  private readonly fragmented = new Map<string, { pg: number; key: ChunkKey }>();
  /** Chunks for which somebody waits, by name. */
  private readonly urgent = new Map<string, Promise<void>>();
  private unsyncedBytes = 0;
  /** Milliseconds by which what was moved is ahead of the rate. */
  private aheadMs = 0;
  private stopped = false;

  constructor(private readonly env: CompactorEnv) {}

  /** Ends a pass at the next move. */
  stop(): void {
    this.stopped = true;
  }

  /** Notes a chunk in many pieces; beyond the queue's bound it waits for its next write. */
  noteFragmented(pg: number, key: ChunkKey): void {
    if (this.fragmented.size < MAX_DEFRAGMENT_QUEUE) this.fragmented.set(nameOf(pg, key), { pg, key });
  }

  /** Puts one chunk together for somebody who waits: at once, beside the pass and without a rate. Once at a time for a chunk. */
  putTogether(pg: number, key: ChunkKey): Promise<void> {
    const name = nameOf(pg, key);
    let running = this.urgent.get(name);
    if (!running) {
      this.fragmented.delete(name);
      running = this.defragment(pg, key, true).finally(() => this.urgent.delete(name));
      this.urgent.set(name, running);
    }
    return running;
  }

  /** Resolves when nobody waits for a chunk any more. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.urgent.values());
  }

  /** Whether a segment is worth rewriting. */
  hasCandidate(checkpointed: number): boolean {
    return this.candidate(checkpointed) !== undefined;
  }

  /**
   * Puts together what was noted, then rewrites the segment that has the least live data, if it has little. While space is
   * short the segment comes first: operations wait for it.
   * @param mayRewrite asked before a segment and between its moves; what was moved when it ends stays moved
   * @returns bytes moved out of a segment
   */
  async pass(checkpointed: number, mayRewrite: () => boolean): Promise<number> {
    for (const [name, { pg, key }] of this.fragmented) {
      if (this.stopped || this.env.space.pressed) break;
      this.fragmented.delete(name);
      await this.defragment(pg, key, false);
    }
    if (this.stopped || !this.env.space.canCompact || !mayRewrite()) return 0;
    const segment = this.candidate(checkpointed);
    if (segment === undefined) {
      this.skipped.clear();
      return 0;
    }
    const { moved, whole } = await this.rewrite(segment, mayRewrite);
    if (moved === 0 && whole) this.skipped.add(segment);
    return moved;
  }

  /** The sealed segment with the least to move for its size, when that is little enough. */
  private candidate(checkpointed: number): number | undefined {
    const { log, index, space } = this.env;
    let best: number | undefined;
    let lowest = space.pressed ? COMPACT_BELOW_LIVE_PRESSED : COMPACT_BELOW_LIVE;
    for (const segment of log.segments) {
      if (segment >= checkpointed || segment >= log.end.segment || this.skipped.has(segment)) continue;
      const moved = index.movedBytes(segment) / Math.max(1, log.sizeOf(segment));
      if (moved > 0 && moved < lowest) {
        lowest = moved;
        best = segment;
      }
    }
    return best;
  }

  /** Moves all live bytes out of the segment, unless it is told to end before. */
  private async rewrite(
    segment: number,
    mayRewrite: () => boolean,
  ): Promise<{ moved: number; whole: boolean }> {
    const { log, reader, logger } = this.env;
    let moved = 0;
    let whole = true;
    reader.pin(segment);
    try {
      for await (const record of log.records(segment, META_BYTES)) {
        whole = !this.stopped && mayRewrite();
        if (!whole) break;
        moved += await this.moveRecord(record);
      }
      logger.debug({ segment, moved, whole }, 'segment compacted');
    } catch (error) {
      // Its headers cannot be read. What is live in it stays, and is repaired when it is read.
      if (diskErrorCode(error) !== 'EIO') throw error;
      logger.error({ segment, err: error }, 'damaged segment');
    } finally {
      reader.unpin(segment);
    }
    return { moved, whole };
  }

  private async moveRecord(record: RecordSummary): Promise<number> {
    const { type, position, head, length } = record;
    if (!WITH_DATA.has(type) || head.length < META_BYTES) return 0;
    const { pg, ino, chunk } = decodeMeta(head);
    // Nothing has verified the record: the index may hold nothing of what it names, but must be asked for a name.
    if (!(Number.isInteger(ino) && ino >= 0 && ino <= INO_MAX)) return 0;
    const from = SegmentLog.payloadOffset(position);
    const live = this.env.index
      .get(pg, ino, chunk)
      ?.extents.filter(
        (extent) =>
          extent.segment === position.segment && extent.place >= from && extent.place < from + length,
      );
    let moved = 0;
    for (const group of groupNeighbours(live ?? [])) {
      moved += await this.moveSound(pg, { ino, chunk }, group);
    }
    return moved;
  }

  private async defragment(pg: number, key: ChunkKey, urgent: boolean): Promise<void> {
    const extents = this.env.index.get(pg, key.ino, key.chunk)?.extents ?? [];
    const small = extents.filter((extent) => extent.end - extent.start < SMALL_BYTES && !isReserved(extent));
    for (const group of groupNeighbours(small, urgent ? FILLED_HOLE_BYTES : 0)) {
      if (this.stopped || !this.env.space.canCompact) return;
      if (group.length > 1) await this.moveSound(pg, key, group, urgent);
    }
  }

  /** Damaged data is left where it is: replication repairs it, and then the segment goes. */
  private async moveSound(pg: number, key: ChunkKey, group: Extent[], urgent = false): Promise<number> {
    try {
      return await this.moveGroup(pg, key, group, urgent);
    } catch (error) {
      if (!(error instanceof HoldfastError && error.errorName === 'CORRUPT')) throw error;
      const { segment } = group[0] as Extent;
      if (!this.reported.has(segment)) this.env.logger.error({ segment, err: error.message }, 'damaged data');
      this.reported.add(segment);
      return 0;
    }
  }

  /** Rewrites extents as one, with zeros between them, unless the chunk has changed there meanwhile. */
  private async moveGroup(pg: number, key: ChunkKey, group: Extent[], urgent: boolean): Promise<number> {
    const { index, reader, space } = this.env;
    const start = (group[0] as Extent).start;
    const end = (group.at(-1) as Extent).end;
    const pieces = await reader.read(pg, key, group, start, end);
    const now = withoutReserved(index.get(pg, key.ino, key.chunk)?.extents ?? []);
    const first = findExtent(now, start);
    // One after the other: nothing was written between them either.
    const unchanged = group.every((extent, i) => {
      const same = now[first + i];
      return same !== undefined && sameExtent(same, extent);
    });
    if (!unchanged || !space.canCompact) return 0;
    const data = pieces.length === 1 ? (pieces[0]?.data as Buffer) : joined(pieces, start, end);
    this.env.move(pg, key, start, data);
    await this.moved(data.length, urgent);
    return data.length;
  }

  /** What must be before the next move. */
  private async moved(bytes: number, urgent: boolean): Promise<void> {
    const { log, clock, space, bytesPerSecond } = this.env;
    this.unsyncedBytes += bytes;
    if (this.unsyncedBytes >= MOVED_UNSYNCED_BYTES_MAX) {
      this.unsyncedBytes = 0;
      await log.sync();
    } else await log.written();
    if (space.pressed || urgent) return;
    this.aheadMs += (SegmentLog.recordBytes(META_BYTES + bytes) / bytesPerSecond) * 1000;
    if (this.aheadMs < REST_MIN_MS) return;
    const rest = this.aheadMs;
    this.aheadMs = 0;
    await delay(clock, rest);
  }
}

function nameOf(pg: number, { ino, chunk }: ChunkKey): string {
  return `${pg}/${ino}/${chunk}`;
}

/** The bytes of [start, end), holes as zeros. */
function joined(pieces: readonly ExtentData[], start: number, end: number): Buffer {
  const data = Buffer.alloc(end - start);
  for (const piece of pieces) piece.data.copy(data, piece.start - start);
  return data;
}

/** Splits ascending extents into runs, of at most MAX_MOVE_BYTES unless one alone is larger. @param hole bytes between two, at most */
function groupNeighbours(extents: readonly Extent[], hole = 0): Extent[][] {
  const groups: Extent[][] = [];
  for (const extent of extents) {
    const group = groups.at(-1);
    const joins =
      group &&
      extent.start - (group.at(-1) as Extent).end <= hole &&
      extent.end - (group[0] as Extent).start <= MAX_MOVE_BYTES;
    if (joins) group.push(extent);
    else groups.push([extent]);
  }
  return groups;
}
