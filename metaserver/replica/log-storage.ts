import { assert } from '../../common/assert.js';
import type { Disk } from '../../common/disk.js';
import { cutAtFailure, writeFailureMark } from '../../common/failure-mark.js';
import { SegmentLog } from '../../common/segment-log.js';
import { RaftConfState, RaftEntryType } from '../../proto/gen/raft.js';
import { EMPTY_CONF, members } from '../raft/confchange.js';
import type { HardState, LogReader, RaftEntry, RaftSnapshotMeta } from '../raft/types.js';
import { EntryWindow } from './entry-window.js';
import { logDirectory, REPLICA_FORMAT_VERSION, ReplicaDamagedError, type ReplicaFormat } from './format.js';
import {
  decodeBase,
  decodeEntries,
  decodeHardState,
  encodeBase,
  encodeBatches,
  type LogBase,
  RecordType,
} from './log-records.js';

const LOG_KIND = 'raft';
/** Space comes back by whole segments: small ones give it back sooner. */
export const DEFAULT_LOG_SEGMENT_BYTES = 16 * 1024 * 1024;

export interface LogStorageOptions {
  disk: Disk;
  /** The replica's directory. */
  dir: string;
  format: ReplicaFormat;
  segmentBytes?: number;
}

/**
 * Raft's log and hard state on a segment log, and all its entries in memory for the core.
 *
 * - append() is visible to readers at once; sync() makes it durable, with one fdatasync for all that was appended.
 * - Records are only ever added. Replaying them in order gives the state: entries of a later record supersede those from their
 *   first index on; CUT and RESET move the base (log-records.ts).
 * - A segment goes when every entry in it lies at or before the base. A CUT record behind it repeats hard state and members.
 */
export class LogStorage implements LogReader {
  /** Last written: survives what sync() has covered. */
  #hardState: HardState = { term: 0, vote: 0, commit: 0 };
  #base: LogBase;
  #window: EntryWindow;
  /** Members by the index from which they hold, ascending; the first is the base's. */
  #confs: { index: number; conf: RaftConfState }[];
  #intent: LogBase | undefined;
  /** Replay met entries without those before them: their segments are gone, and the CUT record that explains it is to come. */
  #baseUnknown = false;
  /** Highest entry index in each segment. */
  readonly #segmentLast = new Map<number, number>();
  #snapshotIndex = 0;
  #log: SegmentLog | undefined;
  /** Settles when the failure of the log is noted on disk, or could not be. */
  #marked: Promise<void> | undefined;

  private constructor(base: LogBase) {
    this.#base = base;
    this.#window = new EntryWindow(base);
    this.#confs = [{ index: base.index, conf: base.conf }];
    this.#snapshotIndex = base.index;
  }

  /**
   * Opens or makes the log and replays it. What a former process wrote behind its last good sync, before its disk failed, is
   * cut off first: it promised nothing of that, and the system may show it although it is not on disk.
   * @throws LogCorruptError, ReplicaDamagedError (damaged), LogFormatError (of another version or disk), or the disk's error
   */
  static async open(options: LogStorageOptions): Promise<LogStorage> {
    const storage = new LogStorage({ index: 0, term: 0, conf: options.format.conf ?? EMPTY_CONF });
    const dir = logDirectory(options.dir);
    await options.disk.mkdir(dir);
    await cutAtFailure(options.disk, options.dir, dir);
    storage.#log = await SegmentLog.open({
      disk: options.disk,
      dir,
      kind: LOG_KIND,
      formatVersion: REPLICA_FORMAT_VERSION,
      segmentBytes: options.segmentBytes ?? DEFAULT_LOG_SEGMENT_BYTES,
      uuid: options.format.diskUuid,
      onFailure: (durable) => {
        // Whoever waits for the log gets its error. Without the mark a next start would believe what was never synced.
        storage.#marked = writeFailureMark(options.disk, options.dir, durable).catch(() => undefined);
      },
      onRecord: (position, type, payload) => {
        try {
          storage.#replay(position.segment, type, payload);
        } catch (error) {
          const what = error instanceof Error ? error.message : String(error);
          throw new ReplicaDamagedError(`${dir}: segment ${position.segment} at ${position.offset}: ${what}`);
        }
      },
    });
    if (storage.#baseUnknown) throw new ReplicaDamagedError(`${dir}: segments of the log are missing`);
    const isEmpty = storage.lastIndex() === 0 && storage.#hardState.term === 0;
    if (options.format.begun && isEmpty) throw new ReplicaDamagedError(`${dir}: the log is missing`);
    return storage;
  }

  #replay(segment: number, type: number, payload: Buffer): void {
    this.#hardState = decodeHardState(payload);
    switch (type) {
      case RecordType.BATCH:
        this.#replayBatch(segment, decodeEntries(payload));
        break;
      case RecordType.CUT:
        this.#replayCut(decodeBase(payload));
        break;
      case RecordType.RESET:
        this.#baseUnknown = false;
        this.#resetMemory(decodeBase(payload));
        break;
      case RecordType.SNAPSHOT_INTENT:
        this.#intent = decodeBase(payload);
        break;
      default:
        throw new RangeError(`record of unknown type ${type}`);
    }
  }

  #replayBatch(segment: number, entries: RaftEntry[]): void {
    const first = entries[0];
    if (!first) return;
    const gap = first.index > this.#window.lastIndex + 1;
    if (gap || (this.#baseUnknown && first.index < this.#window.firstIndex)) {
      // What lies between was cut; the CUT record that says so comes later.
      this.#baseUnknown = true;
      this.#resetMemory({ ...this.#base, index: first.index - 1, term: 0 });
    }
    this.#intent = undefined;
    this.#add(entries);
    this.#noteSegment(segment, (entries.at(-1) as RaftEntry).index);
  }

  #replayCut(base: LogBase): void {
    this.#intent = undefined;
    if (this.#baseUnknown && base.index < this.#window.firstIndex - 1) return; // a later one tells
    this.#baseUnknown = false;
    if (base.index > this.#window.lastIndex) this.#resetMemory(base);
    else this.#cutMemory(base);
  }

  /**
   * Settles what a crash left between log and state machine; call once, before anything else.
   * @param applied the state machine's applied index
   * @throws ReplicaDamagedError when the two do not belong together
   */
  async recover(applied: number): Promise<void> {
    const intent = this.#intent;
    if (intent) {
      this.#intent = undefined;
      // The state machine was replaced, or was not; in between there is nothing.
      if (intent.index === applied) await this.finishSnapshot(intent);
      else {
        // The intention came with the snapshot's commit index: it says nothing about the entries that are here.
        this.#hardState = { ...this.#hardState, commit: applied };
        await this.#writeBase(RecordType.CUT, this.#base);
      }
    }
    if (applied < this.#base.index) {
      throw new ReplicaDamagedError(
        `the state machine is at ${applied}, the log starts after ${this.#base.index}: the store was replaced or lost data`,
      );
    }
    if (applied > this.lastIndex()) {
      throw new ReplicaDamagedError(
        `the state machine is at ${applied}, the log ends at ${this.lastIndex()}: the log was replaced or lost data`,
      );
    }
    this.setSnapshotIndex(applied);
  }

  get hardState(): HardState {
    return this.#hardState;
  }

  firstIndex(): number {
    return this.#window.firstIndex;
  }

  lastIndex(): number {
    return this.#window.lastIndex;
  }

  term(index: number): number | undefined {
    return this.#window.term(index);
  }

  entries(lo: number, hi: number, maxBytes: number): RaftEntry[] | undefined {
    return this.#window.slice(lo, hi, maxBytes);
  }

  /** Where a snapshot taken now would stand: at the state machine's index. */
  snapshot(): RaftSnapshotMeta | undefined {
    return this.metaAt(this.#snapshotIndex);
  }

  /** Term and members at an index that the log still knows. */
  metaAt(index: number): LogBase | undefined {
    const term = this.#window.term(index);
    return term === undefined ? undefined : { index, term, conf: this.confAt(index) };
  }

  /** The members once everything up to `index` is applied. */
  confAt(index: number): RaftConfState {
    const held = this.#confs.findLast((each) => each.index <= index) ?? this.#confs[0];
    assert(held, 'the base always names the members');
    return held.conf;
  }

  /** Takes the members before the first entry, which no record has named yet; the format file keeps them. */
  found(conf: RaftConfState): void {
    assert(this.#base.index === 0 && members(this.#base.conf).length === 0, 'a cluster is founded once');
    this.#base = { ...this.#base, conf };
    this.#confs = [{ index: 0, conf }, ...this.#confs.slice(1)];
  }

  /** Bytes of entries in memory. */
  get bytes(): number {
    return this.#window.bytes;
  }

  get segments(): readonly number[] {
    return this.#segmentLog.segments;
  }

  /** Tells what snapshot() may offer. */
  setSnapshotIndex(index: number): void {
    this.#snapshotIndex = index;
  }

  /** Appends in memory and hands the records to the segment log. @throws LogFailedError */
  append(entries: readonly RaftEntry[], hardState: HardState): void {
    this.#hardState = hardState;
    this.#add(entries);
    for (const batch of encodeBatches(hardState, entries)) {
      const position = this.#segmentLog.append(RecordType.BATCH, batch.parts);
      if (batch.lastIndex !== undefined) this.#noteSegment(position.segment, batch.lastIndex);
    }
  }

  /** Remembers a commit index; it reaches the disk with the next record. Losing it costs nothing: Raft finds it again. */
  noteHardState(hardState: HardState): void {
    assert(
      hardState.term === this.#hardState.term && hardState.vote === this.#hardState.vote,
      'term and vote must be appended',
    );
    this.#hardState = hardState;
  }

  /** Resolves when all that was appended is durable. @throws LogFailedError */
  sync(): Promise<void> {
    return this.#segmentLog.sync();
  }

  /**
   * Drops the entries up to `index`: from memory at once, from disk by whole segments.
   * @param index must be durable in the state machine: these entries are needed no more
   */
  async cut(index: number): Promise<void> {
    const base = this.metaAt(index);
    assert(base !== undefined, `cut at ${index}, which is not in the log`);
    this.#cutMemory(base);
    await this.#writeBase(RecordType.CUT, base);
  }

  /** See cutPoint of the window. */
  cutPoint(keepEntries: number, keepBytes: number): number {
    return this.#window.cutPoint(keepEntries, keepBytes);
  }

  /**
   * A snapshot takes the log's place: readers see that at once. Resolves when the intention is durable, so that a crash
   * while the state machine is replaced is understood. Nothing may be appended before finishSnapshot().
   */
  async beginSnapshot(base: LogBase, hardState: HardState): Promise<void> {
    this.#hardState = hardState;
    this.#resetMemory(base);
    this.#segmentLog.append(RecordType.SNAPSHOT_INTENT, [encodeBase(hardState, base)]);
    await this.sync();
  }

  /** Starts the log anew behind a snapshot that the state machine holds durably. */
  async finishSnapshot(base: LogBase): Promise<void> {
    this.#resetMemory(base);
    await this.#writeBase(RecordType.RESET, base);
  }

  async close(): Promise<void> {
    await this.#marked;
    await this.#segmentLog.close();
  }

  get #segmentLog(): SegmentLog {
    assert(this.#log, 'the log is open');
    return this.#log;
  }

  #add(entries: readonly RaftEntry[]): void {
    const first = entries[0];
    if (!first) return;
    this.#window.append(entries);
    while ((this.#confs.at(-1)?.index ?? 0) >= first.index && this.#confs.length > 1) this.#confs.pop();
    for (const { index, type, data } of entries) {
      if (type === RaftEntryType.ENTRY_CONF_CHANGE)
        this.#confs.push({ index, conf: RaftConfState.decode(data) });
    }
  }

  #noteSegment(segment: number, lastIndex: number): void {
    const before = this.#segmentLast.get(segment) ?? 0;
    if (lastIndex > before) this.#segmentLast.set(segment, lastIndex);
  }

  #cutMemory(base: LogBase): void {
    this.#window.cut(base.index);
    this.#window.setBaseTerm(base.term);
    this.#confs = [
      { index: base.index, conf: base.conf },
      ...this.#confs.filter(({ index }) => index > base.index),
    ];
    this.#base = base;
  }

  #resetMemory(base: LogBase): void {
    this.#intent = undefined;
    this.#window.reset(base);
    this.#confs = [{ index: base.index, conf: base.conf }];
    this.#base = base;
    this.#snapshotIndex = base.index;
    for (const segment of this.#segmentLast.keys()) this.#segmentLast.set(segment, 0);
  }

  /** Writes a base durably, then drops the segments that hold nothing behind it. */
  async #writeBase(type: number, base: LogBase): Promise<void> {
    const position = this.#segmentLog.append(type, [encodeBase(this.#hardState, base)]);
    await this.sync();
    const needed = this.#segmentLog.segments.find(
      (segment) => (this.#segmentLast.get(segment) ?? 0) > base.index,
    );
    const keepFrom = Math.min(needed ?? position.segment, position.segment);
    await this.#segmentLog.dropSegmentsBefore(keepFrom);
    for (const segment of [...this.#segmentLast.keys()]) {
      if (segment < keepFrom) this.#segmentLast.delete(segment);
    }
  }
}
