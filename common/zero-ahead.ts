import { assert } from './assert.js';
import { DIRECT_PART_MIN_BYTES } from './direct-writes.js';
import { type DiskFile, diskErrorCode } from './disk.js';

/** Zeros written ahead of the end at once; a smaller segment takes an eighth of its size. */
const AHEAD_MAX_BYTES = 512 * 1024;
const AHEAD_SHARE_OF_SEGMENT = 8;
/** Pieces of one write, each small enough to stay in the page cache, where the records that replace them are written. */
const PIECE_BYTES = 64 * 1024;
assert(PIECE_BYTES < DIRECT_PART_MIN_BYTES, 'zeros written ahead stay in the page cache');
/** A sync of more than that is bound by its data. */
const SMALL_SYNC_BYTES = 128 * 1024;
/** No room, or no more than so much for one file: the log itself may still fit. */
const NO_ROOM = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

/**
 * Zeros behind the end of a log that is synced often, so that the next records replace bytes which are on disk already: an
 * fdatasync then waits for their data alone, instead of also for the file system's journal, which notes new blocks and a
 * new size. Every zero goes through the log's one writer, so none can fall on a record.
 *
 * What a crash leaves of them looks like records that were never written, and is cut off as such.
 */
export class ZeroAhead {
  readonly #bytes: number;
  /** The current segment's file is written up to here, with records or zeros; 0: with no zeros. */
  #to = 0;
  /** The last sync was a small one, so the next may be. */
  #wanted = false;

  constructor(private readonly segmentBytes: number) {
    this.#bytes = Math.min(AHEAD_MAX_BYTES, Math.floor(segmentBytes / AHEAD_SHARE_OF_SEGMENT));
  }

  /** So many bytes were made durable by one fdatasync. */
  synced(bytes: number): void {
    this.#wanted = bytes <= SMALL_SYNC_BYTES;
  }

  /** Writes zeros behind `end`, where the records of `file` end, if the next ones would have none. @throws the disk's error */
  async extend(file: DiskFile, end: number): Promise<void> {
    if (!this.#wanted || end < this.#to) return;
    const length = Math.min(this.#bytes, this.segmentBytes - end);
    if (length <= 0) return;
    this.#to = end + length;
    try {
      await file.write(zeros(length), end);
    } catch (error) {
      if (!NO_ROOM.has(diskErrorCode(error) ?? '')) throw error;
      await this.cut(file, end);
    }
  }

  /** Takes off what lies behind `end`: the file takes no more records. @throws the disk's error */
  async cut(file: DiskFile, end: number): Promise<void> {
    if (this.#to > end) await file.truncate(end);
    this.#to = 0;
  }
}

const piece = Buffer.alloc(PIECE_BYTES);

function zeros(length: number): Buffer[] {
  assert(length > 0, 'zeros are written where there are some');
  const parts: Buffer[] = [];
  for (let left = length; left > 0; left -= PIECE_BYTES)
    parts.push(piece.subarray(0, Math.min(left, PIECE_BYTES)));
  return parts;
}
