import assert from 'node:assert/strict';
import fc from 'fast-check';
import { crc32c } from '../../common/crc32c.js';
import {
  appendBlockCrcs,
  appendCrc,
  blockCount,
  blockCrcs,
  firstBadBlock,
  verifiedCrc,
} from '../../proto/block-crc.js';
import { BLOCK_SIZE_BYTES } from '../../proto/types.js';
import { pattern } from '../chunkserver/store/harness.js';

describe('block checksums', () => {
  it('lie on the grid of the chunk, whatever the offset', () => {
    assert.equal(blockCount(0, BLOCK_SIZE_BYTES), 1);
    assert.equal(blockCount(1, BLOCK_SIZE_BYTES + 1), 2);
    assert.equal(blockCount(5, 5), 0);
    const data = pattern(1, 6000);
    assert.deepEqual(
      [...blockCrcs(4000, data)],
      [crc32c(data.subarray(0, 96)), crc32c(data.subarray(96, 4192)), crc32c(data.subarray(4192))],
    );
  });

  it('combine into the checksum of everything', () => {
    const offsets = fc.integer({ min: 0, max: 20_000 });
    fc.assert(
      fc.property(offsets, fc.integer({ min: 0, max: 30_000 }), fc.uint8Array(), (offset, length, before) => {
        const head = Buffer.from(before);
        const data = pattern(offset, length);
        const combined = appendBlockCrcs(crc32c(head), offset, length, blockCrcs(offset, data));
        assert.equal(combined, crc32c(Buffer.concat([head, data])));
      }),
    );
  });

  it('verify all blocks in one pass, which gives the checksum of everything, and see any damaged one', () => {
    const lengths = fc.integer({ min: 1, max: 30_000 });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 20_000 }), lengths, fc.nat(), (offset, length, nat) => {
        const data = pattern(offset, length);
        const crcs = blockCrcs(offset, data);
        assert.equal(verifiedCrc(offset, data, crcs), crc32c(data));
        const damaged = Buffer.from(data);
        damaged[nat % length] = (damaged[nat % length] as number) ^ (1 + (nat % 255));
        assert.equal(verifiedCrc(offset, damaged, crcs), undefined);
      }),
    );
  });

  it('append to one another', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 9000 }), fc.uint8Array({ maxLength: 9000 }), (first, second) => {
        const [before, behind] = [crc32c(Buffer.from(first)), crc32c(Buffer.from(second))];
        const both = crc32c(Buffer.concat([first, second]));
        assert.equal(appendCrc(before, behind, second.length), both);
      }),
    );
  });

  it('find the first damaged block', () => {
    const data = pattern(1, 12_000);
    const crcs = blockCrcs(1000, data);
    assert.equal(firstBadBlock(1000, data, crcs, 0), -1);
    data[3095] = (data[3095] as number) ^ 1;
    assert.equal(firstBadBlock(1000, data, crcs, 0), 1000);
    data[3095] = (data[3095] as number) ^ 1;
    data[3096] = (data[3096] as number) ^ 1;
    assert.equal(firstBadBlock(1000, data, crcs, 0), 4096);
  });
});
