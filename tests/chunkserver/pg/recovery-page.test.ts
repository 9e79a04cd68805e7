import assert from 'node:assert/strict';
import fc from 'fast-check';
import { comparePage, END_OF_KEYS, START_OF_KEYS } from '../../../chunkserver/pg/recovery-page.js';
import { compareKeys, type PgEnv, RECOVERY_LIMITS } from '../../../chunkserver/pg/types.js';
import type { ChunkInfo, ChunkKey } from '../../../chunkserver/store/chunk-store.js';

const info = fc
  .record({ ino: fc.integer({ min: 1, max: 4 }), chunk: fc.nat(4), seq: fc.nat(2) })
  .map(({ ino, chunk, seq }): ChunkInfo => ({ ino, chunk, version: { epoch: 1, seq }, bytes: 10 }));
const side = fc
  .uniqueArray(info, { selector: ({ ino, chunk }) => ino * 100 + chunk, maxLength: 20 })
  .map((chunks) => chunks.sort(compareKeys));

function environment(local: readonly ChunkInfo[], pageFetches: number): PgEnv {
  const list = (_pg: number, after: ChunkKey | undefined, limit: number) =>
    local.filter((each) => !after || compareKeys(each, after) > 0).slice(0, limit);
  return { list, limits: { ...RECOVERY_LIMITS, pageFetches } } as Partial<PgEnv> as PgEnv;
}

describe('a page of recovery', () => {
  it('makes the local copy that of the source, page after page', () => {
    fc.assert(
      fc.property(
        side,
        side,
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 5 }),
        (source, local, fetches, listed) => {
          const copy = new Map(local.map((each) => [`${each.ino}/${each.chunk}`, each]));
          let cursor: ChunkKey = START_OF_KEYS;
          let bytes = 0;
          while (cursor !== END_OF_KEYS) {
            const behind = source.filter((each) => compareKeys(each, cursor) > 0);
            const list = behind.slice(0, listed);
            const present = [...copy.values()].sort(compareKeys);
            const page = comparePage(environment(present, fetches), 0, cursor, list, behind.length < listed);
            assert.ok(page.fetch.length <= fetches);
            assert.ok(compareKeys(page.end, cursor) > 0);
            for (const key of [...page.remove, ...page.fetch]) {
              assert.ok(compareKeys(key, cursor) > 0 && compareKeys(key, page.end) <= 0);
            }
            for (const key of page.remove) assert.ok(copy.delete(`${key.ino}/${key.chunk}`));
            for (const each of page.fetch) copy.set(`${each.ino}/${each.chunk}`, each);
            bytes += page.bytes;
            cursor = page.end;
          }
          assert.deepEqual([...copy.values()].sort(compareKeys), source);
          assert.equal(bytes, source.length * 10);
        },
      ),
    );
  });

  it('fetches nothing that has the same version', () => {
    fc.assert(
      fc.property(side, (chunks) => {
        const page = comparePage(environment(chunks, 100), 0, START_OF_KEYS, chunks, true);
        assert.deepEqual([page.fetch, page.remove, page.end], [[], [], END_OF_KEYS]);
      }),
    );
  });
});
