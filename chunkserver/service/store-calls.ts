import { packRanges } from '../../proto/extents.js';
import type { Op } from '../pg/types.js';
import type { ChunkStore, ReadResult } from '../store/chunk-store.js';
import type { ClientCall } from './calls.js';

/** Carries out an operation of a group's order. @throws HoldfastError ENOSPC: nothing was written */
export function applyOp(store: ChunkStore, pg: number, op: Op): Promise<{ allocatedDelta: number }> {
  const { ino, offset, version } = op;
  if (op.kind === 'truncate') return store.truncate(pg, ino, offset, op.chunkSize, op.truncateSeq, version);
  if (op.kind === 'delete') return store.deleteInode(pg, ino, version);
  if (op.runs) return store.writeRuns(pg, op, op.payload, op.runs, version, op.blockCrcs);
  if (op.hole && op.reserves) return store.reserve(pg, op, offset, op.hole, version);
  if (op.hole) return store.punch(pg, op, offset, op.hole, version);
  return store.write(pg, op, offset, op.payload, version, op.blockCrcs);
}

/** readFor() in this turn; undefined: use readFor(). */
export function readNowFor(store: ChunkStore, pg: number, call: ClientCall): ReadResult | undefined {
  return call.ranges ? undefined : store.readNow?.(pg, call, call.offset, call.length);
}

/** What a client reads: bytes of a chunk, or where data is, packed. @throws HoldfastError CORRUPT */
export async function readFor(store: ChunkStore, pg: number, call: ClientCall): Promise<ReadResult> {
  if (!call.ranges) return store.read(pg, call, call.offset, call.length);
  const data = packRanges(store.ranges(pg, call, call.ranges === 'stored or reserved'));
  return { version: undefined, data: [data], length: data.length };
}
