import { type RaftEntry, type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';

/** What an entry costs beside its data: headers, indices. Counts against append and in-flight limits. */
export const ENTRY_OVERHEAD_BYTES = 32;

/** Bytes of an entry for flow control. */
export function entryBytes(entry: RaftEntry): number {
  return entry.data.length + ENTRY_OVERHEAD_BYTES;
}

/** Bytes of several entries for flow control. */
export function entriesBytes(entries: readonly RaftEntry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entryBytes(entry);
  return bytes;
}

/**
 * The longest prefix of `entries` within `maxBytes`, at least one entry when there is any; no copy if all
 * fit.
 */
export function limitBytes(entries: RaftEntry[], maxBytes: number): RaftEntry[] {
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) {
    bytes += entryBytes(entries[i]!);
    if (bytes > maxBytes && i > 0) return entries.slice(0, i);
  }
  return entries;
}

/**
 * A message with every field present (one hidden class on the hot path); the caller fills in what it needs.
 */
export function makeMessage(type: RaftMessageType, from: number, to: number, term: number): RaftMessage {
  return {
    type,
    from,
    to,
    term,
    logTerm: 0,
    index: 0,
    entries: [],
    commit: 0,
    reject: false,
    rejectHint: 0,
    snapshot: undefined,
    context: 0,
    force: false,
  };
}

/** True for messages that only the leader of their term sends. */
export function isFromLeader(type: RaftMessageType): boolean {
  return (
    type === RaftMessageType.RAFT_APPEND ||
    type === RaftMessageType.RAFT_HEARTBEAT ||
    type === RaftMessageType.RAFT_SNAPSHOT
  );
}

/** True for the two votes' requests. */
export function isVoteRequest(type: RaftMessageType): boolean {
  return type === RaftMessageType.RAFT_VOTE || type === RaftMessageType.RAFT_PRE_VOTE;
}
