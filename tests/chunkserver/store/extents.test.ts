import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  coveredBytes,
  decodeChunkHead,
  decodeChunkState,
  type Extent,
  encodeChunkState,
  newExtent,
  replaceRange,
  replaceRanges,
  sliceExtent,
} from '../../../chunkserver/store/extents.js';
import { blockCeil, blockCount, blockCrcs, blockFloor } from '../../../proto/block-crc.js';
import { pattern } from './harness.js';

const CHUNK = 40_000;
const range = fc
  .tuple(fc.integer({ min: 0, max: CHUNK - 1 }), fc.integer({ min: 1, max: 9000 }))
  .map(([start, length]) => ({ start, end: Math.min(CHUNK, start + length) }));
const changes = fc.array(fc.record({ range, hole: fc.boolean() }), { maxLength: 30 });

/** Applies the changes; the data of change i lies in segment i + 1, from place 100 on. */
function build(list: { range: { start: number; end: number }; hole: boolean }[]): {
  extents: readonly Extent[];
  live: Map<number, number>;
  pieces: Map<number, number>;
  naive: Uint8Array;
} {
  let extents: readonly Extent[] = [];
  const live = new Map<number, number>();
  const pieces = new Map<number, number>();
  const naive = new Uint8Array(CHUNK);
  list.forEach(({ range: { start, end }, hole }, i) => {
    const crcs = blockCrcs(start, pattern(i, end - start));
    const extent = hole ? undefined : newExtent(start, end - start, i + 1, 100, crcs);
    extents = replaceRange(extents, start, end, extent, (segment, bytes, added) => {
      live.set(segment, (live.get(segment) ?? 0) + bytes);
      pieces.set(segment, (pieces.get(segment) ?? 0) + added);
    });
    naive.fill(hole ? 0 : i + 1, start, end);
  });
  return { extents, live, pieces, naive };
}

describe('extents', () => {
  it('say for every byte which write was the last there, and count the live bytes and extents of every segment', () => {
    fc.assert(
      fc.property(changes, (list) => {
        const { extents, live, pieces, naive } = build(list);
        const seen = new Uint8Array(CHUNK);
        for (const { start, end, segment } of extents) seen.fill(segment, start, end);
        assert.deepEqual(seen, naive);
        const counts = new Array<number>(list.length + 1).fill(0);
        for (const segment of naive) counts[segment] = (counts[segment] as number) + 1;
        for (let i = 1; i <= list.length; i++) {
          assert.equal(live.get(i) ?? 0, counts[i]);
          assert.equal(pieces.get(i) ?? 0, extents.filter(({ segment }) => segment === i).length);
        }
        assert.equal(coveredBytes(extents), CHUNK - (counts[0] as number));
      }),
    );
  });

  it('are the same when several are replaced at once as when they are one after the other', () => {
    const added = fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 3000 })), { minLength: 1 });
    fc.assert(
      fc.property(changes, added, (list, steps) => {
        const { extents } = build(list);
        let end = 0;
        const fresh = steps.map(([gap, length]) => {
          const start = end + gap;
          end = start + length;
          return newExtent(start, length, 99, 100 + start, blockCrcs(start, pattern(1, length)));
        });
        const [one, all] = [new Map<string, number>(), new Map<string, number>()];
        const count = (live: Map<string, number>) => (segment: number, bytes: number, pieces: number) => {
          live.set(`${segment} bytes`, (live.get(`${segment} bytes`) ?? 0) + bytes);
          live.set(`${segment} extents`, (live.get(`${segment} extents`) ?? 0) + pieces);
        };
        let expected = extents;
        for (const extent of fresh)
          expected = replaceRange(expected, extent.start, extent.end, extent, count(one));
        assert.deepEqual(replaceRanges(extents, fresh, count(all)), expected);
        assert.deepEqual(all, one);
      }),
    );
  });

  it('ascend, and carry just the blocks and checksums that verify them', () => {
    fc.assert(
      fc.property(changes, (list) => {
        let previous = 0;
        for (const extent of build(list).extents) {
          assert.ok(previous <= extent.start && extent.start < extent.end);
          previous = extent.end;
          const written = (list[extent.segment - 1] as { range: { start: number; end: number } }).range;
          assert.equal(extent.blockStart, Math.max(written.start, blockFloor(extent.start)));
          assert.equal(extent.blockEnd, Math.min(written.end, blockCeil(extent.end)));
          assert.equal(extent.place, 100 + extent.blockStart - written.start);
          const data = pattern(extent.segment - 1, written.end - written.start);
          const blocks = data.subarray(extent.blockStart - written.start, extent.blockEnd - written.start);
          assert.deepEqual([...extent.crcs], [...blockCrcs(extent.blockStart, blocks)]);
          assert.equal(extent.crcs.length, blockCount(extent.blockStart, extent.blockEnd));
        }
      }),
    );
  });

  it('come back from their encoding as they were', () => {
    fc.assert(
      fc.property(changes, (list) => {
        const { extents } = build(list);
        const state = { version: { epoch: 3, seq: 2 ** 40 }, extents, bytes: coveredBytes(extents) };
        const value = encodeChunkState(state);
        assert.deepEqual(decodeChunkState(value), state);
        assert.deepEqual(decodeChunkHead(value), { version: state.version, bytes: state.bytes });
      }),
    );
  });

  it('refuse a slice that reaches beyond them', () => {
    const extent = newExtent(10, 20, 1, 0, blockCrcs(10, pattern(1, 20)));
    assert.throws(() => sliceExtent(extent, 9, 20));
    assert.throws(() => sliceExtent(extent, 15, 15));
  });
});
