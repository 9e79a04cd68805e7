import { RECORD_HEADER_BYTES } from '../../common/segment-log-format.js';
import { BLOCK_SIZE_BYTES } from '../../proto/types.js';
import { RESERVED_SEGMENT } from './extents.js';
import { META_BYTES } from './records.js';

/** What a move writes for an extent beside its bytes. */
const MOVE_OVERHEAD_BYTES = RECORD_HEADER_BYTES + META_BYTES;
const VALUE_BYTES = 16;

/** What is live in a segment: bytes, and the extents that they lie in. */
interface Use {
  bytes: number;
  extents: number;
}

function loggedBytes({ bytes, extents }: Use): number {
  return bytes + extents * MOVE_OVERHEAD_BYTES;
}

/** Reserved bytes are counted as they will be logged when they are written page by page. */
function reservedLogBytes({ bytes, extents }: Use): number {
  return bytes + (Math.ceil(bytes / BLOCK_SIZE_BYTES) + extents) * MOVE_OVERHEAD_BYTES;
}

const NO_USE: Use = { bytes: 0, extents: 0 };

/** How much of every segment is live, what is reserved counting as one more segment. A segment without a live byte takes no entry. */
export class SegmentUsage {
  private readonly used = new Map<number, Use>();
  private readonly total: Use = { bytes: 0, extents: 0 };

  /** Live bytes of all segments. */
  get bytes(): number {
    return this.total.bytes;
  }

  /** Bytes of log that they take when all is compacted, at most. */
  get compactedBytes(): number {
    const reserved = this.used.get(RESERVED_SEGMENT) ?? NO_USE;
    return loggedBytes(this.total) - loggedBytes(reserved) + reservedLogBytes(reserved);
  }

  /** Of these what reserved bytes will take. */
  get reservedBytes(): number {
    return reservedLogBytes(this.used.get(RESERVED_SEGMENT) ?? NO_USE);
  }

  /** Counts what a change adds to a segment, or takes from it (negative). */
  add(segment: number, bytes: number, extents: number): void {
    this.total.bytes += bytes;
    this.total.extents += extents;
    const use = this.used.get(segment);
    if (!use) {
      this.used.set(segment, { bytes, extents });
      return;
    }
    use.bytes += bytes;
    use.extents += extents;
    if (use.bytes === 0) this.used.delete(segment);
  }

  isLive(segment: number): boolean {
    return this.used.has(segment);
  }

  /**
   * Bytes of log that moving all live bytes of the segment takes, at most: each extent becomes a record of its own unless it
   * has a neighbour. Against the segment's size it says what compaction gains; the live bytes alone do not, for where records
   * are small a segment that is live in full has more headers than data, and would be moved for ever.
   */
  movedBytes(segment: number): number {
    const use = this.used.get(segment);
    return use ? loggedBytes(use) : 0;
  }

  forget(segment: number): void {
    this.used.delete(segment);
  }

  clear(): void {
    this.used.clear();
    this.total.bytes = 0;
    this.total.extents = 0;
  }

  /** The index's value (little-endian, on-disk format): f64 bytes, f64 extents. */
  encode(segment: number): Buffer | undefined {
    const use = this.used.get(segment);
    if (!use) return undefined;
    const value = Buffer.alloc(VALUE_BYTES);
    value.writeDoubleLE(use.bytes, 0);
    value.writeDoubleLE(use.extents, 8);
    return value;
  }

  /** Takes what encode() gave. Returns false when the value does not say how many extents there are: older ones do not. */
  decode(segment: number, value: Buffer): boolean {
    if (value.length < VALUE_BYTES) return false;
    this.add(segment, value.readDoubleLE(0), value.readDoubleLE(8));
    return true;
  }
}
