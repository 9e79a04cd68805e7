import assert from 'node:assert/strict';
import { unpackContent, unpackList, unpackTruncateSeqs } from '../../../chunkserver/pg/pack.js';
import {
  FETCH_SALVAGED,
  LIST_CHUNKS,
  LIST_TRUNCATE_SEQS,
  type PeerCall,
  RECOVERY_LIMITS,
} from '../../../chunkserver/pg/types.js';
import { serveFetch, serveList } from '../../../chunkserver/service/copy-server.js';
import type { ChunkContent, ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { type ErrorName, HoldfastError } from '../../../proto/errors.js';
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

describe('a chunk that is damaged here', () => {
  const sound: ChunkContent = { version: AT, extents: [], truncateSeq: 0 };
  const lost = [{ start: 0, end: 4096 }];

  /** What is told of it, or the error. @param repair how asking the other replicas ends; undefined: there is none to ask */
  async function told(aux: number, repair: 'done' | ErrorName | undefined): Promise<unknown> {
    let damaged = true;
    const damagedStore = {
      readChunk: () => (damaged ? Promise.reject(new HoldfastError('CORRUPT')) : Promise.resolve(sound)),
      salvageChunk: () => Promise.resolve({ ...sound, lost }),
    } as unknown as ChunkStore;
    const repairing = async (): Promise<void> => {
      if (repair !== 'done') throw new HoldfastError(repair as ErrorName);
      damaged = false;
    };
    const call = { header: { pg: 1, ino: 7, chunk: 0, aux } } as unknown as PeerCall;
    try {
      const { payload } = await serveFetch(damagedStore, call, () => AT, repair && repairing);
      return unpackContent(Buffer.concat(payload as Buffer[])).lost ?? 'sound';
    } catch (error) {
      return (error as HoldfastError).errorName;
    }
  }

  it('is told as lost only to whoever copies the group, and only when nobody has it', async () => {
    assert.deepEqual(await told(FETCH_SALVAGED, undefined), lost);
    assert.deepEqual(await told(FETCH_SALVAGED, 'CORRUPT'), lost);
    assert.equal(await told(FETCH_SALVAGED, 'UNAVAILABLE'), 'UNAVAILABLE');
    assert.equal(await told(FETCH_SALVAGED, 'done'), 'sound');
  });

  it('is no sound copy for whoever repairs his own', async () => {
    assert.equal(await told(0, undefined), 'CORRUPT');
    assert.equal(await told(0, 'CORRUPT'), 'CORRUPT');
    assert.equal(await told(0, 'UNAVAILABLE'), 'UNAVAILABLE');
    assert.equal(await told(0, 'done'), 'sound');
  });
});
