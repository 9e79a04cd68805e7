import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type Range, RangeIndex } from '../../../client/data/range-index.js';

describe('ranges of a file by where they lie', () => {
  it('finds what a look at each of them finds', () => {
    const MAX = 400_000;
    const range = fc
      .tuple(fc.nat(MAX), fc.integer({ min: 1, max: MAX }))
      .map(([start, bytes]) => ({ start, end: start + bytes }));
    const endless = fc.nat(MAX).map((start) => ({ start, end: Number.POSITIVE_INFINITY }));
    fc.assert(
      fc.property(fc.array(range), fc.array(fc.nat()), fc.oneof(range, endless), (all, removed, asked) => {
        const index = new RangeIndex<Range>();
        const left = new Set(all);
        for (const each of all) index.add(each);
        for (const number of removed) {
          const each = all[number % Math.max(1, all.length)];
          if (!each || !left.delete(each)) continue;
          index.remove(each);
        }
        const expected = [...left].filter(({ start, end }) => start < asked.end && asked.start < end);
        assert.deepEqual(new Set(index.overlapping(asked.start, asked.end)), new Set(expected));
      }),
      { seed: 5, numRuns: 200 },
    );
  });

  it('looks at few of many', () => {
    const index = new RangeIndex<Range>();
    let looks = 0;
    const BLOCK = 4096;
    const BLOCKS = 8_000;
    for (let i = 0; i < BLOCKS; i++) {
      index.add({
        get start() {
          looks++;
          return i * BLOCK;
        },
        get end() {
          return (i + 1) * BLOCK;
        },
      });
    }
    looks = 0;
    for (let i = 0; i < BLOCKS; i++) assert.equal(index.overlapping(i * BLOCK, (i + 1) * BLOCK).length, 1);
    assert.ok(looks <= 16 * BLOCKS, `${looks} looks for ${BLOCKS} searches`);
  });
});
