import { randomUUID } from 'node:crypto';
import { assert } from './assert.js';
import { crc32c } from './crc32c.js';
import { type Deferred, deferred } from './deferred.js';
import type { Disk, DiskFile } from './disk.js';
import { SegmentFiles } from './segment-log-files.js';
import {
  comparePositions,
  decodeRecordHeader,
  encodeRecordHeader,
  encodeSegmentHeader,
  KIND_MAX_BYTES,
  LogCorruptError,
  LogFailedError,
  type LogIdentity,
  LogOverloadedError,
  type Position,
  RECORD_HEADER_BYTES,
  recordSeed,
  SEGMENT_HEADER_BYTES,
} from './segment-log-format.js';
import { type OnRecord, type Recovered, recoverLog } from './segment-log-recover.js';
import { ZeroAhead } from './zero-ahead.js';

export {
  comparePositions,
  LogCorruptError,
  LogFailedError,
  LogFormatError,
  LogOverloadedError,
} from './segment-log-format.js';
export type { OnRecord, Position };

export const DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024;
/** The largest payload of one record. */
export const MAX_RECORD_BYTES = 16 * 1024 * 1024;
/** Appended and not yet handed to the OS; append() refuses beyond it, unless the options say otherwise. */
export const MAX_PENDING_BYTES = 256 * 1024 * 1024;
/** One writev takes at most so much, and so many buffers (IOV_MAX). */
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
const MAX_BATCH_PARTS = 1000;
const MAX_OPEN_FILES = 64;
/** Written at a clean end, so that later damage to the last records cannot pass for a torn tail. */
const CLOSE_RECORD_TYPE = 0xff;
/** Record types that callers may use are 0..MAX_RECORD_TYPE. */
export const MAX_RECORD_TYPE = 0xfe;

export interface SegmentLogOptions {
  disk: Disk;
  /** Made when it is missing. */
  dir: string;
  /** What the log holds, at most 16 ASCII characters; a log of another kind is refused. */
  kind: string;
  /** Version of the payloads' format; any other is refused. */
  formatVersion: number;
  /** A new segment starts when the next record would reach beyond; default 64 MiB. */
  segmentBytes?: number;
  /** Written into a new log; an existing one must have the same. Default: any, and a random one for a new log. */
  uuid?: string;
  /** Replay starts here (a position that append() returned, or `log.end`); default: the oldest record. */
  from?: Position;
  onRecord: OnRecord;
  /** Default: MAX_PENDING_BYTES. */
  maxPendingBytes?: number;
  /** Told once when a write or an fdatasync has failed: what lies behind `durable` may not be believed any more. */
  onFailure?: (durable: Position) => void;
}

/** One record without its payload. */
export interface RecordSummary {
  position: Position;
  type: number;
  /** Payload bytes. */
  length: number;
  /** The payload's first bytes. */
  head: Buffer;
}

const SUMMARY_WINDOW_BYTES = 64 * 1024;

interface Batch {
  segment: number;
  offset: number;
  parts: Buffer[];
  bytes: number;
  done?: Deferred<void>;
}

interface SyncWaiter {
  target: Position;
  done: Deferred<void>;
}

/**
 * An append-only log in segment files: every record checksummed, appends of a moment gathered into one writev, one
 * fdatasync for all who wait (group commit).
 *
 * - Positions are given out by append() at once and in order; I/O follows behind, in the same order.
 * - Fail-stop: after a failed write or fdatasync every later call fails. The kernel may have dropped the data, and a
 *   second fdatasync would report success for bytes that are gone.
 * - No record is ever overwritten. A log that must take records back (Raft's conflicting suffix) appends a record that
 *   supersedes them and drops the old ones while replaying; there is no truncate. Where syncs are small, the file goes on
 *   behind its last record with zeros (ZeroAhead).
 */
export class SegmentLog {
  readonly uuid: string;
  /** Bytes of torn, never synced records that were cut off when the log was opened. */
  readonly tornBytes: number;
  private readonly files: SegmentFiles;
  private readonly seed: number;
  private readonly segmentBytes: number;
  private readonly segmentList: number[];
  private readonly sizes = new Map<number, number>();
  private readonly identity: LogIdentity;

  /** Where the next record goes; offset 0 means that the segment has no file yet. */
  private tail: Position;
  private previousEnd: number;
  private writtenTo: Position;
  private durableTo: Position;
  private pending = 0;
  private readonly queue: Batch[] = [];
  private inFlight?: Batch;
  private pumping = false;
  private writeFile?: DiskFile;
  /** The last segment's fdatasync after the log moved on; awaited before the next one is left. */
  private leftBehind?: Promise<void>;
  private readonly unsynced = new Set<number>();
  private readonly ahead: ZeroAhead;
  private readonly waiters: SyncWaiter[] = [];
  private syncing = false;
  private failure?: LogFailedError;
  private closed = false;

  /** Opens or makes a log and replays it. @throws LogCorruptError, LogFormatError, or the disk's error */
  static async open(options: SegmentLogOptions): Promise<SegmentLog> {
    assert(options.kind.length <= KIND_MAX_BYTES, 'log kind is at most 16 characters');
    const recovered = await recoverLog({
      ...options,
      maxRecordBytes: MAX_RECORD_BYTES,
      onRecord: (position, type, payload) => {
        if (type !== CLOSE_RECORD_TYPE) options.onRecord(position, type, payload);
      },
    });
    const uuid = recovered.uuid ?? options.uuid ?? randomUUID();
    const log = new SegmentLog(options, uuid, recovered);
    for (const segment of recovered.segments) {
      log.sizes.set(segment, await log.files.with(segment, (file) => file.size()));
    }
    return log;
  }

  private constructor(
    private readonly options: SegmentLogOptions,
    uuid: string,
    recovered: Recovered,
  ) {
    const { end } = recovered;
    this.uuid = uuid;
    this.tornBytes = recovered.tornBytes;
    this.previousEnd = recovered.previousEnd;
    this.identity = { kind: options.kind, formatVersion: options.formatVersion, uuid };
    this.seed = recordSeed(uuid);
    this.segmentBytes = options.segmentBytes ?? DEFAULT_SEGMENT_BYTES;
    this.ahead = new ZeroAhead(this.segmentBytes);
    this.segmentList = recovered.segments;
    this.tail = end;
    this.writtenTo = end;
    this.durableTo = end;
    this.files = new SegmentFiles(options.disk, options.dir, MAX_OPEN_FILES);
  }

  /** Behind the last appended record. */
  get end(): Position {
    return this.tail;
  }

  /** Everything before it is on disk. */
  get durable(): Position {
    return this.durableTo;
  }

  /** Bytes appended and not yet handed to the OS. */
  get pendingBytes(): number {
    return this.pending;
  }

  /** Numbers of the segments that exist, ascending. */
  get segments(): readonly number[] {
    return this.segmentList;
  }

  /** Bytes of a segment's file, as far as written; 0 when there is none. */
  sizeOf(segment: number): number {
    return this.sizes.get(segment) ?? 0;
  }

  /** Bytes that one record with such a payload takes in the log. */
  static recordBytes(payloadBytes: number): number {
    return RECORD_HEADER_BYTES + payloadBytes;
  }

  /** Offset in the segment of the first payload byte of the record at `position`. */
  static payloadOffset(position: Position): number {
    return position.offset + RECORD_HEADER_BYTES;
  }

  /**
   * Adds a record and returns its place. The parts are written as they are, without a copy: they must not change until
   * written() resolves.
   * @param type 0..MAX_RECORD_TYPE, for the caller to tell records apart
   * @param payloadCrc CRC-32C over all parts, when the caller knows it already
   * @throws LogFailedError after a failed write; LogOverloadedError when more than `maxPendingBytes` would wait
   */
  append(type: number, parts: readonly Buffer[], payloadCrc?: number): Position {
    assert(type >= 0 && type <= MAX_RECORD_TYPE, 'record type out of range');
    return this.add(type, parts, payloadCrc);
  }

  private add(type: number, parts: readonly Buffer[], payloadCrc?: number): Position {
    if (this.failure) throw this.failure;
    assert(!this.closed, 'append to a closed log');
    let length = 0;
    for (const part of parts) length += part.length;
    assert(length <= MAX_RECORD_BYTES, 'record is too large');
    const total = RECORD_HEADER_BYTES + length;
    const { maxPendingBytes = MAX_PENDING_BYTES } = this.options;
    if (this.pending > 0 && this.pending + total > maxPendingBytes) {
      throw new LogOverloadedError(`more than ${maxPendingBytes} bytes wait to be written`);
    }
    const batch = this.batchFor(total, parts.length + 1);
    const position = this.tail;
    let crc = payloadCrc ?? 0;
    if (payloadCrc === undefined) for (const part of parts) crc = crc32c(part, crc);
    const record = { type, length, payloadCrc: crc, durable: this.durableTo };
    batch.parts.push(encodeRecordHeader(this.seed, position, record), ...parts);
    batch.bytes += total;
    this.pending += total;
    this.tail = { segment: position.segment, offset: position.offset + total };
    return position;
  }

  /** The batch that takes the next record, in a new segment when the current one is full. */
  private batchFor(total: number, parts: number): Batch {
    const full = this.tail.offset > SEGMENT_HEADER_BYTES && this.tail.offset + total > this.segmentBytes;
    if (full) {
      this.previousEnd = this.tail.offset;
      this.tail = { segment: this.tail.segment + 1, offset: 0 };
    }
    const last = this.queue.at(-1);
    if (
      last &&
      last.segment === this.tail.segment &&
      last.bytes + total <= MAX_BATCH_BYTES &&
      last.parts.length + parts <= MAX_BATCH_PARTS
    ) {
      return last;
    }
    const batch: Batch = { segment: this.tail.segment, offset: this.tail.offset, parts: [], bytes: 0 };
    if (this.tail.offset === 0) {
      batch.parts.push(encodeSegmentHeader(this.identity, batch.segment, this.previousEnd));
      batch.bytes = SEGMENT_HEADER_BYTES;
      this.pending += SEGMENT_HEADER_BYTES;
      this.tail = { segment: batch.segment, offset: SEGMENT_HEADER_BYTES };
    }
    this.queue.push(batch);
    if (!this.pumping) {
      this.pumping = true;
      queueMicrotask(() => void this.pump());
    }
    return batch;
  }

  /** Writes batches one after the other; what is appended meanwhile gathers in the next. */
  private async pump(): Promise<void> {
    for (let batch = this.queue.shift(); batch && !this.failure; batch = this.queue.shift()) {
      this.inFlight = batch;
      try {
        const file = await this.fileFor(batch);
        await file.write(batch.parts, batch.offset);
        await this.ahead.extend(file, batch.offset + batch.bytes);
      } catch (error) {
        this.fail('write', error);
        break;
      }
      this.inFlight = undefined;
      this.unsynced.add(batch.segment);
      this.pending -= batch.bytes;
      this.writtenTo = { segment: batch.segment, offset: batch.offset + batch.bytes };
      this.sizes.set(batch.segment, this.writtenTo.offset);
      batch.done?.resolve();
    }
    this.pumping = false;
  }

  private async fileFor(batch: Batch): Promise<DiskFile> {
    if (batch.offset > 0) {
      this.writeFile ??= await this.files.acquire(batch.segment);
      return this.writeFile;
    }
    if (this.writeFile) await this.leave(this.writtenTo);
    const file = await this.files.create(batch.segment);
    await this.options.disk.syncDir(this.options.dir);
    this.segmentList.push(batch.segment);
    this.writeFile = file;
    return file;
  }

  /** Flushes the full segment in the background; at most two segments are unsynced at any time. */
  private async leave(end: Position): Promise<void> {
    await this.leftBehind;
    const file = this.writeFile as DiskFile;
    await this.ahead.cut(file, end.offset);
    this.leftBehind = file.datasync().then(
      () => {
        this.unsynced.delete(end.segment);
        if (comparePositions(end, this.durableTo) > 0) this.durableTo = end;
        this.files.release(end.segment);
      },
      (error: unknown) => this.fail('fdatasync', error),
    );
  }

  /** Resolves when all records appended before are written to the OS: they survive this process, not a power cut. */
  written(): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    const batch = this.queue.at(-1) ?? this.inFlight;
    if (!batch) return Promise.resolve();
    batch.done ??= deferred();
    return batch.done.promise;
  }

  /** Resolves when all records appended before are on disk. Callers share fdatasyncs. */
  sync(): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    if (comparePositions(this.tail, this.durableTo) <= 0) return Promise.resolve();
    const last = this.waiters.at(-1);
    if (last && comparePositions(last.target, this.tail) === 0) return last.done.promise;
    const waiter = { target: this.tail, done: deferred<void>() };
    this.waiters.push(waiter);
    if (!this.syncing) {
      this.syncing = true;
      void this.syncLoop();
    }
    return waiter.done.promise;
  }

  private async syncLoop(): Promise<void> {
    try {
      for (let first = this.waiters[0]; first; first = this.waiters[0]) {
        while (comparePositions(this.writtenTo, first.target) < 0) await this.firstBatchWritten();
        // Whoever's records are written by now shares this fdatasync.
        const mark = this.writtenTo;
        await this.syncFiles(mark);
        if (this.failure) throw this.failure;
        this.ahead.synced(
          mark.segment === this.durableTo.segment ? mark.offset - this.durableTo.offset : mark.offset,
        );
        if (comparePositions(mark, this.durableTo) > 0) this.durableTo = mark;
        while (this.waiters[0] && comparePositions(this.waiters[0].target, mark) <= 0) {
          this.waiters.shift()?.done.resolve();
        }
      }
    } catch (error) {
      this.fail('fdatasync', error);
    }
    this.syncing = false;
  }

  private firstBatchWritten(): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    const batch = this.inFlight ?? this.queue[0];
    assert(batch, 'a record that is not written waits in a batch');
    batch.done ??= deferred();
    return batch.done.promise;
  }

  private async syncFiles(mark: Position): Promise<void> {
    for (const segment of [...this.unsynced].filter((segment) => segment <= mark.segment)) {
      await this.files.with(segment, (file) => file.datasync());
      if (segment < mark.segment) this.unsynced.delete(segment);
    }
  }

  /** Poisons the log: everyone who waits, and every later call, gets the error. */
  private fail(what: string, error: unknown): void {
    if (this.failure) return;
    const cause = error instanceof Error ? error.message : String(error);
    this.failure = new LogFailedError(`${this.options.dir}: ${what} failed, the log is closed: ${cause}`, {
      cause: error,
    });
    this.options.onFailure?.(this.durableTo);
    const batches = [...(this.inFlight ? [this.inFlight] : []), ...this.queue.splice(0)];
    for (const batch of batches) batch.done?.reject(this.failure);
    for (const waiter of this.waiters.splice(0)) waiter.done.reject(this.failure);
  }

  /** The record that append() placed at `position`, verified. @throws LogCorruptError */
  async read(position: Position): Promise<{ type: number; payload: Buffer }> {
    const head = await this.readAt(position.segment, position.offset, RECORD_HEADER_BYTES);
    const header = decodeRecordHeader(this.seed, position, head, 0);
    const file = this.files.path(position.segment);
    if (!header) throw new LogCorruptError(file, position.offset, 'bad record header');
    const payload = await this.readAt(position.segment, SegmentLog.payloadOffset(position), header.length);
    if (crc32c(payload) !== header.payloadCrc) {
      throw new LogCorruptError(file, position.offset, 'record with a wrong checksum');
    }
    return { type: header.type, payload };
  }

  /** Bytes of a segment, not verified; waits until they are written. @throws LogCorruptError when the file is shorter */
  async readAt(segment: number, offset: number, length: number): Promise<Buffer> {
    const end = { segment, offset: offset + length };
    while (comparePositions(this.writtenTo, end) < 0 && comparePositions(end, this.tail) <= 0) {
      await this.firstBatchWritten();
    }
    const target = Buffer.allocUnsafe(length);
    const got = await this.files.with(segment, (file) => file.read(target, offset));
    if (got < length) throw new LogCorruptError(this.files.path(segment), offset + got, 'end of file');
    return target;
  }

  /** readAt() in this turn; undefined where that is not to be had: use readAt(). @throws the disk's error */
  readNow(segment: number, offset: number, length: number): Buffer | undefined {
    if (comparePositions(this.writtenTo, { segment, offset: offset + length }) < 0) return undefined;
    const file = this.files.opened(segment);
    if (!file?.readNow) return undefined;
    const target = Buffer.allocUnsafe(length);
    return file.readNow(target, offset) === length ? target : undefined;
  }

  /**
   * The sound records of a segment in order, with the first `headBytes` of each payload, which are not verified; ends at
   * the first bad record or at the end of what is written.
   */
  async *records(segment: number, headBytes: number): AsyncGenerator<RecordSummary> {
    const size = this.sizeOf(segment);
    const need = RECORD_HEADER_BYTES + headBytes;
    let window: Buffer = Buffer.alloc(0);
    let base = SEGMENT_HEADER_BYTES;
    for (let offset = SEGMENT_HEADER_BYTES; offset < size; ) {
      if (offset + need > base + window.length) {
        base = offset;
        window = await this.readAt(segment, base, Math.min(SUMMARY_WINDOW_BYTES, size - base));
      }
      const header = decodeRecordHeader(this.seed, { segment, offset }, window, offset - base);
      if (!header) return;
      const head = window.subarray(offset - base + RECORD_HEADER_BYTES, offset - base + need);
      const { type, length } = header;
      if (type !== CLOSE_RECORD_TYPE) yield { position: { segment, offset }, type, length, head };
      offset += RECORD_HEADER_BYTES + length;
    }
  }

  /** Removes a segment for good; its number is never used again. The one being written cannot go. */
  async unlinkSegment(segment: number): Promise<void> {
    await this.unlinkSegments([segment]);
  }

  /** Removes all segments below `segment`, oldest first. */
  async dropSegmentsBefore(segment: number): Promise<void> {
    await this.unlinkSegments(this.segmentList.filter((each) => each < segment && each < this.tail.segment));
  }

  private async unlinkSegments(segments: number[]): Promise<void> {
    for (const segment of segments) {
      assert(segment < this.writtenTo.segment, 'only a segment that takes no more records may go');
      const index = this.segmentList.indexOf(segment);
      if (index < 0) continue;
      this.segmentList.splice(index, 1);
      this.unsynced.delete(segment);
      this.sizes.delete(segment);
      this.files.forget(segment);
      await this.options.disk.unlink(this.files.path(segment));
    }
    if (segments.length > 0) await this.options.disk.syncDir(this.options.dir);
  }

  /** The last file ends behind its last record, so that damage to that cannot pass for zeros. */
  private async endFile(): Promise<void> {
    const { writeFile } = this;
    if (this.failure || !writeFile) return;
    await this.ahead.cut(writeFile, this.writtenTo.offset);
    await writeFile.datasync();
  }

  /** Makes everything durable and closes the files. A failed log closes without an error. */
  async close(): Promise<void> {
    if (this.closed) return;
    if (!this.failure && this.tail.offset > 0) {
      await this.sync();
      this.add(CLOSE_RECORD_TYPE, []);
      await this.sync();
      await this.endFile();
    }
    this.closed = true;
    await this.leftBehind;
    await this.files.closeAll();
  }
}
