import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  PACKED_EXTENTS_MAX,
  packContent,
  packList,
  packTruncateSeqs,
  unpackContent,
  unpackList,
  unpackTruncateSeqs,
} from '../../../chunkserver/pg/pack.js';
import type { ChunkExtent } from '../../../chunkserver/store/chunk-store.js';

const u32 = fc.nat(0xffffffff);
const plain = { noNullPrototype: true };
const version = fc.record({ epoch: u32, seq: fc.maxSafeNat() }, plain);

/** Bytes of a chunk; undefined: hole. */
function flat(extents: readonly ChunkExtent[]): (number | undefined)[] {
  const bytes: (number | undefined)[] = [];
  for (const { offset, data } of extents) for (const [i, byte] of data.entries()) bytes[offset + i] = byte;
  return bytes;
}

describe('packed lists and chunks', () => {
  it('come back as they were', () => {
    const chunk = fc.record({ ino: fc.maxSafeNat(), chunk: u32, version, bytes: u32 }, plain);
    fc.assert(
      fc.property(fc.array(chunk), (chunks) => assert.deepEqual(unpackList(packList(chunks)), chunks)),
    );
    const entry = fc.record({ ino: fc.maxSafeNat(), truncateSeq: u32 }, plain);
    fc.assert(
      fc.property(fc.array(entry), (entries) =>
        assert.deepEqual(unpackTruncateSeqs(packTruncateSeqs(entries)), entries),
      ),
    );
  });

  it('keep what is lost of a chunk', () => {
    const extents = [{ offset: 5, data: Buffer.from('ab') }];
    const lost = [
      { start: 0, end: 5 },
      { start: 4096, end: 0xffff_ffff },
    ];
    const content = { version: { epoch: 1, seq: 2 }, truncateSeq: 3, extents, lost };
    assert.deepEqual(unpackContent(Buffer.concat(packContent(content))), content);
  });

  it('keep the bytes and the holes of a chunk, with neighbours joined', () => {
    const piece = fc.record({ gap: fc.nat(3), size: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(fc.array(piece), version, u32, (pieces, chunkVersion, truncateSeq) => {
        let at = 0;
        const extents = pieces.map(({ gap, size }, index) => {
          const offset = at + gap;
          at = offset + size;
          return { offset, data: Buffer.alloc(size, index + 1) };
        });
        const content = { version: chunkVersion, extents, truncateSeq };
        const back = unpackContent(Buffer.concat(packContent(content)));
        assert.deepEqual(flat(back.extents), flat(extents));
        assert.deepEqual({ ...back, extents: [] }, { ...content, extents: [] });
        back.extents.forEach((extent, i) => {
          const next = back.extents[i + 1];
          assert.ok(!next || extent.offset + extent.data.length < next.offset);
        });
      }),
    );
  });

  it('fill the smallest holes when there are too many extents for one frame', () => {
    const extents = Array.from({ length: PACKED_EXTENTS_MAX + 1 }, (_, i) => ({
      offset: i * 1000 + (i === PACKED_EXTENTS_MAX ? 5000 : 0),
      data: Buffer.alloc(600, 7),
    }));
    const content = { version: { epoch: 1, seq: 1 }, extents, truncateSeq: 0 };
    const back = unpackContent(Buffer.concat(packContent(content)));
    assert.equal(back.extents.length, 2);
    assert.equal(back.extents[0]?.data.length, (PACKED_EXTENTS_MAX - 1) * 1000 + 600);
    assert.equal(back.extents[0]?.data[650], 0);
    assert.equal(back.extents[1]?.offset, PACKED_EXTENTS_MAX * 1000 + 5000);
  });

  it('are refused when cut off anywhere', () => {
    const extents = [{ offset: 3, data: Buffer.from('abc') }];
    const whole = Buffer.concat(packContent({ version: { epoch: 1, seq: 1 }, extents, truncateSeq: 0 }));
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => unpackContent(whole.subarray(0, length)), /malformed/);
    }
    assert.throws(() => unpackList(Buffer.alloc(33)), /malformed/);
    assert.throws(() => unpackTruncateSeqs(Buffer.alloc(17)), /malformed/);
  });
});
