import { toHoldfastError } from '../../proto/errors.js';
import { FRAME_FLAG_END } from '../../proto/frame-header.js';
import type { FrameReply } from '../../proto/frames.js';
import { packContent, packList, packTruncateSeqs } from '../pg/pack.js';
import {
  ESTIMATE_CHUNKS_MAX,
  FETCH_SALVAGED,
  LIST_TRUNCATE_SEQS,
  type PeerCall,
  RECOVERY_LIMITS,
} from '../pg/types.js';
import type { ChunkKey, ChunkStore, Version } from '../store/chunk-store.js';

/** Answers LIST from the store as it is now; `last` is its version. */
export function serveList(store: ChunkStore, { header }: PeerCall, last: Version): FrameReply {
  const { pg, ino, chunk } = header;
  const limit = Math.max(1, Math.min(header.length, RECOVERY_LIMITS.listEntries));
  const fields = { versionEpoch: last.epoch, versionSeq: last.seq };
  if (header.aux === LIST_TRUNCATE_SEQS) {
    const entries = store.listTruncateSeqs(pg, ino, limit);
    const flags = entries.length < limit ? FRAME_FLAG_END : 0;
    return { fields: { ...fields, flags }, payload: packTruncateSeqs(entries) };
  }
  const after = ino === 0 ? undefined : { ino, chunk };
  const chunks = store.list(pg, after, limit);
  const flags = chunks.length < limit ? FRAME_FLAG_END : 0;
  const aux = after ? 0 : estimateBytes(store, pg);
  return { fields: { ...fields, flags, aux }, payload: packList(chunks) };
}

/** Bytes of a group; too low when it has very many chunks. */
function estimateBytes(store: ChunkStore, pg: number): number {
  let bytes = 0;
  let after: ChunkKey | undefined;
  for (let counted = 0; counted < ESTIMATE_CHUNKS_MAX; ) {
    const page = store.list(pg, after, RECOVERY_LIMITS.listEntries);
    for (const info of page) bytes += info.bytes;
    counted += page.length;
    if (page.length < RECOVERY_LIMITS.listEntries) break;
    after = page.at(-1);
  }
  return bytes;
}

/**
 * Answers FETCH: the chunk as it is at the moment of the call. With FETCH_SALVAGED what nobody can read any more, damaged here
 * and on no other replica, is told as lost: one damaged block must not keep a group without its copies.
 * @param repair makes a chunk with a wrong checksum whole; undefined: there is no other copy to ask
 * @param lastNow the group's last operation at the moment of the call
 */
export async function serveFetch(
  store: ChunkStore,
  { header }: PeerCall,
  lastNow: () => Version,
  repair: ((key: ChunkKey) => Promise<void>) | undefined,
): Promise<FrameReply> {
  const key = { ino: header.ino, chunk: header.chunk };
  let last = lastNow();
  let content: Awaited<ReturnType<ChunkStore['readChunk']>>;
  try {
    content = await store.readChunk(header.pg, key);
  } catch (error) {
    if (!isCorrupt(error)) throw error;
    const repaired = await repair?.(key).then(
      () => true,
      (failure: unknown) => {
        if (!isCorrupt(failure)) throw failure;
      },
    );
    last = lastNow();
    if (repaired) content = await store.readChunk(header.pg, key);
    else if (header.aux === FETCH_SALVAGED) content = await store.salvageChunk(header.pg, key);
    else throw error;
  }
  const fields = { versionEpoch: last.epoch, versionSeq: last.seq };
  if (!content) return { fields: { ...fields, aux: 0 } };
  return { fields: { ...fields, aux: 1 }, payload: packContent(content) };
}

function isCorrupt(error: unknown): boolean {
  return toHoldfastError(error).errorName === 'CORRUPT';
}
