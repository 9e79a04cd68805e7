import assert from 'node:assert/strict';
import { unpackList, unpackTruncateSeqs } from '../../../chunkserver/pg/pack.js';
import {
  LIST_CHUNKS,
  LIST_TRUNCATE_SEQS,
  type PeerCall,
  RECOVERY_LIMITS,
} from '../../../chunkserver/pg/types.js';
import { serveList } from '../../../chunkserver/service/copy-server.js';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { FRAME_FLAG_END } from '../../../proto/frame-header.js';

const AT = { epoch: 1, seq: 1 };
const CHUNKS = 3 * RECOVERY_LIMITS.listEntries;

/** Inodes 1 to CHUNKS, each with one chunk and a truncate number. */
const store = {
  list: (_pg: number, after: { ino: number } | undefined, limit: number) =>
    inodes(after?.ino ?? 0, limit).map((ino) => ({ ino, chunk: 0, version: AT, bytes: 10 })),
  listTruncateSeqs: (_pg: number, after: number, limit: number) =>
    inodes(after, limit).map((ino) => ({ ino, truncateSeq: 1 })),
} as unknown as ChunkStore;

function inodes(after: number, limit: number): number[] {
  return Array.from({ length: Math.min(limit, CHUNKS - after) }, (_, i) => after + 1 + i);
}

describe('a list of what a group holds', () => {
  for (const [what, aux, unpack] of [
    ['chunks', LIST_CHUNKS, unpackList],
    ['truncate numbers', LIST_TRUNCATE_SEQS, unpackTruncateSeqs],
  ] as const) {
    it(`gives all ${what} page by page, however many are asked for at once`, () => {
      const found: number[] = [];
      for (let pages = 1; ; pages++) {
        const header = { pg: 1, ino: found.at(-1) ?? 0, chunk: 0, length: 0xffff_ffff, aux };
        const { payload, fields } = serveList(store, { header } as unknown as PeerCall, AT);
        const page = unpack(payload as Buffer).map(({ ino }) => ino);
        assert.ok(page.length <= RECOVERY_LIMITS.listEntries, `${page.length} entries in one reply`);
        found.push(...page);
        if (((fields?.flags ?? 0) & FRAME_FLAG_END) !== 0) break;
        assert.ok(pages < 10);
      }
      assert.deepEqual(found, inodes(0, CHUNKS));
    });
  }
});
