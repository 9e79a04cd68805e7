import type { FrameFields, FrameHeader } from './frame-header.js';

/**
 * What acknowledged, unsynced operations of a placement group are certainly still there: the write verifier of NFS
 * (RFC 1813, 3.3.7 and 3.3.21), for a group of replicas.
 *
 * Every in-sync replica holds every acknowledged operation, at least in its memory. As long as one of them has not been
 * started again, all others get from it what they lost. When all have been started again, the map gives the group a new
 * lineage: the epoch of that moment. The primary that leads first under it knows what was left: the operations up to the
 * boundary, for a replica loses the end of its log, never something from its middle.
 */
export interface Lineage {
  /** Epoch at which the present lineage began; 0: with the group. */
  since: number;
  /** The same of the lineage before. */
  former: number;
  /** The last operation of the former lineage that was left; {0, 0}: not known any more. */
  boundary: { epoch: number; seq: number };
}

/** Whether an acknowledged operation is certainly in the group. Of lineages before the former one nothing is known. */
export function survived(op: { epoch: number; seq: number }, { since, former, boundary }: Lineage): boolean {
  if (op.epoch >= since) return true;
  if (op.epoch < former) return false;
  return op.epoch < boundary.epoch || (op.epoch === boundary.epoch && op.seq <= boundary.seq);
}

/** In the reply to SYNC. */
export function lineageFields({ since, former, boundary }: Lineage): FrameFields {
  return { aux: since, length: former, versionEpoch: boundary.epoch, versionSeq: boundary.seq };
}

/** Out of the reply to SYNC. */
export function lineageOf(header: FrameHeader): Lineage {
  const { aux, length, versionEpoch, versionSeq } = header;
  return { since: aux, former: length, boundary: { epoch: versionEpoch, seq: versionSeq } };
}
