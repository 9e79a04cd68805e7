import { HoldfastError } from '../../proto/errors.js';
import type { MutationReply, ReserveInodes } from '../../proto/gen/meta.js';
import { MAX_INO } from '../../proto/types.js';
import type { KvReader, KvTransaction } from '../store/kv.js';
import type { Batch } from './batch.js';
import { readU64, reservedKey, writeU64 } from './keys.js';
import { okReply } from './replies.js';

/**
 * Inode numbers set aside for a session, which names its new inodes itself while it has the directory to itself. A
 * number is given once for all time: those of a session that ends are lost.
 */

/** Numbers in one request. */
export const RESERVE_INODES_MAX = 16_384;
/** Ranges that one session may hold: the one in use and those fetched ahead. */
export const RESERVED_RANGES_MAX = 4;

interface Range {
  /** The least number that was not used yet. */
  next: number;
  end: number;
}

const RANGE_BYTES = 16;

/** @throws HoldfastError EINVAL, OVERLOADED (use the numbers up first), ENOSPC */
export function reserveInodes(batch: Batch, session: number, op: ReserveInodes): MutationReply {
  if (op.count < 1 || op.count > RESERVE_INODES_MAX)
    throw new HoldfastError('EINVAL', `${op.count} inode numbers`);
  const ranges = load(batch.txn, session);
  if (ranges.length >= RESERVED_RANGES_MAX) throw new HoldfastError('OVERLOADED', 'too many reserved ranges');
  const { nextIno } = batch.counters;
  if (nextIno + op.count - 1 > MAX_INO) throw new HoldfastError('ENOSPC');
  batch.counters.nextIno += op.count;
  store(batch.txn, session, [...ranges, { next: nextIno, end: nextIno + op.count }]);
  return { ...okReply(), firstIno: nextIno };
}

/**
 * Checks that a session may give this number to a new inode. The function returned uses it up, with all smaller ones of
 * its range. @throws HoldfastError EINVAL
 */
export function claimReserved(batch: Batch, session: number, ino: number): () => void {
  const ranges = load(batch.txn, session);
  const range = ranges.find(({ next, end }) => ino >= next && ino < end);
  if (!range) throw new HoldfastError('EINVAL', `inode number ${ino} is not reserved for session ${session}`);
  return () => {
    range.next = ino + 1;
    store(
      batch.txn,
      session,
      ranges.filter(({ next, end }) => next < end),
    );
  };
}

/** Whether the session has yet to use this number. */
export function isReservedFor(kv: KvReader, session: number, ino: number): boolean {
  return load(kv, session).some(({ next, end }) => ino >= next && ino < end);
}

/** The session is over. */
export function dropReserved(txn: KvTransaction, session: number): void {
  if (txn.get(reservedKey(session))) txn.delete(reservedKey(session));
}

/** u64 next, u64 end, for each range. */
function load(kv: KvReader, session: number): Range[] {
  const bytes = kv.get(reservedKey(session));
  const ranges: Range[] = [];
  for (let at = 0; bytes && at < bytes.length; at += RANGE_BYTES)
    ranges.push({ next: readU64(bytes, at), end: readU64(bytes, at + 8) });
  return ranges;
}

function store(txn: KvTransaction, session: number, ranges: readonly Range[]): void {
  if (ranges.length === 0) {
    txn.delete(reservedKey(session));
    return;
  }
  const bytes = Buffer.allocUnsafe(ranges.length * RANGE_BYTES);
  for (const [index, { next, end }] of ranges.entries()) {
    writeU64(bytes, index * RANGE_BYTES, next);
    writeU64(bytes, index * RANGE_BYTES + 8, end);
  }
  txn.put(reservedKey(session), bytes);
}
