import { assert } from '../../common/assert.js';
import { RaftEntryType, RaftSnapshotMeta } from '../../proto/gen/raft.js';
import type { HardState, RaftConfState, RaftEntry } from '../raft/types.js';

/**
 * Payloads of the Raft log's records (little-endian; part of the on-disk format).
 *
 *   batch (type 1)                        the others (types 2, 3, 4)
 *    0 u48 term, 6 u32 vote, 10 u48 commit  0 the same 16 bytes
 *   16 entries, one after the other:       16 RaftSnapshotMeta, protobuf: index, term, members
 *      0 u48 index, 6 u48 term, 12 u8 type, 3 bytes zero, 16 u32 bytes of data, 20 data
 *
 * Every record carries the whole hard state, so that a torn tail cannot part entries from the term they need.
 */
export const RecordType = {
  /** Hard state, and entries that supersede all from the first one's index on. */
  BATCH: 1,
  /** The log was cut: entries up to and including the base are gone. */
  CUT: 2,
  /** A snapshot took the log's place: the log starts anew behind the base. */
  RESET: 3,
  /** A snapshot is about to replace the state machine; RESET follows when that is done. */
  SNAPSHOT_INTENT: 4,
} as const;

/** A snapshot's place in the log, its members known. */
export interface LogBase {
  index: number;
  term: number;
  conf: RaftConfState;
}

const HARD_STATE_BYTES = 16;
const ENTRY_HEADER_BYTES = 20;
/** Entries are spread over several records beyond it, well below the segment log's limit. */
const RECORD_TARGET_BYTES = 4 * 1024 * 1024;
/** Data from this size on is written in place instead of being copied beside its header. */
const COPY_MAX_BYTES = 16 * 1024;

function writeHardState(target: Buffer, state: HardState): void {
  target.writeUIntLE(state.term, 0, 6);
  target.writeUInt32LE(state.vote, 6);
  target.writeUIntLE(state.commit, 10, 6);
}

function writeEntryHeader(target: Buffer, offset: number, entry: RaftEntry): void {
  target.writeUIntLE(entry.index, offset, 6);
  target.writeUIntLE(entry.term, offset + 6, 6);
  target.writeUInt32LE(entry.type, offset + 12);
  target.writeUInt32LE(entry.data.length, offset + 16);
}

/** One batch record as parts of a segment log record. */
function encodeBatch(state: HardState, entries: readonly RaftEntry[]): Buffer[] {
  let copied = HARD_STATE_BYTES;
  for (const { data } of entries) {
    copied += ENTRY_HEADER_BYTES + (data.length < COPY_MAX_BYTES ? data.length : 0);
  }
  const buffer = Buffer.allocUnsafe(copied);
  const parts: Buffer[] = [];
  writeHardState(buffer, state);
  let from = 0;
  let at = HARD_STATE_BYTES;
  for (const entry of entries) {
    writeEntryHeader(buffer, at, entry);
    at += ENTRY_HEADER_BYTES;
    if (entry.data.length < COPY_MAX_BYTES) {
      entry.data.copy(buffer, at);
      at += entry.data.length;
    } else {
      parts.push(buffer.subarray(from, at), entry.data);
      from = at;
    }
  }
  if (from < at) parts.push(buffer.subarray(from, at));
  return parts;
}

/** What goes into one record, and its last index (undefined without entries). */
export interface EncodedBatch {
  parts: Buffer[];
  lastIndex?: number;
}

/**
 * Records for `entries` under `state`, of at most about RECORD_TARGET_BYTES each. Only the last one carries the full commit
 * index: no prefix of them says that something is committed that it does not hold.
 */
export function encodeBatches(state: HardState, entries: readonly RaftEntry[]): EncodedBatch[] {
  const batches: EncodedBatch[] = [];
  let start = 0;
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) {
    const size = (entries[i] as RaftEntry).data.length + ENTRY_HEADER_BYTES;
    if (i > start && bytes + size > RECORD_TARGET_BYTES) {
      const group = entries.slice(start, i);
      const commit = Math.min(state.commit, (group[0] as RaftEntry).index - 1);
      batches.push({ parts: encodeBatch({ ...state, commit }, group), lastIndex: group.at(-1)?.index });
      start = i;
      bytes = 0;
    }
    bytes += size;
  }
  const group = start === 0 ? entries : entries.slice(start);
  batches.push({ parts: encodeBatch(state, group), lastIndex: group.at(-1)?.index });
  return batches;
}

/** The payload of a CUT, RESET or SNAPSHOT_INTENT record. */
export function encodeBase(state: HardState, base: LogBase): Buffer {
  const meta = RaftSnapshotMeta.encode(RaftSnapshotMeta.create(base)).finish();
  const payload = Buffer.allocUnsafe(HARD_STATE_BYTES + meta.length);
  writeHardState(payload, state);
  payload.set(meta, HARD_STATE_BYTES);
  return payload;
}

/** The hard state at the head of any record. @throws RangeError when the payload is too short */
export function decodeHardState(payload: Buffer): HardState {
  return {
    term: payload.readUIntLE(0, 6),
    vote: payload.readUInt32LE(6),
    commit: payload.readUIntLE(10, 6),
  };
}

/** The entries of a batch record; their data is copied, so that the payload's memory can go. @throws RangeError */
export function decodeEntries(payload: Buffer): RaftEntry[] {
  const entries: RaftEntry[] = [];
  let at = HARD_STATE_BYTES;
  while (at < payload.length) {
    const length = payload.readUInt32LE(at + 16);
    const from = at + ENTRY_HEADER_BYTES;
    if (from + length > payload.length) throw new RangeError('entry reaches beyond its record');
    const type = payload.readUInt32LE(at + 12);
    if (type !== RaftEntryType.ENTRY_COMMAND && type !== RaftEntryType.ENTRY_CONF_CHANGE) {
      throw new RangeError(`entry of unknown type ${type}`);
    }
    entries.push({
      index: payload.readUIntLE(at, 6),
      term: payload.readUIntLE(at + 6, 6),
      type,
      data: Buffer.from(payload.subarray(from, from + length)),
    });
    at = from + length;
  }
  return entries;
}

/** The base of a CUT, RESET or SNAPSHOT_INTENT record. */
export function decodeBase(payload: Buffer): LogBase {
  const { index, term, conf } = RaftSnapshotMeta.decode(payload.subarray(HARD_STATE_BYTES));
  assert(conf !== undefined, 'a log base names the members');
  return { index, term, conf };
}
