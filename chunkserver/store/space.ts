import type { Clock } from '../../common/clock.js';
import type { Disk } from '../../common/disk.js';
import type { Usage } from './chunk-store.js';

/** Kept free of writes, in segments: room for compaction, deletes, the index and recovery's bookkeeping. */
const RESERVE_SEGMENTS = 4;
/**
 * Primaries may count on what is above it, the first while nothing can be reclaimed. Operations are taken below it, down to
 * HARD_RESERVE_SEGMENTS: space may have gone since a primary asked, and an operation that only some replicas take costs the
 * others their place.
 */
const ROOM_RESERVE_SEGMENTS = 3;
const ROOM_RESERVE_SEGMENTS_RECLAIMING = 2.5;
/** Below it nothing that takes space is admitted, compaction neither. */
const HARD_RESERVE_SEGMENTS = 2;
/** Dead bytes may take so much of what is free before they are reclaimed beside operations, at the compactor's rate. */
const WASTE_OF_FREE = 0.25;
/** The file system is asked again after so many appended bytes. */
const REFRESH_BYTES = 16 * 1024 * 1024;
/** .. and after so long, for others may write to it too. */
const REFRESH_MS = 300;

/** Whether a write may go on: at once, held up until space was reclaimed, or not at all. */
export type Admission = 'free' | 'tight' | 'full';

/** Keeps account of the space that the log takes and may still take. */
export class SpaceMeter {
  private logBytes = 0;
  private diskFree = 0;
  /** Appended when the file system was last asked, and of that what its answer surely takes into account. */
  private askedBytes = 0;
  private coveredBytes = 0;
  private refreshedAt = 0;
  /** Appended since the start, a running total. */
  appendedBytes = 0;
  private refreshing?: Promise<void>;
  /** Promised by other stores on the same file system, as last heard. */
  reservedElsewhere = 0;

  /**
   * @param limitBytes what the log may take at most, whatever the disk has
   * @param bytes `pending`: of what was appended, those that the disk has not been given yet; `reserved`: of log, that what is
   * promised to later writes will take
   */
  constructor(
    private readonly disk: Disk,
    private readonly dir: string,
    private readonly segmentBytes: number,
    private readonly limitBytes: number,
    private readonly clock: Clock,
    private readonly bytes: { pending(): number; reserved(): number },
  ) {}

  /** To be called once before use. */
  async start(logBytes: number): Promise<void> {
    this.logBytes = logBytes;
    await this.refresh();
  }

  private refresh(): Promise<void> {
    this.refreshing ??= this.ask().finally(() => {
      this.refreshing = undefined;
    });
    return this.refreshing;
  }

  private async ask(): Promise<void> {
    this.askedBytes = this.appendedBytes;
    const covered = this.appendedBytes - this.bytes.pending();
    const { freeBytes } = await this.disk.space(this.dir);
    this.diskFree = freeBytes;
    this.coveredBytes = covered;
    this.refreshedAt = this.clock.now();
  }

  /** Appended, and not in what the file system says is free. */
  private get uncounted(): number {
    return this.appendedBytes - this.coveredBytes;
  }

  /** Accounts for appended bytes. */
  appended(bytes: number): void {
    this.logBytes += bytes;
    this.appendedBytes += bytes;
    // A failing statfs leaves the old figure, less what was appended since: on the safe side (in usage() too).
    if (this.appendedBytes - this.askedBytes >= REFRESH_BYTES) this.refresh().catch(() => undefined);
  }

  /** Accounts for unlinked bytes. */
  async reclaimed(bytes: number): Promise<void> {
    this.logBytes -= bytes;
    await this.refresh();
  }

  /** What the log could grow by if there were no reserve. */
  get physicalFree(): number {
    return Math.min(this.diskFree - this.uncounted, this.limitBytes - this.logBytes);
  }

  /** The same without what is promised. May be negative: the disk is not this store's alone. */
  private get unpromised(): number {
    const unlimited = this.diskFree - this.uncounted - this.reservedElsewhere;
    return Math.min(unlimited, this.physicalFree) - this.bytes.reserved();
  }

  private get reserve(): number {
    return RESERVE_SEGMENTS * this.segmentBytes;
  }

  /** @param compactedBytes that the log takes at least; what it has beyond them can be reclaimed */
  admit(bytes: number, compactedBytes: number): Admission {
    const left = this.physicalFree - bytes;
    if (left >= this.reserve) return 'free';
    if (left < HARD_RESERVE_SEGMENTS * this.segmentBytes) return 'full';
    return this.canReclaim(compactedBytes) ? 'tight' : 'free';
  }

  private canReclaim(compactedBytes: number): boolean {
    return this.deadBytes(compactedBytes) >= this.reserve;
  }

  /** What is reserved is not in the log. */
  private deadBytes(compactedBytes: number): number {
    return this.logBytes - (compactedBytes - this.bytes.reserved());
  }

  /**
   * What may be written, or promised, before anything is reclaimed: admit() takes it, and somewhat more. At least 0. What is
   * promised is not in it, and admit() does not look at that: a primary keeps the promise, for all replicas at once.
   */
  roomBytes(compactedBytes: number): number {
    return Math.max(0, this.unpromised - this.roomReserve(compactedBytes));
  }

  /** The same for writes to where space was promised. */
  promisedRoomBytes(compactedBytes: number): number {
    return Math.max(0, this.physicalFree - this.roomReserve(compactedBytes));
  }

  private roomReserve(compactedBytes: number): number {
    const segments = this.canReclaim(compactedBytes)
      ? ROOM_RESERVE_SEGMENTS_RECLAIMING
      : ROOM_RESERVE_SEGMENTS;
    return segments * this.segmentBytes;
  }

  /** True when dead bytes take the room of a write, which reclaiming them would give it. */
  starved(bytes: number, compactedBytes: number): boolean {
    return this.canReclaim(compactedBytes) && this.roomBytes(compactedBytes) < bytes;
  }

  /** True while space should be reclaimed at once and without a rate limit. */
  get pressed(): boolean {
    return this.unpromised < 2 * this.reserve;
  }

  /** True while dead bytes take much of what there is. @param compactedBytes that the log takes at least */
  wasteful(compactedBytes: number): boolean {
    return this.deadBytes(compactedBytes) > WASTE_OF_FREE * Math.max(0, this.unpromised);
  }

  /** Whether compaction may still copy a segment. */
  get canCompact(): boolean {
    return this.physicalFree >= this.segmentBytes + this.segmentBytes / 2;
  }

  /** Heartbeats and requests ask often: while space is short, the disk is asked again, for others may have freed some. */
  usage(liveBytes: number, compactedBytes: number): Usage {
    const old = this.clock.now() - this.refreshedAt >= REFRESH_MS;
    if (this.pressed || old) this.refresh().catch(() => undefined);
    const capacityBytes = Math.max(compactedBytes, this.logBytes + this.physicalFree - this.reserve);
    const diskFreeBytes = Math.max(0, this.diskFree - this.uncounted - this.reserve);
    const freeBytes = capacityBytes - compactedBytes;
    const roomBytes = Math.min(freeBytes, this.roomBytes(compactedBytes));
    const promisedRoomBytes = this.promisedRoomBytes(compactedBytes);
    const reservedBytes = this.bytes.reserved();
    return {
      ...{ liveBytes, capacityBytes, freeBytes, roomBytes, promisedRoomBytes, reservedBytes },
      diskFreeBytes,
    };
  }
}
