import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { ReclaimItem } from '../../../metaserver/service/ports.js';
import { pgsToPurge } from '../../../metaserver/service/purge-plan.js';
import { pgOfChunk } from '../../../proto/types.js';

const MIB = 1024 * 1024;

function row(fields: Partial<ReclaimItem>): ReclaimItem {
  return { ino: 77, truncateSeq: 0, from: 0, size: 0, chunkSize: MIB, ...fields };
}

describe('which PGs a reclaim touches', () => {
  it('is the first chunk alone for an empty file', () => {
    assert.deepEqual(pgsToPurge(row({}), 48), [pgOfChunk(77, 0, 48)]);
  });

  it('covers every chunk of the range and one beyond, once each', () => {
    const item = fc.record({
      ino: fc.integer({ min: 1, max: 2 ** 44 - 1 }),
      from: fc.integer({ min: 0, max: 100 * MIB }),
      length: fc.integer({ min: 0, max: 100 * MIB }),
      pgCount: fc.integer({ min: 1, max: 64 }),
    });
    fc.assert(
      fc.property(item, ({ ino, from, length, pgCount }) => {
        const size = from + length;
        const expected = new Set<number>();
        for (let chunk = Math.floor(from / MIB); chunk * MIB < size; chunk++) {
          expected.add(pgOfChunk(ino, chunk, pgCount));
        }
        expected.add(pgOfChunk(ino, Math.ceil(size / MIB), pgCount));
        const pgs = pgsToPurge(row({ ino, from, size }), pgCount);
        assert.equal(new Set(pgs).size, pgs.length);
        assert.ok([...expected].every((pg) => pgs.includes(pg)));
        assert.ok(pgs.length <= expected.size + 1);
      }),
    );
  });

  it('is every PG, and no more work than that, for a file of 2^53 bytes', () => {
    const pgs = pgsToPurge(row({ size: 2 ** 53 - 1, chunkSize: 4096 }), 48);
    assert.deepEqual(
      pgs,
      Array.from({ length: 48 }, (_, i) => i),
    );
  });
});
