import { HoldfastError } from '../../proto/errors.js';
import type { RecordState, RepairRecords } from '../../proto/gen/meta.js';
import type { Batch } from './batch.js';
import { type Tag, tagOfKey } from './keys.js';

/** Tables whose records exist in the store alone: nothing in memory has to follow a repair. */
const REPAIRABLE: ReadonlySet<Tag | undefined> = new Set<Tag>(['I', 'D', 'C', 'L', 'X', 'P', 'U', 'R', 'N']);

/**
 * Sets records right, as a check found that they ought to be: all, or none when one of those that it saw has changed since.
 * @throws HoldfastError EAGAIN when something changed, EINVAL for a table that cannot be repaired so
 */
export function repairRecords(batch: Batch, op: RepairRecords): void {
  const { txn, counters } = batch;
  for (const { key } of [...op.expected, ...op.changed]) {
    if (!REPAIRABLE.has(tagOfKey(key))) throw new HoldfastError('EINVAL', 'this table cannot be repaired');
  }
  batch.settle();
  if (!op.expected.every((record) => holds(txn.get(record.key), record))) {
    throw new HoldfastError('EAGAIN', 'it has changed since it was checked');
  }
  for (const { key, value } of op.changed) {
    if (value) txn.put(Buffer.from(key), Buffer.from(value));
    else txn.delete(Buffer.from(key));
  }
  counters.inodes += op.inodesDelta;
  counters.orphans += op.orphansDelta;
  counters.allocated += op.allocatedDelta;
  for (const { kind, id, bytes, inodes, orphans } of op.quotas?.corrections ?? []) {
    const quota = batch.quotas.get(kind, id);
    if (quota) batch.quotas.adjust(quota, bytes, inodes, orphans);
  }
  counters.nextIno = Math.max(counters.nextIno, op.nextIno);
  counters.nextCookie = Math.max(counters.nextCookie, op.nextCookie);
  counters.nextSession = Math.max(counters.nextSession, op.nextSession);
}

function holds(found: Buffer | undefined, { value }: RecordState): boolean {
  return found && value ? found.equals(value) : found === value;
}
